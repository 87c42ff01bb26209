"""Datasets as they are written here, with a ``manifest.json`` that says what the images are and how they look.

Keys: ``dataset``, ``settings`` (what made it, if anything did), ``notes``, ``warnings``, ``duplicates`` (path: the
first path with the same pixels) and ``images``, a list of ``path`` (relative to the manifest), ``source`` (its name in
the download), ``role`` (train, test or none), ``sha256`` of the file, ``size`` (width and height) and its fingerprint
(see ``fingerprint.py``).
"""
from __future__ import annotations

import hashlib
import json
import numpy as np
import os
from collections.abc import Sequence
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS, decode_image, map_threaded
from lowlight_cyclegan.files import atomic_write, file_sha256
from .fingerprint import find_matches, fingerprint

__all__ = [
    'MANIFEST', 'NewDataset', 'check_complete', 'duplicates', 'load_fingerprints', 'read_manifest', 'shared_views'
]

MANIFEST = 'manifest.json'


def read_manifest(path: str, *keys: str) -> list[dict]:
    """The ``images`` of a manifest.

    Args:
        path: The file.
        keys: What each of them must have.

    Raises:
        ValueError: It cannot be read or is no manifest.
    """
    try:
        with open(path, encoding='utf-8') as f:
            images = json.load(f)['images']
        for entry in images:
            for key in ('path', *keys):
                entry[key]
        return images
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: is no manifest of lowlight-cyclegan data ({type(error).__name__})') from None


class NewDataset:
    """A dataset in the making: files gather in ``.<name>.partial`` beside the target and appear there all at once.

    Args:
        target: Folder of the dataset, which is not there.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.staging = osp.join(osp.dirname(target), f'.{osp.basename(target)}.partial')

    def add(self, path: str, content: bytes, img: np.ndarray, source: str, role: str | None) -> dict:
        """Write an image and describe it.

        Args:
            path: Relative to the dataset, with slashes.
            content: The file.
            img: What is in it, (h, w, 3) uint8, BGR.
            source: Where it came from.
            role: 'train', 'test' or None.

        Returns:
            Its entry in the manifest.
        """
        file = osp.join(self.staging, *path.split('/'))
        os.makedirs(osp.dirname(file), exist_ok=True)
        atomic_write(file, content, durable=False)
        return {'path': path, 'source': source, 'role': role, 'sha256': hashlib.sha256(content).hexdigest(),
                'size': [img.shape[1], img.shape[0]], **fingerprint(img)}

    def finish(self, images: list[dict], notes: Sequence[str] = (), warnings: Sequence[str] = (),
               settings: dict | None = None) -> None:
        """Write the manifest, take away what an interrupted run with another source left, and show the dataset."""
        wanted = {osp.join(self.staging, *entry['path'].split('/')) for entry in images}
        for folder, _, names in os.walk(self.staging):
            for name in names:
                if osp.join(folder, name) not in wanted:
                    os.remove(osp.join(folder, name))
        manifest = {'dataset': osp.basename(self.target), 'settings': settings, 'notes': notes, 'warnings': warnings,
                    'duplicates': duplicates(images), 'images': images}
        atomic_write(osp.join(self.staging, MANIFEST), json.dumps(manifest, indent=1).encode())
        os.replace(self.staging, self.target)


def check_complete(folder: str, settings: dict | None = None) -> None:
    """See that a dataset's folder is as its manifest says.

    Args:
        folder: Of the dataset.
        settings: What it is to have been made with.

    Raises:
        ValueError: It is not; the line says what to do.
    """
    try:
        images = read_manifest(osp.join(folder, MANIFEST), 'sha256')
        with open(osp.join(folder, MANIFEST), encoding='utf-8') as f:
            found = json.load(f).get('settings')
    except ValueError:
        raise ValueError(f'{folder}: is there and has no readable {MANIFEST}: move it away or give another --output'
                         ) from None
    if found != settings:
        raise ValueError(f'{folder}: is there and was made with other settings: move it away or give another name')
    for entry in images:
        file = osp.join(folder, *entry['path'].split('/'))
        if not osp.isfile(file) or file_sha256(file) != entry['sha256']:
            raise ValueError(f'{file}: is missing or not what the manifest says: remove {folder} and give the same '
                             'command again')


def duplicates(images: list[dict]) -> dict[str, str]:
    """{path: path of the first image with the same pixels}, low and normal images apart."""
    first: dict[tuple[str, str], str] = {}
    repeated = {}
    for entry in images:
        key = (entry['path'].rsplit('/', 2)[-2], entry['pixels'])
        if first.setdefault(key, entry['path']) != entry['path']:
            repeated[entry['path']] = first[key]
    return repeated


def shared_views(images: list[dict]) -> list[str]:
    """A line where views of test inputs are among the training inputs, else nothing."""
    train, test = ([e for e in images if e['role'] == role and '/low/' in e['path']] for role in ('train', 'test'))
    matches = find_matches(train, test)
    if not matches:
        return []
    identical = sum(kind == 'identical' for kind, _, _ in matches.values())
    return [f'{len(matches)} of {len(test)} test inputs show a view that is among the training inputs '
            f'({identical} of them identical)']


def load_fingerprints(path: str, role: str | None = None) -> list[dict]:
    """Fingerprints of a dataset, from its manifest where it has one, else from its images.

    Args:
        path: A manifest, the folder of one, a folder below it, or any folder of images.
        role: 'train' or 'test': of a whole manifest that knows roles, only the images that have this one.

    Returns:
        list[dict]: ``path`` and fingerprint of each image.

    Raises:
        ValueError: The path holds neither, or an image cannot be read.
    """
    path = osp.abspath(osp.expanduser(path))
    manifest, below = path, ''
    if osp.isdir(path):
        manifest, below = _manifest_of(path)
        if not manifest:
            return _read_folder(path)
    keys = ('pixels', 'phash', 'thumbnail', 'role')
    images = [{**{key: entry[key] for key in keys}, 'path': osp.join(osp.dirname(manifest), entry['path'])}
              for entry in read_manifest(manifest, *keys) if entry['path'].startswith(below)]
    with_role = [entry for entry in images if entry['role'] == role]
    return with_role if role and not below and with_role else images


def _manifest_of(folder: str) -> tuple[str, str]:
    """(manifest, the folder's path below it with a slash) of this folder or of one of the two above; '' without."""
    for up in (folder, osp.dirname(folder), osp.dirname(osp.dirname(folder))):
        if osp.isfile(osp.join(up, MANIFEST)):
            below = osp.relpath(folder, up).replace(os.sep, '/')
            return osp.join(up, MANIFEST), '' if below == '.' else f'{below}/'
    return '', ''


def _read_folder(folder: str) -> list[dict]:
    files = sorted(osp.join(parent, name) for parent, _, names in os.walk(folder) for name in names
                   if name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith('.'))
    if not files:
        raise ValueError(f'{folder}: holds neither images nor a {MANIFEST}')

    def read(file: str) -> dict:
        try:
            with open(file, 'rb') as f:
                return {'path': file, **fingerprint(decode_image(f.read()))}
        except (OSError, ValueError) as error:
            raise ValueError(f'{file}: cannot be read: {error}') from None

    return list(map_threaded(read, files))
