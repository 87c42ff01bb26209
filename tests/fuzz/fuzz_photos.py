"""Photos of all kinds that ``enhance`` reads, and the same under wrong names."""
from __future__ import annotations

import numpy as np
import random
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path
from PIL import Image, ImageCms, features

from fuzz import Kind
from mutators import NUMBERS, mutate_boxes, mutate_bytes
from toys import write_weights

SUFFIXES = ('.jpg', '.png', '.webp', '.tif', '.bmp', '.gif', '.heic', '.dng', '.jp2', '.ppm', '.qoi', '.txt', '')
BOXES = (b'ftyp', b'meta', b'hdlr', b'pitm', b'iinf', b'infe', b'iloc', b'iprp', b'ipco', b'ispe', b'hvcC', b'av1C',
         b'pixi', b'colr', b'irot', b'ipma', b'iref', b'idat', b'mdat', b'jp2h', b'ihdr', b'bpcc', b'jp2c',
         b'\xff\x4f\xff\x51', b'\xff\x52', b'\xff\x5c', b'\xff\x90')  # the last four are JPEG 2000's markers
HEADS = {'.ppm': 16, '.qoi': 16, '.jp2': 256}  # bytes in which a format keeps its sizes, where not 512


class Photos(Kind):

    def make(self) -> None:
        write_weights('toy.safetensors')
        rng = np.random.default_rng(0)
        pixels = np.kron(rng.integers(0, 90, (5, 6, 4)), np.ones((7, 7, 1))).astype(np.uint8)
        pixels[..., 3] += 100
        exif = Image.Exif()
        exif.update({0x10F: 'Maker', 0x112: 6, 0x11A: 300.0})
        exif.get_ifd(0x8769)[0x9003] = '2024:01:01 00:00:00'
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
        for suffix, kind, modes, options in (
            ('.jpg', 'JPEG', ('RGB', 'L', 'CMYK'), [{}, {'progressive': True}, {'subsampling': 2, 'optimize': True}]),
            ('.png', 'PNG', ('RGB', 'L', 'RGBA', 'LA', 'P', '1', 'I;16'), [{}]),
            ('.webp', 'WEBP', ('RGB', 'RGBA'), [{}, {'lossless': True}]),
            ('.tif', 'TIFF', ('RGB', 'L', 'RGBA', 'CMYK', 'I;16', 'F'), [{}, {'compression': 'tiff_lzw'}]),
            ('.bmp', 'BMP', ('RGB', 'L', 'P'), [{}]), ('.gif', 'GIF', ('P', 'RGB'), [{}]),
        ):
            for mode in modes:
                for i, option in enumerate(options):
                    if mode in ('I;16', 'F'):
                        values = pixels[..., 0].astype(np.uint16) * 200
                        image = Image.fromarray(values.astype(np.float32) if mode == 'F' else values)
                    else:
                        image = Image.fromarray(pixels).convert(mode)
                    if kind in ('JPEG', 'PNG', 'WEBP', 'TIFF'):
                        option = {'exif': exif, **option}
                        if mode in ('RGB', 'RGBA'):
                            option['icc_profile'] = icc
                    image.save(f'{kind}_{mode.replace(";", "_")}_{i}{suffix}', kind, **option)

        _write_rarer_kinds(pixels, rng)
        for kind in ('HEIF', 'AVIF'):
            if kind == 'HEIF' and find_spec('pillow_heif'):
                import pillow_heif
                pillow_heif.register_heif_opener()
            elif kind == 'HEIF' or not features.check('avif'):
                continue
            for mode in ('RGB', 'RGBA'):
                Image.fromarray(pixels).convert(mode).save(f'{kind}_{mode}.{kind.lower()}', kind, exif=exif)

    def mutate(self, valid: Path, rng: random.Random) -> list[str]:
        paths = sorted(path for path in valid.iterdir() if path.suffix != '.safetensors')
        path, other = rng.choice(paths), rng.choice(paths)
        data = path.read_bytes()
        if path.suffix == '.png' and rng.random() < 0.6:
            data = _mutate_png(data, rng, other.read_bytes())
        elif path.suffix == '.tif' and rng.random() < 0.5:
            data = _mutate_tiff(data, rng)
        elif path.suffix in ('.heif', '.avif', '.jp2') and rng.random() < 0.5:
            data = mutate_boxes(data, rng, BOXES)
        else:
            data = mutate_bytes(data, rng, other.read_bytes(), HEADS.get(path.suffix, 512))
        name = 'case' + (path.suffix if rng.random() < 0.85 else rng.choice(SUFFIXES))
        target = rng.choice((name, f'pictures/{name}'))
        Path(target).parent.mkdir(exist_ok=True)
        Path(target).write_bytes(data)
        return ['enhance', target.split('/')[0], '--model', str(valid / 'toy.safetensors'), '--device', 'cpu',
                *rng.choice(([], ['--format', 'png'], ['--strength', '0.5'], ['-o', 'out'], ['--format', 'jpg']))]

    def wrong(self, code: int, output: str) -> str | None:
        if code and not any(word in output for word in ('case', 'pictures')):
            return 'a refusal that does not name the file'
        if not code and not list(Path().glob('**/*_enhanced*')) + list(Path().glob('out*')):
            return 'done without an output' if '.txt' not in output else None
        return None


def _write_rarer_kinds(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """JPEG 2000, PPM, QOI, and TIFF and PNG of samples that Pillow does not write; pixels are RGBA of 8 bits."""
    import cv2
    import tifffile
    colour, deep = np.ascontiguousarray(pixels[..., :3]), pixels[..., :3].astype(np.uint16) * 257
    for name, options in (('whole', {}), ('layers', dict(irreversible=True, quality_layers=[40, 20])),
                          ('tiles', dict(tile_size=(16, 16)))):
        for mode in ('RGB', 'L', 'RGBA'):
            Image.fromarray(pixels).convert(mode).save(f'JPEG2000_{mode}_{name}.jp2', **options)
    for mode in ('RGB', 'L', '1'):
        Image.fromarray(colour).convert(mode).save(f'PPM_{mode}.ppm')
    height, width = colour.shape[:2]
    for name, magic, top, samples in (('text', b'P3', 255, colour), ('twelve', b'P2', 4095, deep[..., 0] >> 4)):
        Path(f'PPM_{name}.ppm').write_bytes(b'%s\n# made by hand\n%d %d %d\n' % (magic, width, height, top) +
                                            ' '.join(map(str, samples.ravel())).encode())
    Path('PPM_deep.ppm').write_bytes(b'P6 %d %d 65535\n' % (width, height) + deep.astype('>u2').tobytes())
    Image.fromarray(pixels).save('QOI_RGBA.qoi')
    cv2.imwrite('PNG_deep.png', deep)
    planes = np.ascontiguousarray(colour.transpose(2, 0, 1))
    for name, samples, options in (
        ('planar', planes, dict(planarconfig='separate')), ('planar_deep', planes.astype(np.uint16) * 257,
                                                            dict(planarconfig='separate', compression='zlib')),
        ('deep', deep, dict(compression='zlib', predictor=True)), ('float', colour.astype(np.float32) / 255, {}),
        ('half', colour.astype(np.float16) / 255, {}), ('tiled', colour, dict(tile=(16, 16))),
        ('big', deep, dict(byteorder='>'))):
        tifffile.imwrite(f'TIFF_{name}.tif', samples, photometric='rgb', **options)
    with tifffile.TiffWriter('TIFF_thumbnail.tif', bigtiff=True) as writer:
        writer.write(deep, photometric='rgb')
        writer.write(deep[::4, ::4], photometric='rgb', subfiletype=1)


def _mutate_png(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Edit a chunk and mend its checksum, so that the edit is seen."""
    chunks, at = [], 8
    while at < len(data):
        length, = struct.unpack_from('>I', data, at)
        chunks.append((data[at + 4:at + 8], data[at + 8:at + 8 + length]))
        at += 12 + length
    i = rng.randrange(len(chunks))
    name, content = chunks[i]
    edit = rng.randrange(5)
    if edit == 0 and name == b'IHDR':
        values = [rng.choice((0, 1, 30, 35, 42, 70_000, 2**31 - 1, 2**32 - 1)) if rng.random() < 0.4 else value
                  for value in struct.unpack('>II', content[:8])]
        content = struct.pack('>II', *values) + bytes(rng.choice((0, 1, 2, 3, 4, 6, 8, 16)) if rng.random() < 0.3 else b
                                                      for b in content[8:])
    elif edit == 1 and name == b'IDAT':
        content = zlib.compress(mutate_bytes(zlib.decompress(content), rng, other))
    elif edit == 2:
        chunks.insert(rng.randrange(len(chunks)), chunks[i])
    elif edit == 3:
        name = rng.choice((b'IDAT', b'tRNS', b'gAMA', b'cHRM', b'cICP', b'iCCP', b'sRGB', b'eXIf', b'acTL', b'PLTE'))
    else:
        content = mutate_bytes(content, rng, other)
    chunks[i] = name, content
    if rng.random() < 0.1:
        del chunks[rng.randrange(len(chunks))]
    return data[:8] + b''.join(struct.pack('>I', len(content)) + name + content +
                               struct.pack('>I', zlib.crc32(name + content)) for name, content in chunks)


def _mutate_tiff(data: bytes, rng: random.Random) -> bytes:
    """Edit the tag, type, count or value of an entry of the first directory."""
    buffer = bytearray(data)
    order = '<' if data[:2] == b'II' else '>'
    first, = struct.unpack_from(order + 'I', data, 4)
    count, = struct.unpack_from(order + 'H', data, first)
    for _ in range(rng.choice((1, 1, 2, 3))):
        entry = first + 2 + 12 * rng.randrange(max(count, 1))
        field = rng.randrange(4)
        if field < 2:
            struct.pack_into(order + 'H', buffer, entry + 2 * field,
                             rng.choice((*range(254, 290), 317, 320, 338, 339, 34675, 34665)) if not field
                             else rng.randrange(14))
        else:
            struct.pack_into(order + 'I', buffer, entry + 4 * (field - 1), rng.choice((*NUMBERS, *range(2, 20))))
    return bytes(buffer)


KIND = Photos()
