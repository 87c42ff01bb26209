"""Photos of the page on disk: each is a folder with the upload, the network's picture and the previews.

The folder's name is a random token. Previews and the download blend from what lies there, so the network runs once for
a photo, and a photo goes when it was not used for some time or when space is short. What lies there is sRGB, which the
network knows; the download has the colours of the upload.
"""
from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lowlight_cyclegan.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

    from lowlight_cyclegan.enhance.enhancer import Enhancer

__all__ = ['GONE', 'Photos']

GONE = 'This photo is no longer kept here: drop it again.'
PREVIEW = 1600  # pixels of a preview's longer side: sharp on a phone, small on the wire
ROWS = 256  # rows of a picture that are blended at a time: linear light takes floating point
LARGEST_STORE = 8 * 2**30  # bytes of all photos together


@contextlib.contextmanager
def _returning_memory() -> Iterator[None]:
    """Give freed memory back to the system afterwards: glibc keeps some for every thread, which adds up."""
    try:
        yield
    finally:
        with contextlib.suppress(AttributeError, OSError):  # other C libraries
            ctypes.CDLL(None).malloc_trim(0)


class Photos:
    """Photos on disk, a folder for each.

    Args:
        root: Folder for them.
        max_pixels: Largest number of pixels of a photo.
    """

    def __init__(self, root: str | Path, max_pixels: int) -> None:
        self.root, self.max_pixels = Path(root), max_pixels
        self.max_bytes = min(LARGEST_STORE, shutil.disk_usage(root).free // 2)  # half of what is free stays free

    @_returning_memory()
    def add(self, upload: str | Path, enhancer: Enhancer) -> tuple[str, tuple[int, int], str]:
        """Read a photo, run the network on it and keep both.

        Returns:
            The token of its folder; the photo's width and height, and what is to be said of how it was read.

        Raises:
            ImageError: If the file holds no photo that can be read, or too large a one.
            FileNotFoundError: If the upload is not there any more.
        """
        import numpy as np

        from lowlight_cyclegan.photos.color import for_network
        from lowlight_cyclegan.photos.formats import ImageError
        from lowlight_cyclegan.photos.read import decode_image
        upload = Path(upload)
        data = upload.read_bytes()
        if not data:
            raise ImageError(upload.name, 'is empty')
        photo = decode_image(data, upload.name, self.max_pixels)
        low = for_network(photo)
        enhanced = enhancer.enhance(low)
        token = secrets.token_hex(16)
        folder = self.root / token
        try:
            (folder / 'original').mkdir(parents=True)
            shutil.copyfile(upload, folder / 'original' / upload.name)
            np.save(folder / 'enhanced.npy', enhanced)
            np.savez(folder / 'preview.npz', low=_reduce(low), enhanced=_reduce(enhanced))
        except BaseException:  # the disk is full, say: no part of it stays
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.shrink()
        return token, photo.size, photo.note

    def folder(self, token: str | None) -> Path:
        """Folder of a token, which counts as a use.

        Raises:
            FileNotFoundError: If the photo is not kept any more.
        """
        if not token or not re.fullmatch('[0-9a-f]{32}', token):
            raise FileNotFoundError(token)
        os.utime(self.root / token)
        return self.root / token

    def original(self, token: str | None) -> Path:
        """The upload of a token, under its own name.

        Raises:
            FileNotFoundError: If the photo is not kept any more.
        """
        original = next((self.folder(token) / 'original').iterdir(), None)
        if original is None:  # it is being removed
            raise FileNotFoundError(token)
        return original

    def remove(self, token: str | None) -> None:
        """Forget a photo, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder(token), ignore_errors=True)

    def sweep(self, age: float) -> None:
        """Remove all that was not used for this many seconds, uploads too."""
        for used, entry in self._entries():
            if time.time() - used > age:
                _delete(entry)

    def shrink(self) -> None:
        """Remove what was not used for longest, until the rest is within the space."""
        entries = [(entry, _size(entry)) for _, entry in self._entries()]
        excess = sum(size for _, size in entries) - self.max_bytes
        for entry, size in entries[:-1]:  # the newest is somebody's who waits for it
            if excess <= 0:
                break
            _delete(entry)
            excess -= size

    def _entries(self) -> list[tuple[float, Path]]:
        """(time of last use, path) of all there is, the oldest first. Others come and go meanwhile."""
        entries = []
        for entry in self.root.iterdir():
            with contextlib.suppress(FileNotFoundError):
                entries.append((entry.stat().st_mtime, entry))
        return sorted(entries)

    def preview(self, token: str | None, strength: int) -> tuple[str, str]:
        """Paths of the reduced pictures before and after, at a strength from 0 to 100 percent.

        Raises:
            FileNotFoundError: If the photo is not kept any more.
        """
        import numpy as np
        from PIL import Image
        folder = self.folder(token)
        before, after = folder / 'before.webp', folder / f'after-{strength}.webp'
        with np.load(folder / 'preview.npz') as pictures:
            low, enhanced = pictures['low'], pictures['enhanced']
        for path, share in ((before, 0), (after, strength / 100)):
            if not path.exists():
                file = io.BytesIO()
                Image.fromarray(_blend(low, enhanced, share)).save(file, 'WEBP', quality=88, method=2)
                atomic_write(path, file.getvalue(), durable=False)
        return str(before), str(after)

    @_returning_memory()
    def encode(self, token: str | None, strength: int) -> tuple[str, bytes]:
        """Name and content of the file to download: full size, depth and metadata of the upload.

        Raises:
            FileNotFoundError: If the photo is not kept any more.
            ImageError: If it cannot be written.
        """
        import numpy as np

        from lowlight_cyclegan.photos.color import for_network, from_network
        from lowlight_cyclegan.photos.formats import default_suffix
        from lowlight_cyclegan.photos.read import decode_image
        from lowlight_cyclegan.photos.write import encode_image
        original = self.original(token)
        photo = decode_image(original.read_bytes(), original.name, self.max_pixels)
        if strength:
            enhanced = np.load(original.parent.parent / 'enhanced.npy', mmap_mode='r')
            blended = _blend(for_network(photo), enhanced, strength / 100)
            photo = photo.with_pixels(from_network(photo, blended))
        name = f'{original.stem}_enhanced{default_suffix(original, photo)}'
        return name, encode_image(photo, name)


def _size(entry: Path) -> int:
    size = 0
    for path in [entry, *entry.rglob('*')]:
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _delete(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _reduce(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 (h, w[, c]) -> uint8 with no side above ``PREVIEW``."""
    import cv2
    import numpy as np
    factor = PREVIEW / max(pixels.shape[:2])
    if factor < 1:
        size = [max(1, round(side * factor)) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)


def _blend(low: np.ndarray, enhanced: np.ndarray, strength: float) -> np.ndarray:
    """Blend two pictures of one shape and dtype by a share from 0 to 1, a few rows at a time; alpha stays."""
    import numpy as np
    import torch

    from lowlight_cyclegan.enhance.blend import blend
    if strength in (0, 1):
        return np.array(enhanced if strength else low)
    result, white = np.array(low), np.iinfo(low.dtype).max
    colours = slice(-1) if low.ndim == 3 and low.shape[2] in (2, 4) else slice(None)
    for top in range(0, len(low), ROWS):
        rows = [torch.from_numpy(picture[top:top + ROWS].astype(np.float32) / white) for picture in (low, enhanced)]
        blended = (blend(rows[0], rows[1], strength).numpy() * white).round()
        result[top:top + ROWS, ..., colours] = blended[..., colours]
    return result
