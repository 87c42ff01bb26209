"""Video: every frame enhanced, steadily over time; sound, subtitles and timestamps as they were.

A video is worked off in segments of a fixed number of frames. Each is encoded by itself into ``OUTPUT.parts`` and noted
in a manifest with the state of the smoothing at its end, so that an interrupted run continues there and ends with the
same pictures. The segments hold no frame that refers to a later one (no B-frames): one after the other, they are a
stream. They are joined with the input's other streams without encoding anything again.
"""
import contextlib
import heapq
import io
import json
import math
import numpy as np
import os
import shutil
import sys
import torch
from fractions import Fraction
from os import path as osp
from torch.nn import functional as F

from lowlight_cyclegan.archs import AutoExposure
from lowlight_cyclegan.messages import fail, first_line
from lowlight_cyclegan.files import file_sha256
from lowlight_cyclegan.enhance.enhancer import LUMA, MODES, PRECISIONS
from lowlight_cyclegan.photos.report import INTERRUPTED

__all__ = ['TemporalSmoother', 'VideoError', 'add_arguments', 'enhance_video', 'inspect', 'run']

# Encoder, its options, default CRF. Fast decoding order everywhere: packets leave in the order of the frames.
CODECS = {
    'h264': ('libx264', {'preset': 'medium', 'bf': '0'}, 18),
    'hevc': ('libx265', {'preset': 'medium', 'x265-params': 'bframes=0:log-level=none'}, 20),
    'vp9': ('libvpx-vp9', {'deadline': 'good', 'cpu-used': '4', 'row-mt': '1', 'lag-in-frames': '0'}, 24),
    'ffv1': ('ffv1', {'level': '3'}, None),
}
CONTAINERS = {'.mkv': 'matroska', '.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.webm': 'webm'}  # keep timestamps
HDR = {16: 'PQ', 18: 'HLG'}  # transfer characteristics, ITU-T H.273
SEGMENT = 120
MANIFEST = 'manifest.json'
NEEDS = 'video needs PyAV 18 or newer, and with it Python 3.11: pip install "lowlight_cyclegan[video]"'


class VideoError(ValueError):
    """What is wrong with a video, in one line."""


def add_arguments(parser):
    parser.add_argument('input', metavar='INPUT', help='video in any container that FFmpeg reads')
    parser.add_argument('-o', '--output', metavar='OUTPUT', help='its suffix gives the container (.mkv takes every '
                        'sound and subtitle format). Default: INPUT with _enhanced before the suffix')
    parser.add_argument('--model', default='lite', metavar='NAME|FILE', help='weights. Default: %(default)s')
    parser.add_argument('--options', metavar='FILE.yml', help='option file of weights that do not say what they hold')
    parser.add_argument('--strength', type=float, default=1.0, metavar='0..1', help='default: 1')
    parser.add_argument('--mode', choices=MODES, default='auto', help='for large frames. Default: %(default)s')
    parser.add_argument('--smoothing', type=float, default=1.0, metavar='SECONDS',
                        help='over which brightness adapts within a scene; 0: every frame for itself. Default: 1')
    parser.add_argument('--codec', choices=list(CODECS), help='default: vp9 in .webm, else h264; ffv1 is lossless')
    parser.add_argument('--crf', '--quality', type=int, metavar='N',
                        help='constant rate factor, lower is better. Default: '
                        + ', '.join(f'{crf} for {name}' for name, (_, _, crf) in CODECS.items() if crf))
    parser.add_argument('--device', help='default: cuda where there is one, else cpu')
    parser.add_argument('--precision', choices=PRECISIONS, default='auto', help='default: %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace OUTPUT, and start anew where a run with '
                        'other settings was interrupted')


def run(args):
    try:
        import av
    except ImportError:
        fail(NEEDS)
    if int(av.__version__.split('.')[0]) < 18:
        fail(f'{NEEDS} (found {av.__version__})')
    from lowlight_cyclegan.enhance.enhancer import Enhancer
    output = args.output or '{}_enhanced{}'.format(*osp.splitext(args.input))
    try:
        inspect_paths(args.input, output, args.overwrite)
        enhancer = Enhancer.from_pretrained(
            args.model, args.options, device=args.device, precision=args.precision, mode=args.mode)
        frames = enhance_video(args.input, output, enhancer, args.strength, args.codec, args.crf, args.smoothing,
                               args.overwrite, say=print, progress=True)
    except (VideoError, ValueError) as error:
        fail(str(error))
    except (av.FFmpegError, OSError, RuntimeError, MemoryError) as error:
        fail(f'{output}: {first_line(error)}; the same command continues')
    except KeyboardInterrupt:
        print('Interrupted; the same command continues.', file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    print(f'{output}: {frames} frames')


class TemporalSmoother:
    """Lets what an enhancer adapts to change slowly within a scene, and at once where another scene begins.

    For head 'gain' that is the tone curve: its exponent, mean and balance, and the average that it divides by. Of every
    network's output, the mean luminance changes from one frame to the next by no more than that of the input does, in
    the same direction; what is left of the change follows slowly.

    Slowly is an exponential moving average of logarithms over time, so variable frame rates are no special case. A new
    scene is where a thumbnail of the luminance differs from the last frame's by more than ``cut`` of its mean.

    Args:
        seconds (float): Time constant; 0 smooths nothing. Default: 1.
        cut (float): Default: 0.3.
    """

    def __init__(self, seconds=1.0, cut=0.3):
        self.seconds, self.cut = seconds, cut
        self._time, self._thumbnail, self._values = None, None, {}
        self._weight = 1.0

    def state_dict(self):
        """What the next frame depends on, for JSON."""
        return {'time': self._time, 'thumbnail': self._thumbnail, 'values': self._values}

    def load_state_dict(self, state):
        self._time, self._thumbnail, self._values = state['time'], state['thumbnail'], dict(state['values'])

    def begin(self, x, time):
        """Look at the next frame, (1, 3, h, w) in [0, 1], shown at ``time`` in seconds; True if a scene begins."""
        light = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        thumbnail = F.interpolate(light, (12, 16), mode='area').flatten().tolist()
        begins = self._thumbnail is None or _difference(thumbnail, self._thumbnail) > self.cut
        if begins:
            self._values = {}
        elif self.seconds > 0:
            self._weight = -math.expm1(-max(0.0, time - self._time) / self.seconds)
        self._time, self._thumbnail = time, thumbnail
        return begins

    def smooth(self, name, values):
        """Positive values of this frame (Tensor) -> those to use instead, of the same shape."""
        logs = [math.log(max(value, 1e-12)) for value in values.flatten().tolist()]
        if name in self._values and self.seconds > 0:
            logs = [old + self._weight * (new - old) for old, new in zip(self._values[name], logs)]
        self._values[name] = logs
        return values.new_tensor([math.exp(log) for log in logs]).view(values.shape)

    @contextlib.contextmanager
    def attached(self, network):
        """Tone curves of the network are smoothed within this context."""
        heads = [module for module in network.modules() if isinstance(module, AutoExposure)]
        for i, head in enumerate(heads):
            head.predict = self._steady(head.predict, head.brighten, str(i))
        try:
            yield self
        finally:
            for head in heads:
                del head.predict  # the class's own again

    def _steady(self, predict, brighten, name):

        def steady(x):
            thumbnail = F.interpolate(x, (64, 96), mode='area')  # all that a mode in strips shows
            mean, power, balance = (self.smooth(f'{name}.{part}', value)
                                    for part, value in zip(('mean', 'power', 'balance'), predict(thumbnail)))
            # The curve divides by the average of this frame: let that cancel out, but for what is smoothed of it.
            average = brighten(thumbnail, power).mean((1, 2, 3), keepdim=True)
            return mean * average / self.smooth(f'{name}.average', average), power, balance

        return steady

    def enhance(self, enhancer, x, time, strength=1.0, mode=None):
        """Enhance the next frame: (1, 3, h, w) in [0, 1] -> the same. Only within :meth:`attached`."""
        self.begin(x, time)
        return self.limit(x, enhancer.enhance(x, strength, mode))

    def limit(self, x, y):
        """Let the mean luminance of the output y change no more than the input's: (1, 3, h, w) in [0, 1] each."""
        now, own = (math.log(max(1e-3, v.double().mean((0, 2, 3)).dot(v.new_tensor(LUMA).double()).item()))
                    for v in (x, y))
        if 'light' in self._values and self.seconds > 0:
            last_now, last = self._values['light']
            change = now - last_now
            within = min(max(own - last, min(0.0, change)), max(0.0, change))
            steady = last + within + self._weight * (own - last - within)
            y, own = (y * math.exp(steady - own)).clamp(0, 1), steady
        self._values['light'] = [now, own]
        return y


def _difference(a, b):
    # Half a grey level keeps the noise of black frames from looking like a change.
    return sum(abs(p - q) for p, q in zip(a, b)) / (max(sum(a), sum(b)) + len(a) * 0.5 / 255)


def inspect_paths(source, output, overwrite):
    """Say at once what would fail after hours.

    Raises:
        VideoError: If the input is no file, or the output may not or cannot be written.
    """
    if not osp.isfile(source):
        raise VideoError(f'{source}: {"is a folder, give a video" if osp.isdir(source) else "no such file"}')
    if osp.exists(output) and osp.samefile(source, output):
        raise VideoError(f'{output}: is the input; the output must be another file')
    if osp.isdir(output) or not osp.isdir(osp.dirname(output) or '.'):
        raise VideoError(f'{output}: must be a file in a folder that exists')
    if osp.exists(output) and not overwrite:
        raise VideoError(f'{output}: exists already; --overwrite replaces it')
    if not osp.getsize(source):
        raise VideoError(f'{source}: is empty')


def _open(path):
    import av
    try:
        # A playlist could name files that nobody meant to open, or addresses.
        return av.open('file:' + path, options={'protocol_whitelist': 'file'})
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f'{path}: is no video that FFmpeg can read, or damaged ({_reason(error)})') from error


def _reason(error):
    return first_line(getattr(error, 'strerror', None) or error)


def _video_stream(container):
    from av.stream import Disposition
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def inspect(path):
    """Read a video from end to end without decoding it, and its first frame.

    Args:
        path (str): File.

    Returns:
        dict: ``packets`` of the video stream, ``width``, ``height``, ``notes`` (lines about what the output will lack).

    Raises:
        VideoError: If it is none, damaged, truncated, HDR or a single picture.
    """
    import av
    with _open(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise VideoError(f'{path}: has no video stream')
        if container.format.name.endswith('_pipe') or container.format.name == 'image2':
            raise VideoError(f'{path}: is a picture, not a video: lowlight-cyclegan enhance takes it')
        packets, end = 0, 0.0
        try:
            for packet in container.demux():
                if packet.size and packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                packets += packet.size > 0 and packet.stream.index == stream.index
        except av.FFmpegError as error:
            raise VideoError(f'{path}: is damaged or truncated after {end:.1f} s ({_reason(error)})') from error
        start = (container.start_time or 0) / 1e6
        length = (container.duration or 0) / 1e6
        if end and end - start < length - max(1.0, 0.02 * length):
            raise VideoError(f'{path}: is truncated: {end - start:.1f} s of {length:.1f} s are there')
    with _open(path) as container:
        frame = next(_frames(container, path), None)
    if frame is None:
        raise VideoError(f'{path}: no frame of its video can be decoded')
    transfer = next((HDR[int(t)] for t in (frame.color_trc, stream.codec_context.color_trc) if int(t) in HDR), None)
    if transfer is not None:
        raise VideoError(f'{path}: is HDR ({transfer}), which the network does not know: tone-map it to SDR first')
    bits = max(component.bits for component in frame.format.components)
    notes = [f'{path}: {bits} bits to a sample; the output has 8'] if bits > 8 else []
    return {'packets': packets, 'width': frame.width, 'height': frame.height, 'notes': notes}


def _frames(container, path):
    """Frames of the video stream, with timestamps that rise."""
    import av
    stream = _video_stream(container)
    stream.thread_type = 'AUTO'
    step = _step(stream)
    last, time = None, 0.0
    try:
        for frame in container.decode(stream):
            if frame.pts is None or (last is not None and frame.pts <= last):
                frame.pts = 0 if last is None else last + step
            last, time = frame.pts, frame.pts * stream.time_base
            yield frame
    except av.FFmpegError as error:
        raise VideoError(f'{path}: is damaged at {float(time):.1f} s ({_reason(error)})') from error


def _step(stream):
    """Ticks from one frame to the next, where nothing else says it."""
    return max(1, round(1 / (stream.time_base * (stream.average_rate or 25))))


def enhance_video(source, output, enhancer, strength=1.0, codec=None, crf=None, smoothing=1.0, overwrite=False,
                  segment=SEGMENT, say=None, progress=False):
    """Enhance a video. Called again after an interruption, it continues.

    Args:
        source (str): File in any container that FFmpeg reads.
        output (str): File; its suffix gives the container. Complete or absent, never the input.
        enhancer (Enhancer): Its mode is used; what 'auto' picks for the first frame holds for all.
        strength (float): From 0 to 1. Default: 1.
        codec (str | None): 'h264', 'hevc', 'vp9' or 'ffv1'. None is vp9 in WebM, else h264.
        crf (int | None): Constant rate factor. None is the codec's default.
        smoothing (float): Seconds, see :class:`TemporalSmoother`. Default: 1.
        overwrite (bool): Replace the output, and segments of other settings. Default: False.
        segment (int): Frames to a segment. Default: 120.
        say (Callable[[str], None] | None): Gets lines about what the output will lack.
        progress (bool): Show a bar. Default: False.

    Returns:
        int: Frames of the output.

    Raises:
        VideoError: One line: what is wrong with the input, the output, or the segments that are there.
    """
    import av
    av.logging.set_level(None)  # what matters is raised
    inspect_paths(source, output, overwrite)
    if not 0 <= strength <= 1:
        raise VideoError(f'strength is from 0 to 1, got {strength}')
    if not 0 <= smoothing < math.inf:
        raise VideoError(f'smoothing is a number of seconds from 0, got {smoothing}')
    codec = codec or ('vp9' if output.lower().endswith('.webm') else 'h264')
    highest = {'vp9': 63, 'ffv1': None}.get(codec, 51)
    if crf is not None and (highest is None or not 0 <= crf <= highest):
        raise VideoError('crf: ffv1 is lossless, it has none' if highest is None else
                         f'crf of {codec} is from 0 to {highest}, got {crf}')
    facts = inspect(source)
    dropped = _check_container(source, output, codec)
    for line in facts['notes'] + dropped:
        if say:
            say(line)
    settings = {
        'input': file_sha256(source), 'weights': enhancer.fingerprint(), 'mode': enhancer.mode,
        'precision': enhancer.precision, 'device': enhancer.device.type, 'strength': strength, 'codec': codec,
        'crf': crf, 'smoothing': smoothing, 'segment': segment, 'self_ensemble': enhancer.self_ensemble,
        'denoise': enhancer.denoise,
    }
    parts = _Parts(output, settings, overwrite)
    if not parts.manifest['complete']:
        with _bar(facts['packets'], progress) as advance:
            _enhance_segments(source, enhancer, parts, advance)
    frames = sum(entry['frames'] for entry in parts.manifest['segments'])
    if not frames:
        raise VideoError(f'{source}: no frame of its video can be decoded')
    joined = osp.join(parts.folder, 'joined' + osp.splitext(output)[1])
    _join(source, parts, joined)
    os.replace(joined, output)
    shutil.rmtree(parts.folder)
    return frames


class _Parts:
    """Folder of finished segments and its manifest."""

    def __init__(self, output, settings, overwrite):
        self.folder, self.output = output + '.parts', output
        path = osp.join(self.folder, MANIFEST)
        self.manifest = {'settings': settings, 'mode': None, 'base': None, 'complete': False, 'segments': []}
        if not osp.isdir(self.folder):
            os.mkdir(self.folder)
        elif osp.exists(path):
            with open(path, encoding='utf-8') as f:
                found = json.load(f)
            differ = [key for key in settings if found['settings'].get(key) != settings[key]]
            if not differ:
                self.manifest = found
                self._keep_whole()
            elif not overwrite:
                raise VideoError(f'{self.folder}: holds the segments of a run that differs in {", ".join(differ)}: '
                                 '--overwrite starts anew, the same settings continue')
        elif set(os.listdir(self.folder)) - {f'{MANIFEST}.part'}:
            raise VideoError(f'{self.folder}: is in the way, and no folder of an interrupted run')
        self.save()

    def _keep_whole(self):
        # Segments from the first one on that is not as it was written are made again.
        whole = 0
        for i, entry in enumerate(self.manifest['segments']):
            path = self.segment(i)
            if not osp.isfile(path) or file_sha256(path) != entry['hash']:
                break
            whole += 1
        if whole < len(self.manifest['segments']):
            del self.manifest['segments'][whole:]
            self.manifest['complete'] = False

    def segment(self, i):
        return osp.join(self.folder, f'{i:05d}.nut')

    def save(self):
        path = osp.join(self.folder, MANIFEST)
        with open(path + '.part', 'w', encoding='utf-8') as f:
            json.dump(self.manifest, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(path + '.part', path)

    def add(self, part, frames, duration, state):
        """Take over the file of the next segment."""
        with open(part, 'rb') as f:
            os.fsync(f.fileno())
        entry = {'frames': frames, 'hash': file_sha256(part), 'duration': duration, 'smoother': state}
        os.replace(part, self.segment(len(self.manifest['segments'])))
        self.manifest['segments'].append(entry)
        self.save()


def _enhance_segments(source, enhancer, parts, advance):
    settings, manifest = parts.manifest['settings'], parts.manifest
    done = manifest['segments']
    smoother = TemporalSmoother(settings['smoothing'])
    if done:
        smoother.load_state_dict(done[-1]['smoother'])
    skip = sum(entry['frames'] for entry in done)
    advance(skip)
    part = osp.join(parts.folder, 'part.nut')
    writer, size = None, None
    with _open(source) as container, smoother.attached(enhancer.network):
        try:
            for i, frame in enumerate(_frames(container, source)):
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise VideoError(f'{source}: its frames change from {size[0]}x{size[1]} to {frame.width}x'
                                     f'{frame.height} at {frame.time:.1f} s, which one stream cannot hold')
                if i < skip:  # decoded again rather than sought: every decoder is exact in that
                    continue
                if manifest['base'] is None:
                    manifest['base'] = frame.pts
                if writer is None:
                    writer = _SegmentWriter(part, _video_stream(container), frame, settings['codec'], settings['crf'])
                x = torch.from_numpy(_to_rgb(frame)).to(enhancer.device).permute(2, 0, 1)[None].float() / 255
                y = smoother.enhance(enhancer, x, float(frame.pts * frame.time_base), settings['strength'],
                                     manifest['mode'])
                manifest['mode'] = manifest['mode'] or enhancer.last_mode
                pixels = (y[0] * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
                writer.write(pixels, frame, frame.pts - manifest['base'])
                advance(1)
                if writer.frames == settings['segment']:
                    parts.add(part, writer.finish(), writer.duration, smoother.state_dict())
                    writer = None
            if writer is not None:
                parts.add(part, writer.finish(), writer.duration, smoother.state_dict())
        finally:
            if writer is not None:
                writer.container.close()
    manifest['complete'] = True
    parts.save()


class _SegmentWriter:
    """Encoder of one segment, into NUT: the container that keeps any time base."""

    def __init__(self, path, stream, frame, codec, crf):
        import av
        encoder, options, default_crf = CODECS[codec]
        self.container = av.open(path, 'w', format='nut')
        self.stream = self.container.add_stream(encoder, rate=stream.average_rate or Fraction(25))
        context = self.stream.codec_context
        odd = frame.width % 2 or frame.height % 2
        self.format = 'yuv444p' if odd or codec == 'ffv1' else 'yuv420p'
        context.width, context.height, context.pix_fmt = frame.width, frame.height, self.format
        context.time_base = self.stream.time_base = stream.time_base
        if stream.sample_aspect_ratio:
            context.sample_aspect_ratio = stream.sample_aspect_ratio
        _tag_colours(context, frame)
        if default_crf is not None:
            context.bit_rate = 0
            options = {**options, 'crf': str(default_crf if crf is None else crf)}
        context.options = options
        self.frames, self.duration = 0, 0
        self.step = _step(stream)

    def write(self, pixels, like, pts):
        import av
        from av.video.reformatter import Interpolation
        frame = av.VideoFrame.from_ndarray(pixels, format='rgb24').reformat(
            format=self.format, dst_colorspace=_matrix(like), dst_color_range=_range(like),
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND)
        frame.pts, frame.time_base = pts, like.time_base
        self.container.mux(self.stream.encode(frame))
        self.frames, self.duration = self.frames + 1, like.duration or self.step

    def finish(self):
        self.container.mux(self.stream.encode(None))
        self.container.close()
        return self.frames


def _tag_colours(context, frame):
    context.color_range, context.color_primaries = frame.color_range, frame.color_primaries
    context.color_trc, context.colorspace = frame.color_trc, frame.colorspace or _matrix(frame)  # 0 is RGB: no longer


def _matrix(frame):
    """Matrix between RGB and YUV, as swscale numbers it: the frame's, or what players take where it says none."""
    known = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
    return known.get(int(frame.colorspace), 1 if frame.height >= 720 else 5)


def _range(frame):
    return 2 if int(frame.color_range) == 2 else 1  # full, or the limited one of video


def _to_rgb(frame):
    from av.video.reformatter import Interpolation
    rgb = frame.reformat(format='rgb24', src_colorspace=_matrix(frame), src_color_range=_range(frame), interpolation=(
        Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT))
    return rgb.to_ndarray()


def _check_container(source, output, codec):
    """Lines about streams that the output's container does not take.

    Raises:
        VideoError: If it takes not the video or the sound, or does not keep timestamps.
    """
    suffix = osp.splitext(output)[1].lower()
    if suffix not in CONTAINERS:
        raise VideoError(f'{output}: the suffix must be one of {", ".join(CONTAINERS)}')
    supported = _supported(suffix)
    if CODECS[codec][0] not in supported:
        raise VideoError(f'{output}: {suffix} does not take {codec}; .mkv takes every codec')
    lines = []
    with _open(source) as container:
        for stream in container.streams:
            if stream.type == 'audio' and not _keeps(stream, supported):
                raise VideoError(f'{output}: {suffix} does not take the sound as it is '
                                 f'({stream.codec_context.name}); .mkv takes every codec')
            if stream.index != _video_stream(container).index and not _keeps(stream, supported):
                lines.append(f'{output}: without stream {stream.index} ({stream.type}), which {suffix} does not take')
    return lines


def _supported(suffix):
    import av
    with av.open(io.BytesIO(), 'w', format=CONTAINERS[suffix]) as container:
        return container.supported_codecs


def _keeps(stream, supported):
    return (stream.type in ('audio', 'subtitle') and stream.codec_context is not None
            and stream.codec_context.name in supported)


def _join(source, parts, path):
    """Write the segments and the input's other streams into one file, packet by packet."""
    import av
    suffix = osp.splitext(path)[1].lower()
    supported = _supported(suffix)
    with _open(source) as container, _open(parts.segment(0)) as first:
        video = _video_stream(container)
        options = {}
        if CONTAINERS[suffix] in ('mp4', 'mov') and video.time_base.numerator == 1:
            options['video_track_timescale'] = str(video.time_base.denominator)
        frame = next(_frames(container, source))
        matrix = frame.side_data.get('DISPLAYMATRIX')
        container.seek(0)
        with av.open(path, 'w', format=CONTAINERS[suffix], container_options=options) as out:
            copies = {}
            for stream in container.streams:
                if stream.index == video.index:
                    target = joined = out.add_stream_from_template(first.streams.video[0])
                    _tag_colours(joined.codec_context, frame)
                    joined.time_base = video.time_base
                    if matrix is not None:
                        joined.set_display_matrix(np.frombuffer(bytes(matrix), np.int32).tolist())
                elif _keeps(stream, supported):
                    target = copies[stream.index] = out.add_stream_from_template(stream)
                else:
                    continue
                target.metadata.update(stream.metadata)
                target.disposition = stream.disposition
            out.metadata.update(container.metadata)
            out.set_chapters(container.chapters())
            copied = _copied_packets(source, copies) if copies else ()
            for packet in heapq.merge(_video_packets(parts, joined, video.time_base), copied, key=_decoded_at):
                out.mux(packet)
    with open(path, 'rb') as f:
        os.fsync(f.fileno())


def _decoded_at(packet):
    return packet.dts * packet.time_base


def _copied_packets(source, targets):
    with _open(source) as container:
        for packet in container.demux():
            if packet.stream.index in targets and packet.dts is not None:
                packet.stream = targets[packet.stream.index]
                yield packet


def _video_packets(parts, target, time_base):
    segments, base, last = parts.manifest['segments'], parts.manifest['base'], None
    for i, entry in enumerate(segments):
        with _open(parts.segment(i)) as container:
            # By size, not by dts, which this demuxer does not always know; packets without content are its last word.
            packets = [packet for packet in container.demux(video=0) if packet.size]
        if len(packets) != entry['frames']:
            raise VideoError(f'{parts.segment(i)}: {len(packets)} frames where {entry["frames"]} were written: '
                             'remove it, the same command makes it again')
        for packet in packets:
            packet.pts = packet.dts = base + round(packet.pts * packet.time_base / time_base)  # NUT: a multiple
            packet.time_base = time_base
            if last is not None:
                last.duration = packet.pts - last.pts
                yield last
            packet.stream, last = target, packet
    last.duration = segments[-1]['duration']
    yield last


@contextlib.contextmanager
def _bar(total, shown):
    """Progress bar; gives a function that moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn('frames'), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task('frames', total=total)
        yield lambda count: progress.advance(task, count)
