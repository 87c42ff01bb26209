"""``manifest.json`` of a dataset: what its images are, where they came from, how they look.

Keys: ``dataset``, ``notes``, ``warnings``, ``duplicates`` (path: the first path with the same pixels) and ``images``, a
list of ``path`` (relative to the manifest), ``source`` (its name in the download), ``role`` (train, test or none),
``sha256`` of the file, ``size`` (width and height) and its fingerprint (see ``fingerprint.py``).
"""
from __future__ import annotations

import json
import os
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS, decode_image, map_threaded
from lowlight_cyclegan.files import file_sha256
from .fingerprint import find_matches, fingerprint

__all__ = ['MANIFEST', 'check_complete', 'duplicates', 'load_fingerprints', 'read_manifest', 'shared_views']

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


def check_complete(folder: str) -> None:
    """See that a dataset's folder is as its manifest says.

    Raises:
        ValueError: It is not; the line says what to do.
    """
    try:
        images = read_manifest(osp.join(folder, MANIFEST), 'sha256')
    except ValueError:
        raise ValueError(f'{folder}: is there and has no readable {MANIFEST}: move it away or give another --output'
                         ) from None
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
