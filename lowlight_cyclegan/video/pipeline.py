"""A video from file to file: every frame enhanced, steadily over time; sound, subtitles and timestamps as they were."""
import av
import contextlib
import math
import os
import torch
from collections.abc import Callable, Iterator
from os import path as osp

from lowlight_cyclegan.enhance.enhancer import Enhancer
from lowlight_cyclegan.files import file_sha256
from .codecs import check_crf, default_codec
from .decode import decoded_frames, inspect, open_video, to_rgb, video_stream
from .mux import check_container, join
from .segments import SegmentWriter, Segments
from .smoother import TemporalSmoother

SEGMENT = 120


def enhance_video(source: str, output: str, enhancer: Enhancer, strength: float = 1.0, codec: str | None = None,
                  crf: int | None = None, smoothing: float = 1.0, overwrite: bool = False, segment: int = SEGMENT,
                  say: Callable[[str], None] | None = None, progress: bool = False) -> int:
    """Enhance a video. Called again after an interruption, it continues.

    Args:
        source: File in any container that FFmpeg reads.
        output: File; its suffix gives the container. Complete or absent, never the input.
        enhancer: Its mode is used; what 'auto' picks for the first frame holds for all.
        strength: From 0 to 1.
        codec: 'h264', 'hevc', 'vp9' or 'ffv1'. None is vp9 in WebM, else h264.
        crf: Constant rate factor. None is the codec's default.
        smoothing: Seconds, see :class:`~lowlight_cyclegan.video.smoother.TemporalSmoother`.
        overwrite: Replace the output, and segments of other settings.
        segment: Frames to a segment.
        say: Gets lines about what the output will lack.
        progress: Show a bar.

    Returns:
        Frames of the output.

    Raises:
        ValueError: One line: what is wrong with the input, the output, or the segments that are there.
    """
    av.logging.set_level(None)  # what matters is raised
    check_paths(source, output, overwrite)
    if not 0 <= strength <= 1:
        raise ValueError(f'strength is from 0 to 1, got {strength}')
    if not 0 <= smoothing < math.inf:
        raise ValueError(f'smoothing is a number of seconds from 0, got {smoothing}')
    codec = codec or default_codec(output)
    check_crf(codec, crf)
    info = inspect(source)
    for line in info.notes + check_container(source, output, codec):
        if say:
            say(line)
    settings = {
        'input': file_sha256(source), 'weights': enhancer.fingerprint(), 'mode': enhancer.mode,
        'precision': enhancer.precision, 'device': enhancer.device.type, 'strength': strength, 'codec': codec,
        'crf': crf, 'smoothing': smoothing, 'segment': segment, 'self_ensemble': enhancer.self_ensemble,
        'denoise': enhancer.denoise,
    }
    segments = Segments(output, settings, overwrite)
    if not segments.complete:
        with _progress_bar(info.packets, progress) as advance:
            _enhance_segments(source, enhancer, segments, advance)
    if not segments.frames:
        raise ValueError(f'{source}: no frame of its video can be decoded')
    joined = osp.join(segments.folder, 'joined' + osp.splitext(output)[1])
    join(source, segments, joined)
    os.replace(joined, output)
    segments.remove()
    return segments.frames


def check_paths(source: str, output: str, overwrite: bool) -> None:
    """Say at once what would fail after hours.

    Raises:
        ValueError: If the input is no file, or the output may not or cannot be written.
    """
    if not osp.isfile(source):
        raise ValueError(f'{source}: {"is a folder, give a video" if osp.isdir(source) else "no such file"}')
    if osp.exists(output) and osp.samefile(source, output):
        raise ValueError(f'{output}: is the input; the output must be another file')
    if osp.isdir(output) or not osp.isdir(osp.dirname(output) or '.'):
        raise ValueError(f'{output}: must be a file in a folder that exists')
    if osp.exists(output) and not overwrite:
        raise ValueError(f'{output}: exists already; --overwrite replaces it')
    if not osp.getsize(source):
        raise ValueError(f'{source}: is empty')


def _enhance_segments(source: str, enhancer: Enhancer, segments: Segments, advance: Callable[[int], None]) -> None:
    settings = segments.settings
    smoother = TemporalSmoother(settings['smoothing'])
    if segments.entries:
        smoother.load_state_dict(segments.entries[-1]['smoother'])
    skip = segments.frames
    advance(skip)
    writer, size = None, None
    with open_video(source) as container:
        stream = video_stream(container)
        try:
            for i, frame in enumerate(decoded_frames(container, source)):
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise ValueError(f'{source}: its frames change from {size[0]}x{size[1]} to {frame.width}x'
                                     f'{frame.height} at {frame.time:.1f} s, which one stream cannot hold')
                if i < skip:  # decoded again rather than sought: every decoder is exact in that
                    continue
                if segments.base is None:
                    segments.base = frame.pts
                if writer is None:
                    writer = SegmentWriter(segments.unfinished, stream, frame, settings['codec'], settings['crf'])
                x = torch.from_numpy(to_rgb(frame)).to(enhancer.device).permute(2, 0, 1)[None].float() / 255
                result = smoother.enhance(enhancer, x, float(frame.pts * frame.time_base), settings['strength'],
                                          segments.mode)
                segments.mode = segments.mode or result.mode
                pixels = (result.image[0] * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
                writer.write(pixels, frame, frame.pts - segments.base)
                advance(1)
                if writer.frames == settings['segment']:
                    writer.finish()
                    segments.add(writer.frames, writer.duration, smoother.state_dict())
                    writer = None
            if writer is not None:
                writer.finish()
                segments.add(writer.frames, writer.duration, smoother.state_dict())
        finally:
            if writer is not None:
                writer.close()
    segments.complete = True
    segments.save()


@contextlib.contextmanager
def _progress_bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Gives a function that moves the bar on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn('frames'), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task('frames', total=total)
        yield lambda count: progress.advance(task, count)
