"""Which test images a training set holds already."""
import json
import os
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS, decode_image, map_threaded
from lowlight_cyclegan.messages import fail
from .layouts import MANIFEST, write_atomically
from .fingerprint import find_matches, fingerprint

__all__ = ['load_fingerprints', 'report_overlap']


def load_fingerprints(path, role=None):
    """Fingerprints of a dataset, from its manifest where it has one, else from its images.

    Args:
        path (str): A manifest, the folder of one, a folder below it, or any folder of images.
        role (str): 'train' or 'test': of a whole manifest that knows roles, only the images that have this one.

    Returns:
        list[dict]: ``path`` and fingerprint of each image.

    Raises:
        SystemExit: The path holds neither, or an image cannot be read.
    """
    path = osp.abspath(osp.expanduser(path))
    manifest, below = path, ''
    if osp.isdir(path):
        manifest, below = _manifest_of(path)
        if manifest is None:
            return _read_folder(path)
    try:
        with open(manifest, encoding='utf-8') as f:
            images = json.load(f)['images']
        images = [{'path': osp.join(osp.dirname(manifest), entry['path']),
                   **{key: entry[key] for key in ('pixels', 'phash', 'thumbnail')},
                   'role': entry['role']} for entry in images if entry['path'].startswith(below)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f'{manifest}: is no manifest of lowlight-cyclegan data ({type(error).__name__})')
    with_role = [entry for entry in images if entry['role'] == role]
    return with_role if role and not below and with_role else images


def _manifest_of(folder):
    """(manifest, the folder's path below it with a slash) of this folder or of one of the two above; None without."""
    for up in (folder, osp.dirname(folder), osp.dirname(osp.dirname(folder))):
        if osp.isfile(osp.join(up, MANIFEST)):
            below = osp.relpath(folder, up).replace(os.sep, '/')
            return osp.join(up, MANIFEST), '' if below == '.' else f'{below}/'
    return None, ''


def _read_folder(folder):
    files = sorted(osp.join(parent, name) for parent, _, names in os.walk(folder) for name in names
                   if name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith('.'))
    if not files:
        fail(f'{folder}: holds neither images nor a {MANIFEST}')

    def read(file):
        try:
            with open(file, 'rb') as f:
                return {'path': file, **fingerprint(decode_image(f.read()))}
        except (OSError, ValueError) as error:
            fail(f'{file}: cannot be read: {error}')

    return list(map_threaded(read, files))


def report_overlap(train, test, output=None):
    """Print the images of ``test`` that ``train`` holds too, and write them to a JSON file.

    Args:
        train (str): See :func:`load_fingerprints`.
        test (str): The same.
        output (str | None): JSON file. Default: None.

    Returns:
        list[dict]: ``test``, ``train``, ``kind`` and ``correlation`` of each.
    """
    train_images, test_images = load_fingerprints(train, 'train'), load_fingerprints(test, 'test')
    rows = [{'test': test_images[i]['path'], 'train': train_images[j]['path'], 'kind': kind,
             'correlation': round(score, 4)}
            for i, (kind, j, score) in sorted(find_matches(train_images, test_images).items())]
    for row in rows:
        print(f"{row['kind']:<10} {row['correlation']:.3f}  {row['test']}  {row['train']}")
    identical = sum(row['kind'] == 'identical' for row in rows)
    print(f'{len(test_images)} test images against {len(train_images)} training images: {identical} identical, '
          f'{len(rows) - identical} more of the same view, {len(test_images) - len(rows)} clean')
    if output:
        write_atomically(output, json.dumps(rows, indent=1).encode())
    return rows
