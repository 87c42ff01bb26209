"""The network sees sRGB, the file keeps its own encoding, HDR is refused."""
import io
import numpy as np
import pytest
import struct
import zlib
from PIL import Image, ImageCms

from lowlight_cyclegan.enhance.enhancer import Result
from lowlight_cyclegan.photos.batch import enhance_photos
from lowlight_cyclegan.photos.color import (PRIMARIES, encoding_of, for_network, from_network, profile,
                                            profile_of_codes)
from lowlight_cyclegan.photos.formats import ImageError, Photo
from lowlight_cyclegan.photos.read import decode_image, read_image
from lowlight_cyclegan.photos.write import encode_image, write_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
PROPHOTO = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001, 0.3457, 0.3585)


def picture(shape=(24, 32, 3), seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def by_littlecms(pixels, icc, target=None):
    """8-bit RGB from one profile to another, sRGB if none is given."""
    profiles = [io.BytesIO(p) if p else ImageCms.createProfile('sRGB') for p in (icc, target)]
    return np.asarray(ImageCms.profileToProfile(
        Image.fromarray(pixels), *profiles, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC))


class Brighter:
    """An enhancer that is right for sRGB alone: twice the light."""

    def enhance_with_report(self, image, strength=1.0, mode=None):
        top = np.iinfo(image.dtype).max
        x = image / top
        light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4) * (1 + strength)
        light = light.clip(0, 1)
        y = np.where(light <= 0.0031308, light * 12.92, 1.055 * light**(1 / 2.4) - 0.055)
        return Result((y * top).round().astype(image.dtype), 'direct', '')


def enhanced(photo):
    """The photo after Brighter, and what Brighter said."""
    result = Brighter().enhance_with_report(for_network(photo))
    return photo.with_pixels(from_network(photo, result.image)), result


def test_what_srgb_is():
    assert encoding_of(b'') is None and encoding_of(SRGB) is None
    assert profile_of_codes(1, 13) == profile_of_codes(2, 2) == profile_of_codes(1, 1) == b''
    pixels = picture()
    assert for_network(Photo(pixels, icc=SRGB)) is pixels


@pytest.mark.parametrize('icc', [profile_of_codes(12, 13), profile_of_codes(1, 4), profile_of_codes(9, 8),
                                 profile(PROPHOTO, 1.8), profile(PRIMARIES[1], 1.8)])
def test_profiles_are_followed_as_littlecms_does(icc):
    pixels = picture()
    found = for_network(Photo(pixels, icc=icc))
    assert found.dtype == np.uint16
    assert np.abs(found / 257 - by_littlecms(pixels, icc)).max() < 2
    for image in (pixels, pixels.astype(np.uint16) * 257 + 99):
        photo = Photo(image, icc=icc)
        unchanged = from_network(photo, for_network(photo))
        assert unchanged.dtype == image.dtype
        change = np.abs(unchanged.astype(int) - image)
        assert change.max() <= (0 if image.dtype == np.uint8 else 200) and np.median(change) <= 1  # near black, most


@pytest.mark.parametrize('kind,count', [(0, 1), (1, 3), (2, 4), (3, 5), (4, 7)])
def test_parametric_curves(kind, count):
    """All five types, with the numbers of sRGB's curve where they have a place."""
    values = {0: (2.4, ), 1: (2.4, 0.9479, 0.0521), 2: (2.4, 0.9479, 0.0521, 0.02),
              3: (2.4, 0.9479, 0.0521, 0.0774, 0.04045), 4: (2.4, 0.9479, 0.0521, 0.0774, 0.04045, 0.01, 0.01)}[kind]
    icc = bytearray(profile(PRIMARIES[1], 1.0))
    tag = b'para' + struct.pack(f'>IHH{count}i', 0, kind, 0, *(round(value * 65536) for value in values))
    for i in range(struct.unpack('>I', icc[128:132])[0]):
        entry = 132 + 12 * i
        if icc[entry + 1:entry + 4] == b'TRC':
            icc[entry + 4:entry + 12] = struct.pack('>II', len(icc), len(tag))
    icc = bytes(icc) + tag
    icc = struct.pack('>I', len(icc)) + icc[4:]
    pixels = picture()
    found = for_network(Photo(pixels, icc=icc))
    assert np.abs(found / (np.iinfo(found.dtype).max / 255) - by_littlecms(pixels, icc)).max() < 2


@pytest.mark.parametrize('icc', [profile_of_codes(1, 8), profile(PRIMARIES[1], 1.8), profile_of_codes(12, 13),
                                 profile(PROPHOTO, 1.8)])
@pytest.mark.parametrize('depth', [8, 16])
def test_the_same_scene_in_another_profile_looks_the_same_afterwards(icc, depth):
    """Of colours that sRGB holds; shown with its profile."""
    scene = picture(high=140) // 2 + 20
    scene = (scene * 0.3 + scene.mean(2, keepdims=True) * 0.7).astype(np.uint8)
    expected = Brighter().enhance_with_report(scene).image
    other = by_littlecms(scene, b'', icc)
    scale = 257 if depth == 16 else 1
    photo, result = enhanced(Photo((other * np.uint16(scale)).astype(f'u{depth // 8}'), icc=icc))
    assert photo.pixels.dtype.itemsize == depth // 8 and photo.icc == icc and result.mode == 'direct'
    seen = by_littlecms((photo.pixels // scale).astype(np.uint8), icc)
    assert abs(seen.astype(int) - expected).mean() < 3 and abs(seen.mean() - expected.mean()) < 1


def test_colours_beyond_srgb_stay_beyond():
    icc, red = profile_of_codes(12, 13), np.uint8([[[120, 0, 0]]])
    assert (for_network(Photo(red, icc=icc))[0, 0, 1:] == 0).all()
    found = enhanced(Photo(red, icc=icc))[0].pixels[0, 0]
    assert found[0] > 150 and found[1:].max() < 6


def test_gray_and_alpha():
    icc, gray = profile_of_codes(1, 8, gray=True), picture((9, 11, 2))
    photo, _ = enhanced(Photo(gray, icc=icc))
    assert np.array_equal(photo.pixels[..., 1], gray[..., 1])
    assert np.abs(photo.pixels[..., 0].astype(int) - (gray[..., 0].astype(int) * 2).clip(0, 255)).max() <= 1
    colour = picture((9, 11, 4))
    photo, _ = enhanced(Photo(colour, icc=profile_of_codes(1, 8)))
    assert np.abs(photo.pixels[..., :3].astype(int) - (colour[..., :3].astype(int) * 2).clip(0, 255)).max() <= 1
    assert np.array_equal(photo.pixels[..., 3], colour[..., 3])


def test_strength_zero_changes_nothing(tmp_path):
    photo = Photo(picture(), icc=profile(PROPHOTO, 1.8))
    write_image(tmp_path / 'a.png', photo)
    enhance_photos([str(tmp_path / 'a.png')], strength=0)
    assert np.array_equal(read_image(tmp_path / 'a_enhanced.png').pixels, photo.pixels)


def table_profile():
    """sRGB's profile, in which the curves have another name."""
    icc = bytearray(SRGB)
    for i in range(struct.unpack('>I', icc[128:132])[0]):
        entry = 132 + 12 * i
        if icc[entry + 1:entry + 4] == b'TRC':
            icc[entry:entry + 4] = b'xTR' + icc[entry:entry + 1]
    return bytes(icc)


def test_a_profile_that_nobody_can_follow_is_left_out(tmp_path):
    pixels = picture()
    for icc in (table_profile(), SRGB[:200], SRGB[:128] + b'\xff' * 400):
        Image.fromarray(pixels).save(tmp_path / 'a.png', icc_profile=icc)
        found = read_image(tmp_path / 'a.png')
        assert found.icc == b'' and np.array_equal(found.pixels, pixels)


def lut_profile():
    """A display profile whose colours are in a table: lut8Type that turns RGB into PCS XYZ by a grid of 2 points."""
    ramp = bytes(range(256))
    curves = bytes(int((i / 255)**2.2 * 255 + 0.5) for i in range(256))
    matrix = np.eye(3)
    grid = bytearray()
    from lowlight_cyclegan.photos.color import _to_d50
    columns = _to_d50(PRIMARIES[1])
    for r in (0, 1):
        for g in (0, 1):
            for b in (0, 1):
                xyz = columns @ np.array([r, g, b]) / (1 + 32767 / 32768)
                grid += bytes(int(v * 255 + 0.5) for v in xyz.clip(0, 1))
    lut = b'mft1' + struct.pack('>IBBBB9i', 0, 3, 3, 2, 0, *(int(v * 65536) for v in matrix.ravel()))
    lut += curves * 3 + bytes(grid) + ramp * 3
    text = b'desc' + struct.pack('>II', 0, 2) + b'x\0' + bytes(78)
    tags = {b'desc': text, b'cprt': b'text\0\0\0\0x\0', b'wtpt': b'XYZ ' + struct.pack('>I3i', 0, 63190, 65536, 54061),
            b'A2B0': lut}
    start, table, body = 132 + 12 * len(tags), struct.pack('>I', len(tags)), b''
    for name, data in tags.items():
        table += struct.pack('>4sII', name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack('>I4sI4s4s4s12s4s28xIII', start + len(body), b'', 0x02400000, b'mntr', b'RGB ', b'XYZ ',
                         bytes(12), b'acsp', 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + table + body


@pytest.mark.parametrize('depth', [8, 16])
def test_profiles_of_tables_become_srgb(tmp_path, depth):
    pixels = picture()
    icc = lut_profile()
    expected = by_littlecms(pixels, icc)
    assert np.abs(expected.astype(int) - pixels).max() > 3  # it is no sRGB
    original = Photo(pixels * np.uint16(257) if depth == 16 else pixels, icc=icc)
    write_image(tmp_path / 'a.png', original)
    photo = read_image(tmp_path / 'a.png')
    assert photo.icc == b'' and np.array_equal(photo.pixels, expected) and '8 bits' in photo.note


# What numbers say

def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def png(pixels, **chunks):
    data = encode_image(Photo(pixels), 'a.png')
    return data[:33] + b''.join(chunk(name.encode(), content) for name, content in chunks.items()) + data[33:]


def codes(primaries, transfer):
    return bytes([primaries, transfer, 0, 1])


P3_CHRM = struct.pack('>8I', *(round(value * 100_000) for value in PRIMARIES[12][6:] + PRIMARIES[12][:6]))


@pytest.mark.parametrize('chunks,icc', [
    ({'gAMA': struct.pack('>I', 45455)}, b''), ({'gAMA': struct.pack('>I', 100_000)}, profile_of_codes(1, 8)),
    ({'gAMA': struct.pack('>I', 100_000), 'sRGB': b'\0'}, b''), ({'cICP': codes(12, 13)}, profile_of_codes(12, 13)),
    ({'cICP': codes(9, 1)}, profile_of_codes(9, 1)), ({'cICP': codes(1, 13), 'gAMA': struct.pack('>I', 99_000)}, b''),
    ({'cHRM': P3_CHRM}, profile_of_codes(12, 13)), ({'cHRM': bytes(32)}, b''), ({'gAMA': bytes(4)}, b'')])
@pytest.mark.parametrize('depth', [8, 16])
def test_what_a_png_says_is_kept(tmp_path, chunks, icc, depth):
    pixels = picture() * np.uint16(257) if depth == 16 else picture()
    (tmp_path / 'a.png').write_bytes(png(pixels, **chunks))
    photo = read_image(tmp_path / 'a.png')
    assert photo.icc == icc and np.array_equal(photo.pixels, pixels)
    write_image(tmp_path / 'b.png', photo)
    written = (tmp_path / 'b.png').read_bytes()
    for name, content in chunks.items():
        assert chunk(name.encode(), content) in written
    again = read_image(tmp_path / 'b.png')
    assert again.icc == icc and np.array_equal(again.pixels, pixels)
    write_image(tmp_path / 'c.jpg', photo)
    assert read_image(tmp_path / 'c.jpg').icc == icc


def test_gray_png_with_gamma():
    photo = decode_image(png(picture((9, 9)), gAMA=struct.pack('>I', 100_000)), 'a.png')
    assert photo.icc == profile_of_codes(1, 8, gray=True)
    assert for_network(photo).mean() / 257 > photo.pixels.mean() + 20


@pytest.mark.parametrize('transfer,kind', [(16, 'PQ'), (18, 'HLG')])
def test_hdr_is_refused(tmp_path, transfer, kind):
    line = rf'^a\.\w+: is HDR \({kind}\), which the network does not know: tone-map it to SDR first$'
    for pixels in (picture(), picture() * np.uint16(257)):
        with pytest.raises(ImageError, match=line):
            decode_image(png(pixels, cICP=codes(9, transfer)), 'a.png')
    for suffix in ('.heic', '.avif'):
        data = heif(suffix, picture((64, 64, 3)), 9, transfer)
        with pytest.raises(ImageError, match=line):
            decode_image(data, f'a{suffix}')


@pytest.mark.parametrize('words', ['Rec. ITU-R BT.2100 PQ', 'ITU-R BT.2100 HLG'])
def test_an_older_hdr_profile_is_refused(words):
    icc = bytearray(profile_of_codes(9, 13))
    text = b'desc' + struct.pack('>II', 0, len(words) + 1) + words.encode() + bytes(90)
    entry = icc.index(b'desc')
    icc[entry:entry + 12] = struct.pack('>4sII', b'desc', len(icc), len(text))
    icc += text
    icc[:4] = struct.pack('>I', len(icc))
    with pytest.raises(ImageError, match=rf'is HDR \({words[-3:].strip()}\)'):
        decode_image(encode_image(Photo(picture(), icc=bytes(icc)), 'a.jpg'), 'a.jpg')


def test_an_hdr_profile_is_refused():
    icc = bytearray(profile_of_codes(9, 13))
    entry = icc.index(b'cprt')
    icc[entry:entry + 12] = struct.pack('>4sII', b'cicp', len(icc), 12)
    icc += b'cicp' + bytes(4) + codes(9, 16)
    icc[:4] = struct.pack('>I', len(icc))
    data = encode_image(Photo(picture()), 'a.png')
    data = data[:33] + chunk(b'iCCP', b'x\0\0' + zlib.compress(bytes(icc))) + data[33:]
    with pytest.raises(ImageError, match=r'is HDR \(PQ\)'):
        decode_image(data, 'a.png')


def heif(suffix, pixels, primaries, transfer):
    """A HEIC, or an AVIF, whose nclx box says these codes."""
    pillow_heif = pytest.importorskip('pillow_heif')
    file = io.BytesIO()
    if suffix == '.avif':
        Image.fromarray(pixels).save(file, 'AVIF', quality=90)
        data = bytearray(file.getvalue())
    else:
        pillow_heif.from_pillow(Image.fromarray(pixels)).save(
            file, quality=90, save_nclx_profile=True, color_primaries=primaries, transfer_characteristics=transfer)
        data = bytearray(file.getvalue())
    place = data.index(b'colrnclx') + 8
    data[place:place + 4] = struct.pack('>HH', primaries, transfer)
    return bytes(data)


@pytest.mark.parametrize('suffix', ['.heic', '.avif'])
def test_wide_gamut_of_nclx_is_written_as_a_profile(suffix):
    data = heif(suffix, picture((64, 64, 3)), 12, 13)
    photo = decode_image(data, f'a{suffix}')
    assert photo.icc == profile_of_codes(12, 13)
    assert decode_image(encode_image(photo, 'a.jpg'), 'a.jpg').icc == photo.icc
    assert decode_image(heif(suffix, picture((64, 64, 3)), 1, 13), f'a{suffix}').icc == b''
