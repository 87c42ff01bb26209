"""What was measured before, by content."""
from __future__ import annotations

import cv2
import json
import numpy as np
import os
from os import path as osp
from typing import Any

from lowlight_cyclegan.files import atomic_write

__all__ = ['Cache']


class Cache:
    """Metrics and pictures by content: ``<key>.json`` beside ``<key>.png``, the key being a SHA-256.

    Args:
        folder: Where they lie; made when needed.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def picture(self, key: str) -> str:
        return osp.join(self.folder, f'{key}.png')

    def read(self, key: str) -> Any:
        """What was written under the key, or None where that is missing or broken."""
        try:
            with open(osp.join(self.folder, f'{key}.json'), encoding='utf-8') as f:
                return json.load(f)
        except (OSError, ValueError):
            return None

    def write(self, key: str, value: Any) -> None:
        self._write(f'{key}.json', json.dumps(value).encode())

    def get(self, key: str, names: set[str]) -> dict | None:
        """The record of an image, or None where it, one of these names in it, or its picture is missing or broken."""
        record = self.read(key)
        whole = isinstance(record, dict) and names <= record.keys()
        return record if whole and osp.isfile(self.picture(key)) else None

    def put(self, key: str, record: dict, img: np.ndarray) -> None:
        """The picture first: with the record, an entry is complete."""
        self._write(f'{key}.png', cv2.imencode('.png', img)[1].tobytes())
        self.write(key, record)

    def _write(self, name: str, content: bytes) -> None:
        os.makedirs(self.folder, exist_ok=True)
        atomic_write(osp.join(self.folder, name), content, durable=False)
