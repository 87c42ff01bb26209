"""A video from file to file: every frame enhanced, steadily over time; sound, subtitles and timestamps as they were."""
import av
import contextlib
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from os import path as osp
from torch import Tensor
from typing import Any

from lowlight_cyclegan.enhance.enhancer import Enhancer
from lowlight_cyclegan.enhance.guided import SIZE
from lowlight_cyclegan.files import file_sha256
from .codecs import check_crf, default_codec
from .decode import decodable, decoded_frames, inspect, open_video, video_stream
from .frames import enhance_frame, enhance_frame_guided
from .mux import join, plan_copies
from .segments import SegmentWriter, Segments, pixel_format
from .smoother import TemporalSmoother, keeps_white
from .timeline import Timeline, read_timeline

SEGMENT = 120
AHEAD = 4  # frames between one thread and the next


def enhance_video(source: str, output: str, enhancer: Enhancer, strength: float = 1.0, codec: str | None = None,
                  crf: int | None = None, smoothing: float = 1.0, overwrite: bool = False, skip_damaged: bool = False,
                  segment: int = SEGMENT, say: Callable[[str], None] = lambda line: None,
                  progress: bool = False) -> int:
    """Enhance a video. Called again after an interruption, it continues.

    Args:
        source: File in any container that FFmpeg reads, or animated WebP.
        output: File; its suffix gives the container. Complete or absent, never the input.
        enhancer: Its mode is used; what 'auto' picks for the first frame holds for all.
        strength: From 0 to 1.
        codec: 'h264', 'hevc', 'vp9' or 'ffv1'. None is vp9 in WebM, else h264.
        crf: Constant rate factor. None is the codec's default.
        smoothing: Seconds, see :class:`~lowlight_cyclegan.video.smoother.TemporalSmoother`.
        overwrite: Replace the output, and segments of other settings.
        skip_damaged: Go on where the video is damaged or truncated, without what cannot be decoded.
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
    if not 0 <= strength <= enhancer.max_strength:
        raise ValueError(f'strength is from 0 to {enhancer.max_strength:g}, got {strength}')
    if not 0 <= smoothing < math.inf:
        raise ValueError(f'smoothing is a number of seconds from 0, got {smoothing}')
    codec = codec or default_codec(output)
    check_crf(codec, crf)
    with decodable(source) as video:
        info = inspect(video, skip_damaged)
        copies, lines = plan_copies(video, output, codec)
        for line in info.notes + lines:
            say(line)
        settings = {
            'input': file_sha256(source), 'weights': enhancer.fingerprint(), 'mode': enhancer.mode,
            'precision': enhancer.precision, 'device': enhancer.device.type, 'strength': strength, 'codec': codec,
            'crf': crf, 'smoothing': smoothing, 'segment': segment, 'self_ensemble': enhancer.self_ensemble,
            'denoise': enhancer.denoise,
        }
        segments = Segments(output, settings, overwrite, say)
        timeline = _timeline(video, segments, skip_damaged, info.packets, progress, say)
        if not segments.complete:
            with _progress_bar('enhance', len(timeline.times), progress) as advance:
                _enhance_segments(video, enhancer, segments, timeline, skip_damaged, advance)
        joined = osp.join(segments.folder, 'joined' + osp.splitext(output)[1])
        join(video, segments, joined, copies, timeline.base)
    os.replace(joined, output)
    segments.remove()
    return segments.frames


def _timeline(source: str, segments: Segments, skip_damaged: bool, packets: int, progress: bool,
              say: Callable[[str], None]) -> Timeline:
    """All frames are decoded before the first is enhanced: fades are known then, and so is all damage."""
    found = segments.read_json('timeline.json')
    if found is not None:
        return Timeline(**found)
    try:
        with open_video(source) as container, _progress_bar('read', packets, progress) as advance:
            timeline = read_timeline(decoded_frames(container, source, skip_damaged, say), advance)
    except ValueError:
        segments.remove()
        raise
    segments.write_json('timeline.json', asdict(timeline))
    return timeline


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


def _enhance_segments(source: str, enhancer: Enhancer, segments: Segments, timeline: Timeline, skip_damaged: bool,
                      advance: Callable[[int], None]) -> None:
    """Decode ahead in one thread, enhance in this one, encode in another: each of them leaves the others running."""
    settings, skip = segments.settings, segments.frames
    smoother = TemporalSmoother(settings['smoothing'], keeps_white(enhancer))
    if (state := segments.last_state()) is not None:
        smoother.load_state_dict(state)
    advance(skip)
    writer: SegmentWriter | None = None
    with open_video(source) as container, ThreadPoolExecutor(1) as encoder:
        stream = video_stream(container)
        # Decoded again rather than sought: every decoder is exact in that.
        frames = itertools.islice(decoded_frames(container, source, skip_damaged), skip, None)
        written: deque[Future] = deque()

        def finish(writer: SegmentWriter) -> None:
            while written:
                written.popleft().result()
            writer.finish()
            segments.add(writer.frames, writer.duration, smoother.state_dict())

        try:
            for i, (share, frame) in enumerate(zip(timeline.fades()[skip:], _ahead(frames)), 1):
                if writer is None:
                    writer = SegmentWriter(segments.unfinished, stream, frame, settings['codec'], settings['crf'])
                enhanced = _enhance_frame(frame, enhancer, smoother, settings, share)
                written.append(encoder.submit(writer.write, enhanced, frame, frame.pts - timeline.base))
                if len(written) > AHEAD:
                    written.popleft().result()
                advance(1)
                if i % settings['segment'] == 0:
                    finish(writer)
                    writer = None
            if writer is not None:
                finish(writer)
                writer = None
        finally:
            encoder.shutdown(cancel_futures=True)
            if writer is not None:
                writer.close()
    segments.complete = True
    segments.save()


def _enhance_frame(frame: av.VideoFrame, enhancer: Enhancer, smoother: TemporalSmoother, settings: dict[str, Any],
                   share: float) -> av.VideoFrame:
    mode, longer = settings['mode'], max(frame.width, frame.height)
    if mode == 'auto':
        mode = 'guided' if longer > SIZE else 'direct'
    # The denoising afterwards is for the full size.
    reduced = mode == 'guided' and longer > SIZE and not enhancer.denoise

    def enhance(x: Tensor) -> Tensor:
        return smoother.enhance(enhancer, x.to(enhancer.device), float(frame.pts * frame.time_base),
                                settings['strength'], 'direct' if reduced else mode, share).image

    run = enhance_frame_guided if reduced else enhance_frame
    return run(frame, pixel_format(frame, settings['codec']), enhance)


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, made in another thread while the last ones are used."""
    with ThreadPoolExecutor(1) as worker:
        made: deque[Future] = deque()
        try:
            while True:
                while len(made) < AHEAD:
                    made.append(worker.submit(next, items, None))
                if (item := made.popleft().result()) is None:
                    return
                yield item
        finally:
            worker.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _progress_bar(what: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Gives a function that moves the bar on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn('frames {task.description}'), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
