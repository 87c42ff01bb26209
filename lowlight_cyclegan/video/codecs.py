"""Codecs and containers of the output. Imports nothing heavy: the command line reads it."""
from __future__ import annotations

from os import path as osp
from typing import NamedTuple


class Codec(NamedTuple):
    """FFmpeg's encoder with its options; default and highest constant rate factor, None where it has none."""
    encoder: str
    options: dict[str, str]
    crf: int | None
    highest_crf: int | None


# Fast decoding order everywhere, without B-frames: packets leave in the order of the frames.
CODECS = {
    'h264': Codec('libx264', {'preset': 'medium', 'bf': '0'}, 18, 51),
    'hevc': Codec('libx265', {'preset': 'medium', 'x265-params': 'bframes=0:log-level=none'}, 20, 51),
    'vp9': Codec('libvpx-vp9', {'deadline': 'good', 'cpu-used': '4', 'row-mt': '1', 'lag-in-frames': '0'}, 24, 63),
    'ffv1': Codec('ffv1', {'level': '3'}, None, None),
}
# Those that keep timestamps, by the output's suffix.
CONTAINERS = {'.mkv': 'matroska', '.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.webm': 'webm'}


def container_format(output: str) -> str:
    """FFmpeg's name of the container that a file name asks for.

    Raises:
        ValueError: If it does not keep timestamps, or is not known.
    """
    suffix = osp.splitext(output)[1].lower()
    if suffix not in CONTAINERS:
        raise ValueError(f'{output}: the suffix must be one of {", ".join(CONTAINERS)}')
    return CONTAINERS[suffix]


def default_codec(output: str) -> str:
    """'vp9' in WebM, else 'h264'."""
    return 'vp9' if output.lower().endswith('.webm') else 'h264'


def check_crf(codec: str, crf: int | None) -> None:
    """Check a constant rate factor; None is the codec's default.

    Raises:
        ValueError: If the codec has none, or not this one.
    """
    highest = CODECS[codec].highest_crf
    if crf is None:
        return
    if highest is None:
        raise ValueError(f'crf: {codec} is lossless, it has none')
    if not 0 <= crf <= highest:
        raise ValueError(f'crf of {codec} is from 0 to {highest}, got {crf}')
