"""Reading videos: what a file holds, its frames in order, and their colours."""
import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.reformatter import Interpolation
from collections.abc import Iterator
from dataclasses import dataclass

from lowlight_cyclegan.messages import first_line

HDR = {16: 'PQ', 18: 'HLG'}  # transfer characteristics, ITU-T H.273


@dataclass
class VideoInfo:
    """Packets of the video stream, size in pixels, and lines about what the output will lack."""
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


def video_stream(container: InputContainer) -> Stream | None:
    """The first video stream that is no cover picture."""
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def inspect(path: str) -> VideoInfo:
    """Read a video from end to end without decoding it, and decode its first frame.

    Raises:
        ValueError: If it is no video, damaged, truncated, HDR or a single picture.
    """
    with open_video(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise ValueError(f'{path}: has no video stream')
        if container.format.name.endswith('_pipe') or container.format.name == 'image2':
            raise ValueError(f'{path}: is a picture, not a video: lowlight-cyclegan enhance takes it')
        packets, end = 0, 0.0
        try:
            for packet in container.demux():
                if packet.size and packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                packets += packet.size > 0 and packet.stream.index == stream.index
        except av.FFmpegError as error:
            raise ValueError(f'{path}: is damaged or truncated after {end:.1f} s ({_reason(error)})') from error
        start = (container.start_time or 0) / 1e6
        length = (container.duration or 0) / 1e6
        if end and end - start < length - max(1.0, 0.02 * length):
            raise ValueError(f'{path}: is truncated: {end - start:.1f} s of {length:.1f} s are there')
    with open_video(path) as container:
        frame = next(decoded_frames(container, path), None)
    if frame is None:
        raise ValueError(f'{path}: no frame of its video can be decoded')
    transfer = next((HDR[int(t)] for t in (frame.color_trc, stream.codec_context.color_trc) if int(t) in HDR), None)
    if transfer is not None:
        raise ValueError(f'{path}: is HDR ({transfer}), which the network does not know: tone-map it to SDR first')
    bits = max(component.bits for component in frame.format.components)
    notes = [f'{path}: {bits} bits to a sample; the output has 8'] if bits > 8 else []
    return VideoInfo(packets, frame.width, frame.height, notes)


def decoded_frames(container: InputContainer, path: str) -> Iterator[av.VideoFrame]:
    """Frames of the video stream, with timestamps that rise.

    Raises:
        ValueError: Where a frame is damaged.
    """
    stream = video_stream(container)
    stream.thread_type = 'AUTO'
    step = frame_step(stream)
    last, time = None, 0.0
    try:
        for frame in container.decode(stream):
            if frame.pts is None or (last is not None and frame.pts <= last):
                frame.pts = 0 if last is None else last + step
            last, time = frame.pts, frame.pts * stream.time_base
            yield frame
    except av.FFmpegError as error:
        raise ValueError(f'{path}: is damaged at {float(time):.1f} s ({_reason(error)})') from error


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


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Pixels of a frame: (h, w, 3) uint8."""
    rgb = frame.reformat(
        format='rgb24', src_colorspace=colour_matrix(frame), src_color_range=colour_range(frame),
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)
    return rgb.to_ndarray()


def tag_colours(context: av.VideoCodecContext, frame: av.VideoFrame) -> None:
    """Describe an encoder's colours as a decoded frame's."""
    context.color_range, context.color_primaries = frame.color_range, frame.color_primaries
    # Matrix 0 is RGB, which the encoders do not get.
    context.color_trc, context.colorspace = frame.color_trc, frame.colorspace or colour_matrix(frame)
