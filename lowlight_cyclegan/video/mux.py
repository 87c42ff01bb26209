"""Writing the output: the segments' video and the input's other streams in one file, without encoding again."""
from __future__ import annotations

import av
import heapq
import io
import numpy as np
import os
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from collections.abc import Iterator
from fractions import Fraction
from os import path as osp
from typing import Any

from .codecs import CODECS, container_format
from .decode import decoded_frames, open_video, tag_colours, video_stream
from .segments import Segments


class _Discard(io.RawIOBase):
    """File that forgets what is written to it, for a trial."""

    def __init__(self) -> None:
        self.position = self.size = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.position += len(data)
        self.size = max(self.size, self.position)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + (0, self.position, self.size)[whence]
        return self.position


def plan_copies(source: str, output: str, codec: str) -> tuple[list[int], list[str]]:
    """Which of the input's streams go into the output as they are; each is tried to its end.

    Returns:
        Their indices, and lines about what the output will lack.

    Raises:
        ValueError: If the container takes not the video or the sound, or does not keep timestamps.
    """
    suffix, name = osp.splitext(output)[1].lower(), container_format(output)
    with av.open(io.BytesIO(), 'w', format=name) as container:
        supported = container.supported_codecs
    if CODECS[codec].encoder not in supported:
        raise ValueError(f'{output}: {suffix} does not take {codec}; .mkv takes every codec')
    copies, lines = [], []
    with open_video(source) as container:
        video = video_stream(container)
        for stream in container.streams:
            known = stream.codec_context is not None and stream.codec_context.name in supported
            if stream.type == 'audio' and not known:
                raise ValueError(f'{output}: {suffix} does not take the sound as it is '
                                 f'({getattr(stream.codec_context, "name", "of no known codec")}); '
                                 '.mkv takes every codec')
            if stream.index == video.index:
                continue
            if stream.type not in ('audio', 'subtitle') or not known:
                lines.append(f'{output}: without stream {stream.index} ({stream.type}), which {suffix} does not take')
                continue
            taken, left_out = _try_copy(source, stream.index, name)
            if taken:
                copies.append(stream.index)
            if left_out:
                lines.append(f'{output}: without {left_out if taken else "all"} of the {taken + left_out} packets of '
                             f'stream {stream.index} ({stream.type}), which are damaged or not what {suffix} takes')
    return copies, lines


def _try_copy(source: str, index: int, format_name: str) -> tuple[int, int]:
    """Numbers of packets of a stream that a container takes, and of those that it does not."""
    taken = left_out = 0
    with open_video(source) as container:
        try:
            with av.open(_Discard(), 'w', format=format_name) as out:
                target = out.add_stream_from_template(container.streams[index])
                for packet in _copied_packets(container, {index: target}):
                    written = _write(out, packet)
                    taken, left_out = taken + written, left_out + (not written)
        except (av.FFmpegError, ValueError):  # its header, or the end of the file
            return 0, taken + left_out
    return taken, left_out


def _write(out: OutputContainer, packet: av.Packet) -> bool:
    try:
        out.mux(packet)
    except (av.InvalidDataError, av.ArgumentError):
        return False
    return True


def _copied_packets(container: InputContainer, targets: dict[int, Stream]) -> Iterator[av.Packet]:
    """Packets of these streams, up to the end or to where the file is damaged; their times rise as muxers demand."""
    last: dict[int, int] = {}
    packets = container.demux()
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None:
            return
        index = packet.stream.index
        if index not in targets or packet.dts is None or not packet.size:
            continue
        if packet.dts <= last.get(index, packet.dts - 1):
            packet.dts = last[index] + 1
            packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        last[index] = packet.dts
        packet.stream = targets[index]
        yield packet


def join(source: str, segments: Segments, path: str, copies: list[int], base: int) -> None:
    """Write the segments, from timestamp ``base`` on, and some of the input's streams into one file, packet by packet.

    Raises:
        ValueError: If a segment is not as it was written.
    """
    name = container_format(path)
    with open_video(source) as container, open_video(segments.path(0)) as first:
        video, options = video_stream(container), {}
        if name in ('mp4', 'mov') and video.time_base.numerator == 1:
            options['video_track_timescale'] = str(video.time_base.denominator)
        with open_video(source) as other:
            frame = next(decoded_frames(other, source, skip_damaged=True))
        matrix = frame.side_data.get('DISPLAYMATRIX')
        with av.open('file:' + path, 'w', format=name, container_options=options) as out:
            targets = {}
            for stream in container.streams:
                if stream.index == video.index:
                    target = joined = out.add_stream_from_template(first.streams.video[0])
                    tag_colours(joined.codec_context, frame)
                    joined.time_base = video.time_base
                    if matrix is not None:
                        joined.set_display_matrix(np.frombuffer(bytes(matrix), np.int32).tolist())
                elif stream.index in copies:
                    target = targets[stream.index] = out.add_stream_from_template(stream)
                else:
                    continue
                target.metadata.update(stream.metadata)
                target.disposition = stream.disposition
            out.metadata.update(container.metadata)
            out.set_chapters(container.chapters())
            copied = _copied_packets(container, targets) if targets else ()
            encoded = _video_packets(segments, joined, video.time_base, base)
            for packet in heapq.merge(encoded, copied, key=_decoding_time):
                if packet.stream.index == joined.index:
                    out.mux(packet)
                else:
                    _write(out, packet)
    with open(path, 'rb') as f:
        os.fsync(f.fileno())


def _decoding_time(packet: av.Packet) -> Fraction:
    return packet.dts * packet.time_base


def _video_packets(segments: Segments, target: av.VideoStream, time_base: Fraction,
                   base: int) -> Iterator[av.Packet]:
    last: av.Packet | None = None
    for i, entry in enumerate(segments.entries):
        with open_video(segments.path(i)) as container:
            # By size, not by dts, which this demuxer does not always know; packets without content are its last word.
            packets = [packet for packet in container.demux(video=0) if packet.size]
        if len(packets) != entry['frames']:
            raise ValueError(f'{segments.path(i)}: {len(packets)} frames where {entry["frames"]} were written: '
                             'remove it, the same command makes it again')
        for packet in packets:
            packet.pts = packet.dts = base + round(packet.pts * packet.time_base / time_base)  # NUT: a multiple
            packet.time_base = time_base
            if last is not None:
                last.duration = packet.pts - last.pts
                yield last
            packet.stream, last = target, packet
    if last is not None:
        last.duration = segments.entries[-1]['duration']
        yield last
