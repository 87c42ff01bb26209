import cv2
import importlib.util
import io
import json
import numpy as np
import os
import pytest
import shutil
import signal
import struct
import subprocess
import sys
import tifffile
import torch
import warnings
import zlib
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from lowlight_cyclegan.enhance.enhancer import Result
from lowlight_cyclegan.photos.color import profile_of_codes
from lowlight_cyclegan.photos.formats import WRITTEN, ImageError, Photo
from lowlight_cyclegan.photos.read import decode_here, decode_image, read_image
from lowlight_cyclegan.photos.write import encode_image, write_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
GRAY = profile_of_codes(1, 4, gray=True)
ORIENTATION, EXIF_IFD, GPS_IFD = 0x112, 0x8769, 0x8825
CHANNELS = {'L': 1, 'LA': 2, 'RGB': 3, 'RGBA': 4}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def picture(mode='RGB', depth=8, size=(23, 36), seed=0):
    """Smooth colours, so that a JPEG of them is near; (h, w) or (h, w, c)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 100, (4, 5, CHANNELS[mode])).astype(np.float32)
    pixels = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255).reshape(*size, -1)
    pixels = (pixels * (257 if depth == 16 else 1)).astype(np.uint16 if depth == 16 else np.uint8)
    return pixels[..., 0] if mode == 'L' else pixels


def exif_data(orientation=6):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x8298] = 'Maker', 'Model', 'Somebody'
    exif[ORIENTATION] = orientation
    exif[EXIF_IFD] = {0x829A: (1, 50), 0x8827: 3200, 0x9003: '2021:03:04 05:06:07', 0x9286: b'ASCII\0\0\0dark',
                      0x927C: b'maker note'}
    exif[GPS_IFD] = {1: 'N', 2: (48.0, 51.0, 29.5), 3: 'E', 4: (2.0, 17.0, 40.0)}
    return exif


def metadata(file):
    """What Pillow finds in a file: EXIF tags but the layout's, the two directories below, ICC profile."""
    with Image.open(file) as image:
        image.load()
        exif = image.getexif()
        known = {tag: exif[tag] for tag in (0x010F, 0x0110, 0x8298, ORIENTATION) if tag in exif}
        return known, dict(exif.get_ifd(EXIF_IFD)), dict(exif.get_ifd(GPS_IFD)), image.info.get('icc_profile', b'')


def write_by_others(path, pixels, orientation, icc):
    """A file by Pillow, or where it cannot, by OpenCV (PNG) and tifffile."""
    exif = exif_data(orientation)
    if pixels.dtype == np.uint8:
        options = {'.jpg': dict(quality=95, subsampling=0), '.webp': dict(lossless=True, exact=True)}
        known = {} if path.suffix == '.bmp' else dict(exif=exif.tobytes(), icc_profile=icc)
        Image.fromarray(pixels).save(path, **options.get(path.suffix, {}), **known)
    elif path.suffix == '.png':
        order = [2, 1, 0, 3][:pixels.shape[2]] if pixels.ndim == 3 else ...
        data = cv2.imencode('.png', pixels[..., order] if pixels.ndim == 3 else pixels)[1].tobytes()
        chunks = chunk(b'iCCP', b'icc\0\0' + zlib.compress(icc)) + chunk(b'eXIf', exif.tobytes()[6:])
        path.write_bytes(data[:33] + chunks + data[33:])
    else:
        alpha = dict(extrasamples=['unassalpha']) if pixels.ndim == 3 and pixels.shape[2] == 4 else {}
        tifffile.imwrite(path, pixels, photometric='rgb' if pixels.ndim == 3 else 'minisblack', iccprofile=icc,
                         compression='zlib', predictor=True, **alpha,
                         extratags=[(ORIENTATION, 3, 1, orientation, True), (0x010F, 2, 0, 'Maker', True)])


def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def read_by_others(path):
    """Pixels by OpenCV, tifffile or Pillow."""
    if path.suffix == '.tif':
        return tifffile.imread(path)
    if path.suffix == '.png' and (pixels := cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).dtype == np.uint16:
        return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][:pixels.shape[2]]]
    with Image.open(path) as image:
        return np.asarray(image)


def upright(pixels, orientation):
    """Pillow's idea of it, one channel at a time (it rotates no 16-bit colour)."""
    if pixels.ndim == 3:
        return np.dstack([upright(pixels[..., i], orientation) for i in range(pixels.shape[2])])
    image = Image.fromarray(pixels.astype(np.int32))
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image)).astype(pixels.dtype)


MATRIX = [
    (suffix, mode, depth)
    for suffix, modes, depths in (('.jpg', ('L', 'RGB'), (8, )), ('.png', ('L', 'LA', 'RGB', 'RGBA'), (8, )),
                                  ('.png', ('L', 'RGB', 'RGBA'), (16, )), ('.webp', ('RGB', 'RGBA'), (8, )),
                                  ('.bmp', ('L', 'RGB'), (8, )), ('.tif', ('L', 'RGB', 'RGBA'), (8, 16)))
    for mode in modes for depth in depths
]


@pytest.mark.parametrize('suffix,mode,depth,orientation', [
    (*case, orientation) for case in MATRIX for orientation in range(1, 2 if case[0] == '.bmp' else 9)])  # BMP has none
def test_files_of_other_software(tmp_path, suffix, mode, depth, orientation):
    """Upright pixels, their depth and channels, EXIF data and profile, on reading and again on writing."""
    path, copy = tmp_path / f'a{suffix}', tmp_path / f'b{suffix}'
    original = picture(mode, depth)
    icc = GRAY if mode in ('L', 'LA') else SRGB
    write_by_others(path, original, orientation, icc)

    photo = read_image(path)
    expected = upright(original, orientation)
    assert photo.pixels.dtype == original.dtype and photo.pixels.shape == expected.shape
    limit = 6 if suffix == '.jpg' else 0
    assert np.abs(photo.pixels.astype(int) - expected).max() <= limit
    assert photo.format == WRITTEN[suffix] and photo.icc == (b'' if suffix == '.bmp' else icc)

    changed = photo.pixels // 2
    write_image(copy, photo.with_pixels(changed), quality=100)
    found = read_by_others(copy)
    assert found.dtype == changed.dtype and found.shape == changed.shape
    assert np.abs(found.astype(int) - changed).max() <= limit
    before, after = metadata(path), metadata(copy)
    assert after[0].pop(ORIENTATION, 1) == 1
    before[0].pop(ORIENTATION, None)
    assert after == before
    assert np.array_equal(read_image(copy).pixels, changed) or suffix == '.jpg'


@pytest.mark.parametrize('source', ['.jpg', '.png', '.webp', '.tif'])
@pytest.mark.parametrize('target', ['.jpg', '.png', '.webp', '.tif'])
def test_metadata_between_formats(tmp_path, source, target):
    write_by_others(tmp_path / f'a{source}', picture(), 8, SRGB)
    write_image(tmp_path / f'b{target}', read_image(tmp_path / f'a{source}'))
    before, after = metadata(tmp_path / f'a{source}'), metadata(tmp_path / f'b{target}')
    before[0][ORIENTATION] = 1
    assert after == before


def test_thumbnail_goes_and_maker_notes_stay_where_they_are(tmp_path):
    piexif = pytest.importorskip('piexif')
    thumbnail = io.BytesIO()
    Image.fromarray(picture()).save(thumbnail, 'JPEG')
    exif = piexif.dump({'0th': {0x010F: b'Maker', ORIENTATION: 3}, 'Exif': {0x927C: b'note' * 9},
                        '1st': {0x0103: 6}, 'thumbnail': thumbnail.getvalue()})
    Image.fromarray(picture()).save(tmp_path / 'a.jpg', exif=exif)
    photo = read_image(tmp_path / 'a.jpg')
    write_image(tmp_path / 'b.jpg', photo)
    found = piexif.load(str(tmp_path / 'b.jpg'))
    assert found['thumbnail'] is None and not found['1st']
    assert found['0th'][ORIENTATION] == 1 and found['Exif'][0x927C] == b'note' * 9
    assert photo.exif.index(b'note' * 9) == exif.removeprefix(b'Exif\0\0').index(b'note' * 9)


@pytest.mark.parametrize('exif', [b'Exif\0\0', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0nonsense of some length'])
def test_broken_exif_is_left_out(tmp_path, exif):
    Image.fromarray(picture()).save(tmp_path / 'a.jpg', exif=exif)
    assert read_image(tmp_path / 'a.jpg').exif == b''


def test_exif_too_long_for_jpeg(tmp_path):
    exif = exif_data()
    exif[EXIF_IFD] = {0x927C: bytes(70_000)}
    Image.fromarray(picture()).save(tmp_path / 'a.png', exif=exif)
    photo = read_image(tmp_path / 'a.png')
    assert len(photo.exif) > 70_000
    write_image(tmp_path / 'b.jpg', photo)
    assert read_image(tmp_path / 'b.jpg').exif == b''


@pytest.fixture(scope='session')
def convert():
    """ImageMagick's command, as a function of its arguments."""
    command = shutil.which('magick') or shutil.which('convert')
    if not command or 'ImageMagick' not in subprocess.run([command, '-version'], capture_output=True, text=True).stdout:
        pytest.skip('ImageMagick is not installed')

    def run(*arguments):
        subprocess.run([command, *map(str, arguments)], check=True, capture_output=True)

    return run


DEPTH_16 = ('-depth', '16')
HALF = ('-alpha', 'set', '-channel', 'A', '-evaluate', 'set', '50%')


@pytest.mark.parametrize('name,options,limit', [
    ('PNG24:a.png', (), 0), ('PNG48:a.png', (), 0), ('PNG48:a.png', ('-interlace', 'PNG'), 0), ('PNG64:a.png', HALF, 0),
    ('PNG8:a.png', (), 40), ('a.tif', ('-compress', 'None'), 0), ('a.tif', (*DEPTH_16, '-compress', 'None'), 0),
    ('a.tif', ('-compress', 'LZW'), 0), ('a.tif', (*DEPTH_16, '-compress', 'LZW'), 0),
    ('a.tif', (*DEPTH_16, '-compress', 'Zip'), 0), ('a.tif', (*DEPTH_16, '-compress', 'RLE'), 0),
    ('a.tif', (*DEPTH_16, '-endian', 'MSB'), 0), ('a.tif', (*DEPTH_16, '-define', 'tiff:tile-geometry=16x16'), 0),
    ('TIFF64:a.tif', DEPTH_16, 0), ('a.tif', (*DEPTH_16, *HALF), 0),
    ('a.tif', (*DEPTH_16, *HALF, '-define', 'tiff:alpha=associated'), 1), ('a.tif', ('-interlace', 'plane'), 0),
    ('a.tif', ('-colorspace', 'CMYK', '-compress', 'Zip'), 3), ('a.jpg', ('-colorspace', 'CMYK', '-quality', '98'), 8),
    ('a.jpg', ('-interlace', 'JPEG', '-quality', '98'), 8), ('BMP3:a.bmp', (), 0), ('a.bmp', HALF, 0),
    ('a.webp', ('-define', 'webp:lossless=true'), 0), ('a.gif', (), 40),
])
def test_files_of_imagemagick(tmp_path, convert, name, options, limit):
    original = picture()
    Image.fromarray(original).save(tmp_path / 'original.png')
    prefix, _, file = name.rpartition(':')
    convert(tmp_path / 'original.png', *options, f'{prefix}:{tmp_path / file}' if prefix else tmp_path / file)
    photo = read_image(tmp_path / file)
    sixteen = '48' in prefix or prefix == 'PNG64' or 'DEPTH' in prefix or '16' in options
    if name != 'PNG48:a.png' or '-interlace' not in options:  # this one it reduces to 8 bits
        assert photo.pixels.dtype == (np.uint16 if sixteen else np.uint8)
    pixels = photo.pixels.astype(float) / (257 if photo.pixels.dtype == np.uint16 else 1)
    assert np.abs(pixels[..., :3] - original).max() <= limit
    assert photo.pixels.shape[2] == (4 if HALF[0] in options else 3)
    if HALF[0] in options:
        assert np.abs(pixels[..., 3] / 255 - 0.5).max() < 0.01


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_outputs_in_the_eyes_of_exiftool(tmp_path, suffix):
    if not shutil.which('exiftool'):
        pytest.skip('ExifTool is not installed')

    def tags(path):
        shown = subprocess.run(['exiftool', '-s', '-n', '-EXIF:all', '-GPSLatitude', '-ICC_Profile:all', '-warning',
                                '-error', path], capture_output=True, text=True, check=True).stdout
        found = dict(line.split(':', 1) for line in shown.splitlines())
        return {key.strip(): value.strip() for key, value in found.items()}

    depths = (8, 16) if suffix in ('.png', '.tif') else (8, )
    for depth in depths:
        write_image(tmp_path / f'a{suffix}', Photo(picture(depth=depth), exif=exif_data(1).tobytes()[6:], icc=SRGB))
        found = tags(tmp_path / f'a{suffix}')
        assert 'Warning' not in found and 'Error' not in found, found
        assert (found['Make'], found['ISO'], found['Orientation']) == ('Maker', '3200', '1')
        assert found['DateTimeOriginal'] == '2021:03:04 05:06:07' and float(found['GPSLatitude'].split()[0]) > 48
        assert found['ColorSpaceData'].strip() == 'RGB'


def test_cmyk_with_a_profile_of_its_own(tmp_path):
    """Pixels are sRGB afterwards, so the profile must not stay."""
    cmyk = Image.fromarray(picture()).convert('CMYK')
    cmyk.save(tmp_path / 'a.jpg', quality=95, icc_profile=SRGB[:16] + b'CMYK' + SRGB[20:])
    photo = read_image(tmp_path / 'a.jpg')
    assert photo.icc == b'' and photo.pixels.shape == picture().shape
    assert np.abs(photo.pixels.astype(int) - np.asarray(cmyk.convert('RGB'))).max() < 16


def test_palettes_and_bits(tmp_path):
    image = Image.fromarray(picture()).quantize(16)
    image.save(tmp_path / 'a.png')
    assert np.array_equal(read_image(tmp_path / 'a.png').pixels, np.asarray(image.convert('RGB')))
    image.save(tmp_path / 'b.png', transparency=3)
    pixels = read_image(tmp_path / 'b.png').pixels
    assert np.array_equal(pixels[..., 3] == 0, np.asarray(image) == 3)
    image.save(tmp_path / 'c.gif', transparency=3)
    assert read_image(tmp_path / 'c.gif').pixels.shape[2] == 4
    Image.fromarray(picture('L') > 40).save(tmp_path / 'd.png')
    assert np.array_equal(read_image(tmp_path / 'd.png').pixels, (picture('L') > 40) * np.uint8(255))


def test_key_colours_become_alpha(tmp_path):
    for mode, depth in (('L', 8), ('RGB', 8), ('L', 16), ('RGB', 16)):
        pixels = picture(mode, depth)
        key = np.atleast_1d(pixels[3, 4]).astype(int)
        data = encode_image(Photo(pixels), 'a.png')
        data = data[:33] + chunk(b'tRNS', struct.pack(f'>{len(key)}H', *key)) + data[33:]
        found = decode_image(data, 'a.png').pixels
        assert np.array_equal(found[..., :-1].squeeze(), pixels)
        same = (pixels.reshape(*pixels.shape[:2], -1) == key).all(-1)
        assert same.any() and np.array_equal(found[..., -1] == 0, same)


def test_multi_picture_jpeg_is_its_first_picture(tmp_path):
    first, second = (Image.fromarray(picture(seed=seed)) for seed in (0, 1))
    first.save(tmp_path / 'a.jpg', 'MPO', save_all=True, append_images=[second], quality=95)
    photo = read_image(tmp_path / 'a.jpg')
    assert photo.format == 'JPEG' and np.abs(photo.pixels.astype(int) - picture()).max() < 16


@pytest.mark.parametrize('name', ['a.gif', 'a.png', 'a.webp', 'a.tif'])
def test_several_pictures_are_refused(tmp_path, name):
    first, *others = (Image.fromarray(picture(seed=seed)) for seed in range(3))
    first.save(tmp_path / name, save_all=True, append_images=others)
    with pytest.raises(ImageError, match=r'^\S*a\.\w+: is (animated|multi-page), 3 (frames|pages)'):
        read_image(tmp_path / name)


@pytest.mark.parametrize('depth', [8, 16])
def test_white_is_zero(tmp_path, depth):
    gray = picture(depth=depth)[..., 0]
    tifffile.imwrite(tmp_path / 'a.tif', ~gray, photometric='miniswhite')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.tif').pixels, gray)


def test_premultiplied_alpha(tmp_path):
    colour, alpha = picture(depth=16), np.full((23, 36, 1), 20_000, np.uint16)
    tifffile.imwrite(tmp_path / 'a.tif', np.dstack([(colour.astype(float) * 20_000 / 65535).round().astype(np.uint16),
                                                     alpha]), photometric='rgb', extrasamples=['assocalpha'])
    pixels = read_image(tmp_path / 'a.tif').pixels
    assert np.abs(pixels[..., :3].astype(int) - colour).max() <= 2 and (pixels[..., 3:] == alpha).all()


def test_heic(tmp_path):
    pillow_heif = pytest.importorskip('pillow_heif')
    heif = pillow_heif.from_pillow(Image.fromarray(picture(size=(64, 80))))
    heif.save(tmp_path / 'a.heic', quality=-1, exif=exif_data(1).tobytes())
    photo = read_image(tmp_path / 'a.heic')
    assert photo.format == 'HEIF' and np.abs(photo.pixels.astype(int) - picture(size=(64, 80))).max() < 16
    write_image(tmp_path / 'b.jpg', photo)
    assert metadata(tmp_path / 'b.jpg')[0][0x010F] == 'Maker'


def dng():
    """A small camera RAW: Bayer pattern of one colour, with the tags that the DNG specification asks for."""
    bayer = np.empty((64, 96), np.uint16)
    bayer[0::2, 0::2], bayer[0::2, 1::2], bayer[1::2, 0::2], bayer[1::2, 1::2] = 3000, 6000, 6000, 1500
    tags = ImageFileDirectory_v2()
    for tag, kind, value in (
        (254, 4, 0), (256, 4, 96), (257, 4, 64), (258, 3, 16), (259, 3, 1), (262, 3, 32803), (271, 2, 'Maker'),
        (272, 2, 'Model'), (273, 4, 0), (274, 3, 1), (277, 3, 1), (278, 4, 64), (279, 4, bayer.nbytes), (284, 3, 1),
        (33421, 3, (2, 2)), (33422, 1, b'\0\1\1\2'), (50706, 1, b'\1\4\0\0'), (50707, 1, b'\1\1\0\0'),
        (50708, 2, 'Maker Model'), (50714, 3, 0), (50717, 4, 16383),
        (50721, 10, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)), (50728, 5, (0.5, 1.0, 0.25)), (50778, 3, 21)
    ):
        tags.tagtype[tag] = kind
        tags[tag] = value
    file = io.BytesIO()
    tags.save(file)
    return file.getvalue() + bayer.tobytes()


def test_camera_raw(tmp_path):
    pytest.importorskip('rawpy')
    (tmp_path / 'a.dng').write_bytes(dng())
    photo = read_image(tmp_path / 'a.dng')
    assert photo.format == 'RAW' and photo.pixels.shape == (64, 96, 3) and photo.pixels.dtype == np.uint16
    write_image(tmp_path / 'b.jpg', photo)
    assert metadata(tmp_path / 'b.jpg')[0] == {0x010F: 'Maker', 0x0110: 'Model', ORIENTATION: 1}
    with pytest.raises(ImageError, match='more than the limit'):
        read_image(tmp_path / 'a.dng', max_pixels=64 * 96 - 1)


def test_extras_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    monkeypatch.setitem(sys.modules, 'rawpy', None)
    (tmp_path / 'a.heic').write_bytes(b'\0\0\0\x18ftypheic' + bytes(99))
    (tmp_path / 'a.nef').write_bytes(b'II*\0' + bytes(99))
    with pytest.raises(ImageError, match=r'a\.heic: HEIC needs an extra: pip install "lowlight_cyclegan\[heif\]"'):
        read_image(tmp_path / 'a.heic')
    with pytest.raises(ImageError, match=r'a\.nef: camera RAW needs an extra: pip install "lowlight_cyclegan\[raw\]"'):
        decode_here((tmp_path / 'a.nef').read_bytes(), tmp_path / 'a.nef', 10**6)


def samples():
    """Bytes of a small file of each kind, by name."""
    found = {}
    for suffix, mode, depth in MATRIX:
        name = f'{mode}{depth}{suffix}'
        found[name] = encode_image(Photo(picture(mode, depth), exif=exif_data().tobytes()[6:], icc=SRGB), name, 80)
    for name, image, options in (
        ('palette.gif', Image.fromarray(picture()).quantize(32), {}),
        ('palette.png', Image.fromarray(picture()).quantize(32), dict(transparency=3)),
        ('cmyk.jpg', Image.fromarray(picture()).convert('CMYK'), {}),
        ('progressive.jpg', Image.fromarray(picture()), dict(progressive=True)),
        ('lzw.tif', Image.fromarray(picture()), dict(compression='tiff_lzw')),
        ('jpeg.tif', Image.fromarray(picture()), dict(compression='jpeg')),
        ('fax.tif', Image.fromarray(picture('L') > 40), dict(compression='group4')),
        ('raw.tif', Image.fromarray(picture()), {}),
        ('animated.webp', Image.fromarray(picture()), dict(save_all=True, append_images=[Image.new('RGB', (36, 23))])),
    ):
        file = io.BytesIO()
        image.save(file, {'jpg': 'JPEG', 'tif': 'TIFF'}.get(name[-3:], name.split('.')[1].upper()), **options)
        found[name] = file.getvalue()
    file = io.BytesIO()
    tifffile.imwrite(file, picture(depth=16), photometric='rgb')
    found['raw16.tif'] = file.getvalue()
    return found


@pytest.mark.parametrize('share', [0.9, 0.5, 0.1])
@pytest.mark.parametrize('name', sorted(samples()))
def test_truncated_files(name, share, capfd):
    data = samples()[name]
    # of some compressed kinds, all pixels are there before the last bytes
    cut = data[:int(len(data) * min(share, 0.8 if name.endswith(('.bmp', '.gif')) else 1))]
    with pytest.raises(ImageError) as caught:
        decode_image(cut, name)
    assert '\n' not in str(caught.value) and str(caught.value).startswith(f'{name}: ')
    assert capfd.readouterr() == ('', '')


def test_refused_files(tmp_path):
    (tmp_path / 'empty.jpg').write_bytes(b'')
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'folder.jpg').mkdir()
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'vector.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    Image.fromarray(picture().astype(np.float32)[..., 0]).save(tmp_path / 'float.tif')
    Image.fromarray(picture('L').astype(np.int32) * 10**6).save(tmp_path / 'int.tif')
    Image.fromarray(picture()).save(tmp_path / 'bad\nname.png')
    with open(tmp_path / 'large.jpg', 'wb') as file:
        file.truncate(2**40)
    for name, reason in (('empty.jpg', 'is empty'), ('text.jpg', 'no image of a known kind'),
                         ('folder.jpg', 'is no file'), ('pipe.jpg', 'is no file'),
                         ('vector.svg', 'no image of a known kind'),
                         ('absent.jpg', 'No such file'), ('float.tif', 'floating-point'),
                         ('int.tif', 'integer pixels from 0 to'),
                         ('large.jpg', 'MB, more than a photo of'),
                         ('nul\0.jpg', 'cannot be read')):
        with pytest.raises(ImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ImageError, match=r'bad\\nname\.png: 36x23 is 0\.0 megapixels, more than the limit of'):
        read_image(tmp_path / 'bad\nname.png', max_pixels=36 * 23 - 1)
    assert read_image(tmp_path / 'bad\nname.png', max_pixels=36 * 23).size == (36, 23)


def test_unreadable_file(tmp_path):
    Image.fromarray(picture()).save(tmp_path / 'a.png')
    (tmp_path / 'a.png').chmod(0)
    if os.access(tmp_path / 'a.png', os.R_OK):
        pytest.skip('this user may read everything')
    with pytest.raises(ImageError, match='Permission denied'):
        read_image(tmp_path / 'a.png')


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.tif', '.gif'])
def test_decompression_bombs(suffix):
    """A header that claims a gigapixel is refused by what it claims; Pillow's own limit is left as it is."""
    data = bytearray(samples()[{'.gif': 'palette.gif'}.get(suffix, f'RGB8{suffix}')])
    if suffix == '.png':
        header = b'IHDR' + struct.pack('>II', 40_000, 40_000) + bytes(data[24:29])
        data[8:33] = chunk(b'IHDR', header[4:])
    elif suffix == '.bmp':
        data[18:26] = struct.pack('<ii', 40_000, 40_000)
    elif suffix == '.gif':
        data[6:10] = struct.pack('<HH', 40_000, 40_000)
    else:
        for tag in (256, 257):
            entry = data.index(struct.pack('<H', tag), 8)
            data[entry:entry + 12] = struct.pack('<HHII', tag, 4, 1, 40_000)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r'40000x40000 is 1600\.0 megapixels, more than the limit of 200 \(--max-mega'):
        decode_image(bytes(data), f'a{suffix}')
    assert Image.MAX_IMAGE_PIXELS == limit


def test_formats_that_cannot_hold_it(tmp_path):
    clear, opaque = picture('RGBA'), picture('RGBA')
    opaque[..., 3] = 255
    for name in ('a.jpg', 'a.bmp'):
        with pytest.raises(ImageError, match='holds no transparency'):
            write_image(tmp_path / name, Photo(clear))
        write_image(tmp_path / name, Photo(opaque))
        assert read_image(tmp_path / name).pixels.shape == (23, 36, 3)
    with pytest.raises(ImageError, match='WEBP holds at most 16383 pixels a side'):
        write_image(tmp_path / 'a.webp', Photo(np.zeros((2, 16_384, 3), np.uint8)))
    with pytest.raises(ImageError, match='JPEG holds at most 65500 pixels a side'):
        write_image(tmp_path / 'b.jpg', Photo(np.zeros((2, 65_536, 3), np.uint8)))
    for name in ('a.xyz', 'a'):
        with pytest.raises(ImageError, match='is no name or format to write'):
            write_image(tmp_path / name, Photo(clear))
    assert sorted(os.listdir(tmp_path)) == ['a.bmp', 'a.jpg']


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    write_image(tmp_path / 'a.bmp', Photo(pixels))
    assert np.array_equal(read_image(tmp_path / 'a.bmp').pixels, np.round(pixels / 257))


def test_gray_with_alpha_of_16_bits(tmp_path):
    pixels = picture('LA', 16)
    write_image(tmp_path / 'a.png', Photo(pixels))
    assert np.array_equal(read_image(tmp_path / 'a.png').pixels, pixels)
    write_image(tmp_path / 'a.tif', Photo(pixels))
    assert np.array_equal(read_image(tmp_path / 'a.tif').pixels, pixels[..., [0, 0, 0, 1]])


def test_quality(tmp_path):
    photo = Photo(picture(size=(64, 64)))
    for suffix in ('jpg', 'webp'):
        sizes = [len(encode_image(photo, 'a', quality, suffix)) for quality in (20, 60, None)]
        assert sizes == sorted(set(sizes))
    assert np.array_equal(decode_image(encode_image(photo, 'a.webp', 100), 'a.webp').pixels, photo.pixels)


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_failed_writes_leave_the_old_file(tmp_path, monkeypatch, step):
    write_image(tmp_path / 'a.png', Photo(picture()))
    before = (tmp_path / 'a.png').read_bytes()

    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(ImageError, match=r'a\.png: cannot be written \(No space left on device\)'):
        write_image(tmp_path / 'a.png', Photo(picture(seed=1)))
    assert os.listdir(tmp_path) == ['a.png'] and (tmp_path / 'a.png').read_bytes() == before
    with pytest.raises(ImageError, match='cannot be written'):
        write_image(tmp_path / 'absent' / 'a.png', Photo(picture()))


def mutations(count, seed=0):
    """(name, bytes) of broken files: bits flipped, parts cut out, repeated, zeroed or taken from another file."""
    rng = np.random.default_rng(seed)
    known = {**samples(), 'raw.dng': dng()}
    if importlib.util.find_spec('pillow_heif'):
        import pillow_heif
        file = io.BytesIO()
        heif = pillow_heif.from_pillow(Image.fromarray(picture(size=(64, 80))))
        heif.save(file, quality=80, exif=exif_data().tobytes())
        known['a.heic'] = file.getvalue()
    names = sorted(known)
    for i in range(count):
        name = names[i % len(names)]
        data = bytearray(known[name])
        for _ in range(rng.integers(1, 3)):
            start = int(rng.integers(0, len(data))) if rng.random() < 0.5 else int(rng.integers(0, min(len(data), 200)))
            length = int(rng.integers(1, 64))
            kind = rng.integers(0, 7)
            if kind == 0:
                data[start] ^= 1 << int(rng.integers(0, 8))
            elif kind == 1:
                data[start:start + length] = rng.bytes(length)
            elif kind == 2:
                del data[start:start + length]
            elif kind == 3:
                data[start:start] = data[start:start + length]
            elif kind == 4:
                data[start:start + 4] = [b'\xff' * 4, bytes(4), b'\x7f\xff\xff\xff', b'\0\0\0\x80'][rng.integers(0, 4)]
            elif kind == 5:
                del data[max(start, 1):]
            else:
                other = known[names[rng.integers(0, len(names))]]
                data[start:start + length] = other[start:start + length]
            data = data or bytearray(b'\0')
        yield f'{i:05d}_{name}', bytes(data)


class Inverter:
    """An enhancer that needs no network."""
    device = torch.device('cpu')

    def enhance_with_report(self, image, strength, mode):
        return Result(np.iinfo(image.dtype).max - image, 'direct', 'there is no other')


@pytest.mark.parametrize('count', [60, pytest.param(2600, marks=pytest.mark.full)])
def test_mutated_files(tmp_path, forked, count):
    """None crashes, hangs, prints or leaves half an output; each has its line."""
    source, target = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    for name, data in mutations(count):
        (source / name).write_bytes(data)

    def enhance():
        from lowlight_cyclegan.photos.journal import Settings
        from lowlight_cyclegan.photos.pipeline import Pipeline
        from lowlight_cyclegan.photos.plan import plan
        warnings.simplefilter('error')
        signal.alarm(120)  # for something like 0.01 s a file
        jobs = plan([str(source)], str(target))
        entries = Pipeline(Inverter(), Settings('none'), max_pixels=10**6).run(jobs)
        (tmp_path / 'entries.json').write_text(json.dumps(entries))

    code, output = forked(enhance)
    assert (code, output) == (0, '')
    entries = json.loads((tmp_path / 'entries.json').read_text())
    assert len(entries) == count
    good = [entry for entry in entries if entry['result'] == 'ok']
    bad = [entry for entry in entries if entry['result'] == 'failed']
    assert len(good) + len(bad) == count and good and bad
    assert all(entry['reason'] and len(entry['reason'].splitlines()) == 1 for entry in bad)
    assert sorted(os.listdir(target)) == sorted(os.path.basename(entry['output']) for entry in good)
    for entry in good:
        assert read_image(entry['output']).size == tuple(entry['size'])
    print(f'{count} mutated files: {len(good)} readable, {len(bad)} refused')
