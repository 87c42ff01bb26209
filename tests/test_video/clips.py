"""Toy enhancers, dark clips and what is in them."""
import numpy as np
import pytest
import torch
from fractions import Fraction

from lowlight_cyclegan.archs import EMAResNetGenerator
from lowlight_cyclegan.enhance.enhancer import Enhancer, Result

av = pytest.importorskip('av', minversion='18')
LUMA = np.array([0.2126, 0.7152, 0.0722])


def toy_enhancer(head='gain', seed=0):
    torch.manual_seed(seed)
    network = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, aspp_width=8, upsample='resize', head=head)
    if head == 'gain':
        torch.nn.init.normal_(network.exposure.linear.weight, std=0.3)  # a tone curve that looks at its picture
        torch.nn.init.normal_(network.fine[4].weight, std=0.02)
    if head == 'exposure':
        for layer in (network.exposure.picture[-1], network.exposure.grid[-1]):
            torch.nn.init.normal_(layer.weight, std=0.02)
    return Enhancer(network, device='cpu', precision='fp32')


def write_clip(path, seconds=2, rate=12, size=(64, 48), cut=True, sound='aac', codec='libx264', gaps=None, rotation=0,
               flicker=0.03, noise=3, pix_fmt='yuv420p', trc=None, colours=None, seed=0):
    """Dark moving picture with noise and flicker, another scene in its second half, and a tone."""
    rng = np.random.default_rng(seed)
    width, height = size
    frames = round(seconds * rate)
    options = {} if str(path).endswith('.mkv') else {'video_track_timescale': '12800'}
    scenes = [np.kron(rng.random((6, 8, 3)), np.ones((height // 6 + 1, width // 8 + 1, 1))) * top for top in (50, 25)]
    with av.open(str(path), 'w', options=options) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 12800)
        stream.options = {'crf': '12', 'preset': 'ultrafast'} if codec == 'libx264' else {}
        stream.metadata['language'] = 'deu'
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if colours is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        if trc is not None:
            stream.codec_context.color_trc = trc
        if rotation:
            stream.set_display_rotation(rotation)
        audio = out.add_stream(sound, rate=16000) if sound else None
        out.metadata['title'] = 'a dark clip'
        pts = 0
        for i in range(frames):
            scene = np.roll(scenes[cut and i >= frames // 2], i % 8, axis=1)[:height, :width]
            picture = scene * (1 + flicker * rng.standard_normal()) + noise * rng.standard_normal((height, width, 3))
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format='rgb24')
            frame.pts, frame.time_base = pts, Fraction(1, 12800)
            pts += 12800 // rate * (gaps[i % len(gaps)] if gaps else 1)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio:
            tone = np.sin(np.arange(round(seconds * 16000)) * 0.2).astype(np.float32)
            for start in range(0, len(tone), 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, start:start + 1024], format='fltp', layout='mono')
                frame.pts, frame.sample_rate, frame.time_base = start, 16000, Fraction(1, 16000)
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return str(path)


def write_pictures(path, pictures, rate=12, codec='libx264', options=None, pix_fmt='yuv420p', **container):
    """Video of (h, w, 3) uint8 pictures."""
    with av.open(f'file:{path}', 'w', **container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = {'crf': '8', 'preset': 'ultrafast'} if options is None else options
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        out.mux(stream.encode(None))
    return str(path)


def remux(source, path, change, **container):
    """Copy of a video; ``change(packet, i)``, with i counting the stream's packets, gives a packet, bytes or None."""
    with av.open(source) as one, av.open(f'file:{path}', 'w', **container) as out:
        targets, counts = [out.add_stream_from_template(stream) for stream in one.streams], [0] * len(one.streams)
        for packet in one.demux():
            if packet.dts is None:
                continue
            stream, times = packet.stream, (packet.pts, packet.dts, packet.duration, packet.time_base)
            changed = change(packet, counts[stream.index])
            counts[stream.index] += 1
            if isinstance(changed, bytes):
                changed = av.Packet(changed)
                changed.pts, changed.dts, changed.duration, changed.time_base = times
                changed.is_keyframe = packet.is_keyframe
            if changed is not None:
                changed.stream = targets[stream.index]
                out.mux(changed)
    return str(path)


def light(path):
    """Mean luminance of each frame, from 0 to 255."""
    return np.array([(picture @ LUMA).mean() for _, picture in frames(path)])


def packets(path, kind):
    with av.open(f'file:{path}') as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [(p.pts * stream.time_base, p.dts * stream.time_base, p.duration, bytes(p))
                for p in container.demux(stream) if p.size]


def frames(path):
    with av.open(f'file:{path}') as container:
        return [(frame.time, frame.to_ndarray(format='rgb24')) for frame in container.decode(video=0)]


def times(path):
    with av.open(f'file:{path}') as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)], stream.time_base


def same(one, other):
    return len(one) == len(other) and all(t == u and np.array_equal(a, b) for (t, a), (u, b) in zip(one, other))


def jitter(path, cut=None):
    """Mean absolute change of the mean luminance from frame to frame, relative to its mean; not across the cut."""
    scenes = np.split(light(path), [cut] if cut else [])
    return float(np.mean([np.abs(np.diff(scene)).mean() / scene.mean() for scene in scenes]))


class Mirror:
    """Enhances nothing."""
    network, device, mode, precision = torch.nn.Identity(), torch.device('cpu'), 'auto', 'fp32'
    self_ensemble, denoise, max_strength = False, 0.0, 1.0

    def fingerprint(self):
        return 'mirror'

    def enhance_with_report(self, x, strength, mode, adapt):
        return Result(x, 'direct', '')
