"""TIFF files of other software: which page is the photo, and what its samples are."""
import io
import numpy as np
import pytest
import tifffile
from PIL import Image

from lowlight_cyclegan.photos.formats import ImageError
from lowlight_cyclegan.photos.read import decode_image

RNG = np.random.default_rng(0)
GRAY, COLOUR = RNG.integers(0, 65536, (23, 36)).astype(np.uint16), RNG.integers(0, 65536, (23, 36, 3)).astype(np.uint16)
ALPHA = RNG.integers(1, 65536, (23, 36, 1)).astype(np.uint16)


def tiff(*pages):
    """Bytes of a file with a page for each (pixels, options of tifffile)."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for pixels, options in pages:
            writer.write(pixels, **{'photometric': 'rgb' if pixels.ndim == 3 else 'minisblack', **options})
    return file.getvalue()


def read(*pages):
    return decode_image(tiff(*pages), 'a.tif').pixels


@pytest.mark.parametrize('pixels', [COLOUR, (COLOUR >> 8).astype(np.uint8), GRAY])
def test_a_reduced_copy_is_no_second_picture(pixels):
    small = (np.ascontiguousarray(pixels[::4, ::4]), dict(subfiletype=1))
    for pages in ([(pixels, {}), small], [small, (pixels, {})], [small, (pixels, {}), small]):
        assert np.array_equal(read(*pages), pixels)
    for pages in ([(pixels, {}), (pixels, {})], [(pixels, {}), small, (pixels, {})]):
        with pytest.raises(ImageError, match=r'^a\.tif: is multi-page, 2 pages: only single pictures are enhanced$'):
            read(*pages)


def packed(values, bits):
    """Rows of gray samples of so many bits, each row filled up to whole bytes, as a TIFF."""
    rows = [np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel()) for row in values]
    data = b''.join(row.tobytes() for row in rows)
    from PIL.TiffImagePlugin import ImageFileDirectory_v2
    tags = ImageFileDirectory_v2()
    for tag, value in ((256, values.shape[1]), (257, values.shape[0]), (258, bits), (259, 1), (262, 1), (273, 0),
                       (277, 1), (278, values.shape[0]), (279, len(data))):
        tags[tag] = value
    file = io.BytesIO()
    tags.save(file)
    return file.getvalue() + data


@pytest.mark.parametrize('bits', [10, 12, 14])
def test_samples_of_twelve_bits_become_sixteen(bits):
    top = 2**bits - 1
    values = np.linspace(0, top, 24 * 32).astype(np.uint16).reshape(24, 32)
    found = decode_image(packed(values, bits), 'a.tif').pixels
    assert found.dtype == np.uint16 and found.max() == 65535
    assert np.abs(found.astype(float) - values.astype(float) * 65535 / top).max() <= 1


@pytest.mark.parametrize('options', [{}, dict(compression='zlib'), dict(compression='zlib', predictor=True)])
def test_planes(options):
    planes = dict(planarconfig='separate', photometric='rgb', **options)
    assert np.array_equal(read((COLOUR.transpose(2, 0, 1), planes)), COLOUR)
    both = np.concatenate([COLOUR, ALPHA], axis=2)
    assert np.array_equal(read((both.transpose(2, 0, 1), {**planes, 'extrasamples': ['unassalpha']})), both)


def test_planes_are_turned_upright():
    planes = dict(planarconfig='separate', photometric='rgb', extratags=[(274, 3, 1, 6, True)])
    assert np.array_equal(read((COLOUR.transpose(2, 0, 1), planes)), np.rot90(COLOUR, -1))


@pytest.mark.parametrize('white', [False, True])
@pytest.mark.parametrize('premultiplied', [False, True])
def test_gray_with_alpha(white, premultiplied):
    colour = GRAY[..., None]
    stored = (colour * (ALPHA / 65535)).round().astype(np.uint16) if premultiplied else colour
    stored = np.concatenate([65535 - stored if white else stored, ALPHA], axis=2)
    found = read((stored, dict(photometric='miniswhite' if white else 'minisblack', planarconfig='contig',
                               extrasamples=['assocalpha' if premultiplied else 'unassalpha'])))
    assert found.shape == stored.shape and np.array_equal(found[..., 1:], ALPHA)
    clear = ALPHA[..., 0] > 6000  # where the product still says what the colour was
    assert np.abs(found[..., 0].astype(int) - GRAY)[clear].max() <= (12 if premultiplied else 0)


@pytest.mark.parametrize('pixels,line', [
    ((COLOUR / 65535).astype('f4'), 'has floating-point pixels'), ((COLOUR / 65535).astype('f2'), 'floating-point'),
    ((GRAY / 65535).astype('f4'), 'has floating-point pixels'), ((GRAY / 65535).astype('f8'), 'floating-point'),
    (COLOUR.astype('u4') << 16, 'has pixels of 3 x uint32'), (GRAY.astype('u4') << 8, 'integer pixels from'),
    (GRAY.view('i2'), 'integer pixels from -32')])
def test_others_are_named(pixels, line):
    with pytest.raises(ImageError, match=line) as caught:
        read((pixels, {}))
    assert '16 bits' in str(caught.value) or 'is supported' in str(caught.value)


def test_a_page_of_many_pixels_is_refused_before_it_is_decoded():
    for pixels, options in ((COLOUR.transpose(2, 0, 1), dict(planarconfig='separate', photometric='rgb')),
                            (np.concatenate([GRAY[..., None], ALPHA], axis=2), dict(extrasamples=['unassalpha']))):
        data = tiff((pixels, {'photometric': 'minisblack', 'planarconfig': 'contig', **options}))
        with pytest.raises(ImageError, match='36x23 is 0.0 megapixels, more than the limit'):
            decode_image(data, 'a.tif', 36 * 23 - 1)


def test_exif_of_kinds_that_pillow_does_not_open():
    pixels = np.concatenate([GRAY[..., None], ALPHA], axis=2)
    data = tiff((pixels, dict(photometric='minisblack', planarconfig='contig', extrasamples=['unassalpha'],
                              extratags=[(271, 2, 0, 'Maker', True)])))
    exif = Image.Exif()
    exif.load(decode_image(data, 'a.tif').exif)
    assert exif[271] == 'Maker'
