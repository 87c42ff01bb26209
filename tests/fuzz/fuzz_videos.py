"""Short clips in the usual containers."""
from __future__ import annotations

import numpy as np
import random
from fractions import Fraction
from pathlib import Path
from PIL import Image

from fuzz import Kind
from mutators import mutate_boxes, mutate_bytes
from toys import write_weights

CLIPS = (('a.mp4', 'libx264', 'aac'), ('b.mkv', 'libx264', 'flac'), ('c.webm', 'libvpx', 'libopus'),
         ('d.avi', 'mpeg4', None), ('e.ts', 'libx264', 'mp2'), ('f.mov', 'mjpeg', 'pcm_s16le'),
         ('g.mp4', 'libx265', None), ('h.gif', 'gif', None), ('i.h264', 'libx264', None))
BOXES = (b'moov', b'mvhd', b'trak', b'tkhd', b'edts', b'elst', b'mdhd', b'stsd', b'avcC', b'stts', b'ctts', b'stsc',
         b'stsz', b'stco', b'colr', b'mdat', b'udta', b'\x1aE\xdf\xa3', b'\x18S\x80g', b'\x16T\xaek', b'\x1fC\xb6u')


class Videos(Kind):
    folders_for_later = ('.parts', )

    def make(self) -> None:
        write_weights('toy.safetensors')
        for name, codec, sound in CLIPS:
            write_clip(name, codec, sound)
        pictures = [Image.fromarray(np.roll(np.kron(np.arange(48).reshape(4, 4, 3), np.ones((8, 8, 1))), i, axis=1)
                                    .astype(np.uint8)) for i in range(6)]
        for name in ('j.webp', 'k.apng'):
            pictures[0].save(name, save_all=True, append_images=pictures[1:], duration=80)

    def mutate(self, valid: Path, rng: random.Random) -> list[str]:
        paths = sorted(path for path in valid.iterdir() if path.suffix != '.safetensors')
        path, other = rng.choice(paths), rng.choice(paths)
        data = path.read_bytes()
        if rng.random() < 0.4:
            data = mutate_boxes(data, rng, BOXES)
        else:
            data = mutate_bytes(data, rng, other.read_bytes(), head=1024)
        name = f'case{path.suffix if rng.random() < 0.9 else rng.choice((".mp4", ".mkv", ".jpg", ""))}'
        Path(name).write_bytes(data)
        return ['video', name, '-o', f'out{rng.choice((".mp4", ".mkv"))}', '--model', str(valid / 'toy.safetensors'),
                '--device', 'cpu']

    def wrong(self, code: int, output: str) -> str | None:
        left = list(Path().glob('out*'))
        if not code and not any(path.suffix for path in left):
            return 'done without an output'
        if code and any(path.suffix in ('.mp4', '.mkv') for path in left if path.is_file()):
            return 'fails and leaves an output'
        if code and 'case' not in output and 'out' not in output:
            return 'a refusal that does not name the file'
        return None


def write_clip(name: str, codec: str, sound: str | None, count: int = 6) -> None:
    """Six frames of 32x32 with a moving edge, and a tone."""
    import av
    fmt = {'.h264': 'h264', '.ts': 'mpegts'}.get(Path(name).suffix)
    with av.open(name, 'w', format=fmt) as out:
        stream = out.add_stream(codec, rate=12)
        stream.width = stream.height = 32
        stream.pix_fmt = {'mjpeg': 'yuvj420p', 'gif': 'rgb8'}.get(codec, 'yuv420p')
        if codec == 'libx264':
            stream.options = {'preset': 'ultrafast', 'threads': '1'}
        elif codec == 'libx265':
            stream.options = {'preset': 'ultrafast', 'x265-params': 'pools=none:frame-threads=1:log-level=none'}
        rate = 48000
        audio = out.add_stream(sound, rate=rate, layout='mono') if sound else None
        for i in range(count):
            picture = np.full((32, 32, 3), 20 + i, np.uint8)
            picture[:, :8 + 3 * i] += 40
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24').reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = i, Fraction(1, 12)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio:
            tone = (np.sin(np.arange(rate // 2) * 0.05) * 8000).astype(np.int16)
            resampler = av.AudioResampler(audio.codec_context.format, 'mono', rate,
                                          frame_size=audio.codec_context.frame_size or 1024)
            frame = av.AudioFrame.from_ndarray(tone[None], format='s16', layout='mono')
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))


KIND = Videos()
