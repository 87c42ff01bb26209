"""Reading videos: what a file holds, its frames in order, and their colours."""
import av
import contextlib
import tempfile
from av.container import InputContainer
from av.stream import Disposition, Stream
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from os import path as osp

from lowlight_cyclegan.messages import first_line

HDR = {16: 'PQ', 18: 'HLG'}  # transfer characteristics, ITU-T H.273
GO_ON = '--skip-damaged goes on without what cannot be decoded'


@dataclass
class VideoInfo:
    """Packets of the video stream, size in pixels, lines about what the output will lack."""
    packets: int
    width: int
    height: int
    notes: list[str]


def open_video(path: str) -> InputContainer:
    """Open a local file.

    Raises:
        ValueError: If FFmpeg cannot read it.
    """
    try:
        # A playlist could name files that nobody meant to open, or addresses.
        return av.open('file:' + path, options={'protocol_whitelist': 'file'})
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f'{path}: is no video that FFmpeg can read, or damaged ({_reason(error)})') from error


def _reason(error: Exception) -> str:
    return first_line(getattr(error, 'strerror', None) or error)


@contextlib.contextmanager
def decodable(path: str) -> Iterator[str]:
    """Path of the video, or of a lossless copy of animated WebP, which FFmpeg does not decode.

    Raises:
        ValueError: If it is animated WebP, and damaged.
    """
    with open(path, 'rb') as f:
        header = f.read(64)
    if header[:4] != b'RIFF' or header[8:16] != b'WEBPVP8X' or not header[20] & 2:  # flag of the animation
        yield path
        return
    from PIL import Image
    with tempfile.TemporaryDirectory() as folder:
        copy = osp.join(folder, osp.basename(path) + '.nut')
        try:
            with Image.open(path) as picture, av.open('file:' + copy, 'w') as out:
                stream = out.add_stream('ffv1', rate=1000)
                (stream.width, stream.height), stream.pix_fmt = picture.size, 'bgr0'
                time = 0
                for i in range(picture.n_frames):
                    picture.seek(i)
                    opaque = Image.new('RGBA', picture.size, (0, 0, 0, 255))
                    opaque.alpha_composite(picture.convert('RGBA'))
                    frame = av.VideoFrame.from_image(opaque.convert('RGB'))
                    frame.pts, frame.time_base = time, Fraction(1, 1000)
                    frame.duration = max(1, picture.info.get('duration') or 100)
                    time += frame.duration
                    out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
        except Exception as error:  # Pillow answers broken files with every kind there is
            raise ValueError(f'{path}: is damaged ({_reason(error)})') from error
        yield copy


def video_stream(container: InputContainer) -> Stream:
    """The first video stream that is no cover picture.

    Raises:
        ValueError: If there is none.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise ValueError(f'{container.name.removeprefix("file:")}: its video is of a codec that FFmpeg does '
                                 'not know')
            return stream
    raise ValueError(f'{container.name.removeprefix("file:")}: has no video stream')


def inspect(path: str, skip_damaged: bool = False) -> VideoInfo:
    """Read a video from end to end without decoding it, and decode its first frame.

    With ``skip_damaged``, damage and truncation are noted, not raised.

    Raises:
        ValueError: If it is no video, damaged, truncated, HDR or a single picture.
    """
    with open_video(path) as container:
        stream = video_stream(container)
        if container.format.name.endswith('_pipe') or container.format.name == 'image2':
            raise ValueError(f'{path}: is a picture, not a video: lowlight-cyclegan enhance takes it')
        packets, end, notes = 0, 0.0, []
        try:
            for packet in container.demux():
                if packet.size and packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                packets += packet.size > 0 and packet.stream.index == stream.index
        except av.FFmpegError as error:
            notes.append(f'{path}: is damaged or truncated after {end:.1f} s ({_reason(error)})')
        start = (container.start_time or 0) / 1e6
        length = (container.duration or 0) / 1e6
        if not notes and end and end - start < length - max(1.0, 0.02 * length):
            notes.append(f'{path}: is truncated: {end - start:.1f} s of {length:.1f} s are there')
        if notes and not skip_damaged:
            raise ValueError(f'{notes[0]}; {GO_ON}')
    with open_video(path) as container:
        stream = video_stream(container)
        frame = next(_decode(container, stream, path, skip_damaged), None)
    if frame is None:
        raise ValueError(f'{path}: no frame of its video can be decoded')
    transfer = next((HDR[int(t)] for t in (frame.color_trc, stream.codec_context.color_trc) if int(t) in HDR), None)
    if transfer is not None:
        raise ValueError(f'{path}: is HDR ({transfer}), which the network does not know: tone-map it to SDR first')
    bits = max(component.bits for component in frame.format.components)
    if bits > 8:
        notes.append(f'{path}: {bits} bits to a sample; the output has 8')
    if frame.interlaced_frame:
        notes.append(f'{path}: is interlaced; the output is deinterlaced, with as many frames')
    return VideoInfo(packets, frame.width, frame.height, notes)


@dataclass
class _Tally:
    """What the decoder got and gave: packets, frames, the last timestamp of each, and the times of damaged packets."""
    packets: int = 0
    frames: int = 0
    last_packet: int | None = None
    last_frame: int | None = None
    damaged: list[float] = field(default_factory=list)


def decoded_frames(container: InputContainer, path: str, skip_damaged: bool = False,
                   say: Callable[[str], None] | None = None) -> Iterator[av.VideoFrame]:
    """Frames of the video stream, deinterlaced, with timestamps that rise.

    With ``skip_damaged``, packets that cannot be decoded are left out, as is what follows an end in the middle.

    Args:
        container: The video.
        path: Its file.
        skip_damaged: See above.
        say: Gets a line about what is missing at the end. With it, the end of the video is looked at closer.

    Raises:
        ValueError: Where a packet is damaged, or a frame has another size than the first.
    """
    stream, tally = video_stream(container), _Tally()
    # A decoder that works on several frames at once swallows the errors of those it holds when the video ends, and
    # drops the sound ones behind them.
    stream.thread_type = 'SLICE' if skip_damaged else 'AUTO'
    step = frame_step(stream)
    last, size = None, None
    for frame in _deinterlaced(_decode(container, stream, path, skip_damaged, tally)):
        if frame.pts is None or (last is not None and frame.pts <= last):
            frame.pts = 0 if last is None else last + step
        last, size = frame.pts, size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            raise ValueError(f'{path}: its frames change from {size[0]}x{size[1]} to {frame.width}x{frame.height} at '
                             f'{frame.time:.1f} s, which one stream cannot hold')
        yield frame
    if say is not None:
        _check_end(tally, path, skip_damaged, say)


def _check_end(tally: _Tally, path: str, skip_damaged: bool, say: Callable[[str], None]) -> None:
    """Say, or raise, what a decoder has kept to itself."""
    if tally.damaged:
        say(f'{path}: without {len(tally.damaged)} of the {tally.packets} packets of its video, which cannot be '
            f'decoded, the first of them after {tally.damaged[0]:.1f} s')
        return
    if tally.frames >= tally.packets:
        return
    if not skip_damaged:  # again, one frame after the other: each error comes with its packet
        with open_video(path) as container:
            stream = video_stream(container)
            stream.thread_type = 'SLICE'
            for _ in _decode(container, stream, path, skip_damaged=False):
                pass
    if tally.last_packet is not None and tally.last_packet > (tally.last_frame or 0):
        say(f'{path}: its last packets give no frame; perhaps they are damaged')


def _decode(container: InputContainer, stream: Stream, path: str, skip_damaged: bool,
            tally: _Tally | None = None) -> Iterator[av.VideoFrame]:
    tally = tally or _Tally()
    packets, time = container.demux(stream), 0.0
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            packet = None
            if not skip_damaged:
                raise ValueError(f'{path}: is damaged at {time:.1f} s ({_reason(error)}); {GO_ON}') from error
        if packet is not None and packet.size and not packet.is_discard:
            tally.packets += 1
            tally.last_packet = _later(tally.last_packet, packet.pts)
        try:
            for frame in stream.codec_context.decode(packet):
                frame.time_base, time = stream.time_base, frame.time or time
                tally.frames, tally.last_frame = tally.frames + 1, _later(tally.last_frame, frame.pts)
                yield frame
        except av.FFmpegError as error:
            if not isinstance(error, av.EOFError):
                if not skip_damaged:
                    raise ValueError(f'{path}: is damaged at {time:.1f} s ({_reason(error)}); {GO_ON}') from error
                tally.damaged.append(time)
        if packet is None:
            return


def _later(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def _deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """As many frames, at the same times; from the first interlaced one on, they go through FFmpeg's bwdif."""
    graph = None
    for frame in frames:
        if graph is None:
            if not frame.interlaced_frame:
                yield frame
                continue
            time_base = frame.time_base
            graph = av.filter.Graph()
            source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
            graph.link_nodes(source, graph.add('bwdif', 'mode=send_frame:deint=interlaced'), graph.add('buffersink'))
            graph.configure()
        graph.push(frame)
        yield from _pull(graph, time_base)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph, time_base)


def _pull(graph: av.filter.Graph, time_base: Fraction) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        frame.pts, frame.duration = (
            ticks and round(ticks * frame.time_base / time_base) for ticks in (frame.pts, frame.duration))
        frame.time_base = time_base
        yield frame


def frame_step(stream: Stream) -> int:
    """Ticks from one frame to the next, where nothing else says it."""
    return max(1, round(1 / (stream.time_base * (stream.average_rate or 25))))


def colour_matrix(frame: av.VideoFrame) -> int:
    """Matrix between RGB and YUV, as swscale numbers it: the frame's, or what players take where it says none."""
    known = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
    return known.get(int(frame.colorspace), 1 if frame.height >= 720 else 5)


def colour_range(frame: av.VideoFrame) -> int:
    """2 for full range, 1 for the limited range of video."""
    return 2 if int(frame.color_range) == 2 else 1


def tag_colours(context: av.VideoCodecContext, frame: av.VideoFrame) -> None:
    """Describe an encoder's colours as a decoded frame's."""
    context.color_range, context.color_primaries = frame.color_range, frame.color_primaries
    # Matrix 0 is RGB, which the encoders do not get.
    context.color_trc, context.colorspace = frame.color_trc, frame.colorspace or colour_matrix(frame)
