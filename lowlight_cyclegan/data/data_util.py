"""Lists of names, folders and LMDBs of images, and decoding, which does without BasicSR."""
import cv2
import numpy as np
import os
import re
from concurrent.futures import ThreadPoolExecutor
from os import path as osp

__all__ = ['IMAGE_EXTENSIONS', 'FileReader', 'decode_image', 'map_threaded', 'read_name_list', 'scan_images']

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
_SYSTEM_FILES = ('thumbs.db', 'desktop.ini')


def read_name_list(path, key):
    """Names in a list file: one file name without extension per line; blank lines and ``#`` comments are left out.

    Args:
        path (str): Text file, UTF-8.
        key (str): The option that holds the path, for messages.

    Returns:
        list[str]: Names in the file's order, each once.

    Raises:
        ValueError: The file cannot be read or holds no name.
    """
    try:
        with open(path, encoding='utf-8-sig') as f:
            names = [re.sub(r'(^|\s)#.*', '', line).strip() for line in f]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{key}: the list '{path}' cannot be read ({error}); "
                         'give a text file with one file name per line') from None
    names = [name for name in dict.fromkeys(names) if name]
    if not names:
        raise ValueError(f"{key}: the list '{path}' holds no names; write one file name without extension per line")
    return names


def scan_images(root, key, io_backend):
    """Images of one folder (not of its sub-folders) or LMDB, sorted by path.

    Sub-folders, links to nothing and files without an image extension are left out, counted and named in one line of
    the log each; hidden files are left out.

    Args:
        root (str): Folder, or a ``.lmdb`` folder as BasicSR's ``create_lmdb`` writes it.
        key (str): The option that holds root, for messages.
        io_backend (dict): ``type: disk | lmdb``.

    Returns:
        list[tuple[str, str]]: (name without extension, path for the file client). An LMDB's keys are both.

    Raises:
        FileNotFoundError: The folder is missing.
        ValueError: It holds no image, or is no LMDB of BasicSR.
    """
    if io_backend['type'] not in ('disk', 'lmdb'):
        raise ValueError(f"io_backend: type '{io_backend['type']}' is not supported here; use disk or lmdb")
    if not osp.isdir(root):
        raise FileNotFoundError(f"{key}: folder '{root}' does not exist")

    if io_backend['type'] == 'lmdb':
        meta = osp.join(root, 'meta_info.txt')
        if not (osp.isfile(meta) and osp.isfile(osp.join(root, 'data.mdb'))):
            raise ValueError(f"{key}: '{root}' is no LMDB of BasicSR (data.mdb and meta_info.txt); make it with "
                             "BasicSR's scripts/data_preparation/create_lmdb.py, or use io_backend type disk")
        with open(meta, encoding='utf-8') as f:
            # a line is 'name.png (400,600,3) 1'; names may hold dots and spaces
            names = [osp.splitext(line.rsplit(' (', 1)[0])[0] for line in f if line.strip()]
        images = [(name, name) for name in sorted(names)]
        others = []
    else:
        entries = [entry for entry in os.scandir(root) if not entry.name.startswith('.')]
        files = sorted(entry.name for entry in entries if entry.is_file())
        _say_left_out(key, 'sub-folders', [entry.name for entry in entries if entry.is_dir()])
        _say_left_out(key, 'links to nothing', [entry.name for entry in entries if not osp.exists(entry.path)])
        images = [(osp.splitext(file)[0], osp.join(root, file)) for file in files
                  if file.lower().endswith(IMAGE_EXTENSIONS)]
        others = [file for file in files if not file.lower().endswith(IMAGE_EXTENSIONS + _SYSTEM_FILES)]

    if not images:
        found = f'; it has {len(others)} other files, such as {others[0]}' if others else ''
        raise ValueError(f"{key}: no image in '{root}' ({', '.join(IMAGE_EXTENSIONS)}){found}")
    _say_left_out(key, 'files without an image extension', others)
    return images


def _say_left_out(key, kind, names):
    if names:
        from basicsr.utils import get_root_logger
        shown = ', '.join(sorted(names)[:5]) + (', ...' if len(names) > 5 else '')
        get_root_logger().info(f'{key}: {len(names)} {kind} ignored: {shown}')


class FileReader:
    """Bytes of the files of a dataset, through BasicSR's file clients: ``reader.get(path, 'lq')``.

    LMDB forbids opening a file twice in one process and using it across a fork. So its clients are shared by the
    readers of a process (training and validation on two parts of one LMDB), and every process opens its own.

    Args:
        io_backend (dict): ``type: disk | lmdb`` and the backend's own options.
        roots (dict[str, str]): Folder or LMDB of each client key, for example of 'lq' and 'gt'.

    Raises:
        ValueError: An LMDB cannot be opened.
    """
    _lmdbs = {}
    _process = None

    def __init__(self, io_backend, roots):
        self.options = dict(io_backend)
        self.type = self.options.pop('type')
        self.roots = roots
        for key in roots:
            self._client(key)

    def get(self, path, key):
        """Bytes of a file, or of an LMDB's entry, below the root of ``key``."""
        return self._client(key).get(path)

    def _client(self, key):
        from basicsr.utils import FileClient
        if self.type != 'lmdb':
            return FileClient(self.type, **self.options)
        if FileReader._process != os.getpid():
            for client in self._lmdbs.values():
                client.client._client['default'].close()
            self._lmdbs.clear()
            FileReader._process = os.getpid()
        root = self.roots[key]
        if root not in self._lmdbs:
            import lmdb
            try:
                self._lmdbs[root] = FileClient('lmdb', db_paths=root, **self.options)
            except lmdb.Error as error:
                raise ValueError(f"dataroot_{key}: LMDB '{root}' cannot be opened ({error})") from None
        return self._lmdbs[root]


def decode_image(content):
    """Decode the bytes of an image file.

    16-bit, grayscale, palette and RGBA images come out as 8-bit colour (alpha is dropped), turned upright by their
    EXIF orientation.

    Args:
        content (bytes | None): The whole file.

    Returns:
        ndarray: (h, w, 3) uint8, BGR.

    Raises:
        ValueError: Empty, not an image, or cut short (OpenCV decodes nothing from an incomplete buffer).
    """
    if not content:
        raise ValueError('empty file')
    try:
        img = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # for example more pixels than OpenCV's limit
        raise ValueError(f'OpenCV cannot decode it: {error.err}') from None
    if img is None:
        raise ValueError('not an image OpenCV can decode, or cut short')
    return img


def map_threaded(function, items):
    """Yield function(item) in order, computed by threads that run at most a few items ahead, which bounds memory."""
    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        pending = []
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * workers:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()
