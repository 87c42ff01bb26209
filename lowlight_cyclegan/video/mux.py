"""Writing the output: the segments' video and the input's other streams in one file, without encoding again."""
import av
import heapq
import io
import numpy as np
import os
from collections.abc import Iterator
from fractions import Fraction
from os import path as osp

from .decode import decoded_frames, open_video, tag_colours, video_stream
from .codecs import CODECS, container_format
from .segments import Segments


def check_container(source: str, output: str, codec: str) -> list[str]:
    """Lines about streams that the output's container does not take.

    Raises:
        ValueError: If it takes not the video or the sound, or does not keep timestamps.
    """
    suffix, supported = osp.splitext(output)[1].lower(), _supported_codecs(container_format(output))
    if CODECS[codec].encoder not in supported:
        raise ValueError(f'{output}: {suffix} does not take {codec}; .mkv takes every codec')
    lines = []
    with open_video(source) as container:
        for stream in container.streams:
            if stream.type == 'audio' and not _is_copied(stream, supported):
                raise ValueError(f'{output}: {suffix} does not take the sound as it is '
                                 f'({stream.codec_context.name}); .mkv takes every codec')
            if stream.index != video_stream(container).index and not _is_copied(stream, supported):
                lines.append(f'{output}: without stream {stream.index} ({stream.type}), which {suffix} does not take')
    return lines


def _supported_codecs(container_format: str) -> set[str]:
    with av.open(io.BytesIO(), 'w', format=container_format) as container:
        return container.supported_codecs


def _is_copied(stream: av.stream.Stream, supported: set[str]) -> bool:
    return (stream.type in ('audio', 'subtitle') and stream.codec_context is not None
            and stream.codec_context.name in supported)


def join(source: str, segments: Segments, path: str) -> None:
    """Write the segments and the input's other streams into one file, packet by packet.

    Raises:
        ValueError: If a segment is not as it was written.
    """
    container_name = container_format(path)
    supported = _supported_codecs(container_name)
    with open_video(source) as container, open_video(segments.path(0)) as first:
        video = video_stream(container)
        options = {}
        if container_name in ('mp4', 'mov') and video.time_base.numerator == 1:
            options['video_track_timescale'] = str(video.time_base.denominator)
        frame = next(decoded_frames(container, source))
        matrix = frame.side_data.get('DISPLAYMATRIX')
        container.seek(0)
        with av.open(path, 'w', format=container_name, container_options=options) as out:
            copies = {}
            for stream in container.streams:
                if stream.index == video.index:
                    target = joined = out.add_stream_from_template(first.streams.video[0])
                    tag_colours(joined.codec_context, frame)
                    joined.time_base = video.time_base
                    if matrix is not None:
                        joined.set_display_matrix(np.frombuffer(bytes(matrix), np.int32).tolist())
                elif _is_copied(stream, supported):
                    target = copies[stream.index] = out.add_stream_from_template(stream)
                else:
                    continue
                target.metadata.update(stream.metadata)
                target.disposition = stream.disposition
            out.metadata.update(container.metadata)
            out.set_chapters(container.chapters())
            copied = _copied_packets(source, copies) if copies else ()
            for packet in heapq.merge(_video_packets(segments, joined, video.time_base), copied, key=_decoding_time):
                out.mux(packet)
    with open(path, 'rb') as f:
        os.fsync(f.fileno())


def _decoding_time(packet: av.Packet) -> Fraction:
    return packet.dts * packet.time_base


def _copied_packets(source: str, targets: dict[int, av.stream.Stream]) -> Iterator[av.Packet]:
    with open_video(source) as container:
        for packet in container.demux():
            if packet.stream.index in targets and packet.dts is not None:
                packet.stream = targets[packet.stream.index]
                yield packet


def _video_packets(segments: Segments, target: av.VideoStream, time_base: Fraction) -> Iterator[av.Packet]:
    base, last = segments.base, None
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
    last.duration = segments.entries[-1]['duration']
    yield last
