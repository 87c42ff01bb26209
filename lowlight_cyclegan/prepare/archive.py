"""Reading what people download: a folder or a zip archive, the latter not to be trusted with sizes."""
from __future__ import annotations

import lzma
import os
import struct
import zipfile
import zlib
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS
from lowlight_cyclegan.messages import warn

__all__ = ['FolderSource', 'Source', 'ZipSource', 'images_in', 'open_source']

MAX_FILES = 200_000
MAX_BYTES = 64 << 30  # unpacked; the largest of the datasets has a few GB
MAX_RATIO = 100  # unpacked over packed; pictures hardly shrink
RATIO_FROM = 1 << 20  # a small file may shrink as it likes
# What zipfile raises of damaged archives; a RuntimeError is an entry that it cannot read: of a later version of the
# format (NotImplementedError), or encrypted.
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, RuntimeError)


class FolderSource:
    """Files below a folder; links to folders are not followed, hidden files left out.

    Attributes:
        path: The folder.
        files: Paths relative to the folder, with slashes, sorted.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: list[str] = []
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith('.')]
            relative = osp.relpath(folder, path).replace(os.sep, '/')
            self.files += [name if relative == '.' else f'{relative}/{name}' for name in names
                           if not name.startswith('.')]
        self.files.sort()

    def read(self, name: str) -> bytes:
        """Bytes of a file; ValueError says why there are none."""
        try:
            with open(osp.join(self.path, name), 'rb') as f:
                return f.read()
        except OSError as error:
            raise ValueError(error.strerror) from None


class ZipSource:
    """Files of a zip archive. Entries are only ever read: what they are called can do no harm.

    Attributes:
        path: The archive.
        files: Names of the entries, sorted.

    Raises:
        ValueError: The archive is broken, cut short or encrypted, or unpacks to more than pictures can.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except DAMAGED as error:
            raise ValueError(f'{path}: is not a complete zip archive ({error}): download it again') from None
        # (An entry without a name is no file, and is_dir does not take it.)
        entries = [entry for entry in self.zip.infolist() if entry.filename and not entry.is_dir()]
        self._check(entries)
        self.files = sorted(e.filename for e in entries if not _is_hidden(e.filename))

    def _check(self, entries: list[zipfile.ZipInfo]) -> None:
        if len(entries) > MAX_FILES:
            raise ValueError(f'{self.path}: holds {len(entries)} files, more than {MAX_FILES}: refused')
        for entry in entries:
            if entry.flag_bits & 1:
                raise ValueError(f'{self.path}: the entry {entry.filename!r} is encrypted: unpack it and give the '
                                 'folder')
            if entry.file_size > RATIO_FROM and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
                raise ValueError(f'{self.path}: the entry {entry.filename!r} unpacks to {entry.file_size} bytes, over '
                                 f'{MAX_RATIO} times its packed size: refused as a zip bomb')
        total = sum(entry.file_size for entry in entries)
        packed = osp.getsize(self.path)
        if total > MAX_BYTES or total > RATIO_FROM and total > MAX_RATIO * packed:
            raise ValueError(f'{self.path}: unpacks to {total} bytes from {packed}: refused as a zip bomb')

    def read(self, name: str) -> bytes:
        """Bytes of an entry, never more than it declares; ValueError says why there are none."""
        try:
            return self.zip.read(name)
        except DAMAGED as error:
            raise ValueError(f'damaged in the archive ({error})') from None


Source = FolderSource | ZipSource


def _is_hidden(name: str) -> bool:
    return any(part.startswith('.') or part == '__MACOSX' for part in name.split('/'))


def open_source(path: str) -> Source:
    """Open a folder or a zip archive.

    Args:
        path: What was downloaded.

    Returns:
        FolderSource | ZipSource: With ``path``, ``files`` and ``read(name)``.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It is no zip archive, or one that is refused.
    """
    path = osp.expanduser(path)
    if osp.isdir(path):
        return FolderSource(path)
    if not osp.isfile(path):
        raise FileNotFoundError(f'{path}: no such file or folder')
    if path.lower().endswith(('.part', '.crdownload', '.download')):
        raise ValueError(f'{path}: the download has not finished')
    if path.lower().endswith(('.rar', '.7z', '.tar', '.gz', '.tgz')):
        raise ValueError(f'{path}: only zip archives are read: unpack it and give the folder')
    return ZipSource(path)


def images_in(folder: str) -> dict[str, str]:
    """Images of a folder by their names without extension; a line names what else is there.

    Returns:
        Name without extension -> path, sorted by path.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: Two images differ by the extension alone.
    """
    if not osp.isdir(folder):
        raise FileNotFoundError(f'no such folder: {folder}')
    entries = sorted((entry for entry in os.scandir(folder) if not entry.name.startswith('.')),
                     key=lambda entry: entry.name)
    images = [entry for entry in entries if entry.name.lower().endswith(IMAGE_EXTENSIONS) and not entry.is_dir()]
    files = {osp.splitext(entry.name)[0]: entry.path for entry in images}
    if not images:
        raise FileNotFoundError(f'no images in {folder}')
    if len(files) < len(images):
        raise ValueError(f'{folder} holds images whose names differ by the extension alone')
    others = [entry.name for entry in entries if entry not in images]
    if others:
        warn(f'{folder}: {len(others)} sub-folders and other files are left out, such as {others[0]}')
    return files
