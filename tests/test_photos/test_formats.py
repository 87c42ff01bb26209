"""Which files are taken, under which name they go, and what is said of the others."""
import io
import json
import numpy as np
import os
import pytest
import sys
import torch
from pathlib import Path
from PIL import Image

from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.enhance import enhancer as enhancer_module
from lowlight_cyclegan.enhance.enhancer import Result
from lowlight_cyclegan.photos.formats import ImageError, Photo, default_suffix, is_other_picture
from lowlight_cyclegan.photos.plan import plan
from lowlight_cyclegan.photos.read import decode_image, read_image
from lowlight_cyclegan.photos.write import encode_image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (24, 32, 3)).astype(np.uint8)
CLEAR = np.dstack([COLOUR, RNG.integers(0, 256, (24, 32)).astype(np.uint8)])


class Inverter:
    precision, device, max_strength = 'fp32', torch.device('cpu'), 1.0

    @classmethod
    def from_pretrained(cls, name, options=None, **kwargs):
        return cls()

    def fingerprint(self):
        return 'none'

    def enhance_with_report(self, image, strength=1.0, mode=None):
        inverse = np.iinfo(image.dtype).max - image
        if image.ndim == 3 and image.shape[2] in (2, 4):
            inverse[..., -1] = image[..., -1]
        return Result(inverse, 'direct', '')


@pytest.fixture(autouse=True)
def inverter(monkeypatch):
    monkeypatch.setattr(enhancer_module, 'Enhancer', Inverter)


def enhance(*arguments):
    try:
        cli.main(['enhance', *map(str, arguments)])
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code
    return 0


def write_as(path, kind, pixels=CLEAR):
    """A file whose content is of another kind than its name says, perhaps."""
    Path(path).write_bytes(encode_image(Photo(pixels), f'a.{kind}'))


def names(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith('enhance_'))


# Transparency

def test_the_content_decides_about_the_format(tmp_path):
    write_as(tmp_path / 'a.jpg', 'png')
    assert enhance(tmp_path / 'a.jpg') == 0
    assert names(tmp_path) == ['a.jpg', 'a_enhanced.png']
    assert np.array_equal(read_image(tmp_path / 'a_enhanced.png').pixels[..., 3], CLEAR[..., 3])
    write_as(tmp_path / 'b.jpg', 'png', np.dstack([COLOUR, np.full((24, 32), 255, np.uint8)]))
    assert enhance(tmp_path / 'b.jpg') == 0 and 'b_enhanced.jpg' in names(tmp_path)


def test_default_suffix():
    """The page names its download by the same function."""
    for name, pixels, suffix in (('a.jpg', CLEAR, '.png'), ('a.JPG', COLOUR, '.JPG'), ('a.heic', CLEAR, '.png'),
                                 ('a.heic', COLOUR, '.jpg'), ('a.bmp', CLEAR, '.png'), ('a.webp', CLEAR, '.webp'),
                                 ('a.avif', COLOUR, '.jpg'), ('a.nef', COLOUR, '.jpg'), ('a.gif', COLOUR, '.png')):
        assert default_suffix(name, Photo(pixels)) == suffix


def test_a_name_or_format_that_was_asked_for_stays(tmp_path, capsys):
    write_as(tmp_path / 'a.jpg', 'png')
    assert enhance(tmp_path / 'a.jpg', '-o', tmp_path / 'b.jpg') == 1
    assert enhance(tmp_path / 'a.jpg', '--format', 'jpg') == 1
    assert capsys.readouterr().err.count('JPEG holds no transparency') == 2 and names(tmp_path) == ['a.jpg']


def test_transparent_photos_of_a_folder_keep_out_of_others_ways(tmp_path, capsys):
    root, out = tmp_path / 'in', tmp_path / 'out'
    root.mkdir()
    write_as(root / 'a.jpg', 'png')
    write_as(root / 'a.png', 'png', COLOUR)
    write_as(root / 'b.jpg', 'png')
    assert enhance(root, '-o', out) == 0
    assert names(out) == ['a.png', 'a_jpg.png', 'b.png']
    assert read_image(out / 'a.png').pixels.shape[2] == 3 and read_image(out / 'a_jpg.png').pixels.shape[2] == 4
    assert enhance(root, '-o', out) == 0
    report = json.loads((out / 'enhance_report.json').read_text())
    assert report['counts'] == {'skipped': 3}
    assert [Path(photo['output']).name for photo in report['photos']] == ['a_jpg.png', 'a.png', 'b.png']
    assert capsys.readouterr().err == ''


def test_a_transparent_photo_never_replaces_an_input_or_a_stranger(tmp_path, capsys):
    write_as(tmp_path / 'a.jpg', 'png')
    (tmp_path / 'a_enhanced.png').write_text('mine')
    assert enhance(tmp_path / 'a.jpg') == 1
    assert (tmp_path / 'a_enhanced.png').read_text() == 'mine'
    assert 'a_enhanced.png exists already; --overwrite replaces it' in capsys.readouterr().err


# Sizes that not every format holds

@pytest.mark.parametrize('suffix, longest', [('.webp', 16383), ('.jpg', 65500)])
def test_a_photo_too_long_for_its_format(suffix, longest, tmp_path, capsys, monkeypatch):
    """Under a name that it was not asked for it becomes a PNG; else one line is said before the network runs."""
    long = np.full((2, longest + 1, 3), 40, np.uint8)
    write_as(tmp_path / f'a{suffix}', 'png', long)
    assert enhance(tmp_path / f'a{suffix}') == 0 and names(tmp_path) == [f'a{suffix}', 'a_enhanced.png']
    assert capsys.readouterr().err == ''
    assert default_suffix(f'a{suffix}', Photo(long)) == '.png'
    assert default_suffix(f'a{suffix}', Photo(long[:, 1:])) == suffix
    (tmp_path / 'a_enhanced.png').unlink()

    monkeypatch.setattr(Inverter, 'enhance_with_report', None)  # cannot be called
    for arguments in (['-o', tmp_path / f'b{suffix}'], ['--format', suffix[1:]]):
        assert enhance(tmp_path / f'a{suffix}', *arguments) == 1
        line, = capsys.readouterr().err.splitlines()
        assert f'holds at most {longest} pixels a side, and the photo has {longest + 1}x2' in line
    assert names(tmp_path) == [f'a{suffix}']
    with pytest.raises(ImageError, match='at most'):
        encode_image(Photo(long), f'a{suffix}')


@pytest.mark.parametrize('suffix, longest', [('.webp', 16383), ('.jpg', 65500)])
def test_the_longest_photo_that_a_format_holds(suffix, longest, tmp_path):
    long = np.full((2, longest, 3), 40, np.uint8)
    write_as(tmp_path / 'a.png', 'png', long)
    assert enhance(tmp_path / 'a.png', '--format', suffix[1:]) == 0
    assert read_image(tmp_path / f'a_enhanced{suffix}').size == (longest, 2)


def test_transparency_is_looked_for_before_the_network_runs(tmp_path, capsys, monkeypatch):
    write_as(tmp_path / 'a.png', 'png')
    monkeypatch.setattr(Inverter, 'enhance_with_report', None)
    assert enhance(tmp_path / 'a.png', '-o', tmp_path / 'b.jpg') == 1
    assert 'JPEG holds no transparency' in capsys.readouterr().err


# Kinds of files

@pytest.mark.parametrize('suffix,kind,options', [
    ('.avif', 'AVIF', dict(quality=100)), ('.jp2', 'JPEG2000', {}), ('.j2k', 'JPEG2000', {}), ('.ppm', 'PPM', {}),
    ('.mpo', 'JPEG', dict(quality=98)), ('.dib', 'BMP', {}), ('.apng', 'PNG', {})])
def test_what_pillow_reads_is_taken(tmp_path, suffix, kind, options):
    image = Image.fromarray(np.kron(COLOUR[:6, :8], np.ones((8, 8, 1), np.uint8)))
    (tmp_path / 'in').mkdir()
    image.save(tmp_path / 'in' / f'a{suffix}', kind, **options)
    assert enhance(tmp_path / 'in') == 0
    name, = names(tmp_path / 'in_enhanced')
    assert name == ('a.jpg' if suffix in ('.avif', '.mpo') else 'a.png')
    change = 255 - read_image(tmp_path / 'in_enhanced' / name).pixels.astype(int) - np.asarray(image)
    assert np.abs(change).mean() < 8


def test_gray_of_other_kinds(tmp_path):
    Image.fromarray(COLOUR[..., 0]).save(tmp_path / 'a.pgm', 'PPM')
    assert np.array_equal(read_image(tmp_path / 'a.pgm').pixels, COLOUR[..., 0])
    deep = COLOUR[..., 0].astype(np.uint16) * 257
    (tmp_path / 'b.pgm').write_bytes(b'P5 32 24 65535\n' + deep.astype('>u2').tobytes())
    assert np.array_equal(read_image(tmp_path / 'b.pgm').pixels, deep)


def test_ppm_of_sixteen_bits_stays_so(tmp_path):
    deep = COLOUR.astype(np.uint16) * 257 + 3 * (COLOUR < 255)
    (tmp_path / 'a.ppm').write_bytes(b'P6 32 24 65535\n' + deep.astype('>u2').tobytes())
    assert np.array_equal(read_image(tmp_path / 'a.ppm').pixels, deep)


def test_pictures_that_are_not_read_are_named(tmp_path, capsys):
    root, out = tmp_path / 'in', tmp_path / 'out'
    root.mkdir()
    write_as(root / 'a.jpg', 'jpg', COLOUR)
    for name in ('b.jxl', 'c.PSD', 'd.exr', 'e.svg', 'notes.txt', 'film.mp4'):
        (root / name).write_bytes(b'x')
    assert enhance(root, '-o', out) == 0
    assert capsys.readouterr().out == '1 enhanced, 0 finished before, 0 failed, 4 left out, of kinds that are not ' \
        f'read (.PSD .exr .jxl .svg); report: {out}/enhance_report.json\n'
    report = json.loads((out / 'enhance_report.json').read_text())
    assert report['counts'] == {'ok': 1, 'left out': 4}
    named = {Path(photo['input']).name: photo['reason'] for photo in report['photos'] if photo['result'] == 'left out'}
    assert named == {'b.jxl': '.jxl is not read', 'c.PSD': '.PSD is not read', 'd.exr': '.exr is not read',
                     'e.svg': '.svg is not read'}
    (root / 'a.jpg').unlink()
    assert enhance(root, '-o', out) == 1
    assert 'in: no photos there' in (said := capsys.readouterr().err) and '4 pictures of other kinds' in said


def test_they_take_no_name_from_others(tmp_path):
    (tmp_path / 'a.jxl').write_bytes(b'x')
    write_as(tmp_path / 'a.png', 'png', COLOUR)
    assert [job.target.name for job in plan([str(tmp_path)]) if not job.left_out] == ['a.png']
    assert is_other_picture('a.jxl') and not is_other_picture('a.JPG') and not is_other_picture('a.txt')


@pytest.mark.parametrize('kind', ['WEBP', 'PNG', 'GIF', 'AVIF'])
def test_animations_are_for_video(kind):
    file = io.BytesIO()
    frames = [Image.fromarray(np.roll(COLOUR, i, axis=0)) for i in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match='^a: is animated, 3 frames: only .* lowlight-cyclegan video takes it$'):
        decode_image(file.getvalue(), 'a')


# JPEGs that end too early

def jpeg(**options):
    file = io.BytesIO()
    Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))).save(file, 'JPEG', quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize('options', [{}, dict(progressive=True), dict(subsampling=0)])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole(options):
    data = jpeg(**options)
    whole = decode_image(data, 'a.jpg').pixels
    assert np.array_equal(decode_image(data[:-2], 'a.jpg').pixels, whole)
    assert np.array_equal(decode_image(data + b'what a phone adds' * 99, 'a.jpg').pixels, whole)
    assert np.array_equal(whole, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize('options', [{}, dict(progressive=True), dict(subsampling=0)])
@pytest.mark.parametrize('end', [b'', b'\xff\xd9'])
@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_a_jpeg_that_ends_in_the_middle_of_its_scan_is_refused(options, end, share):
    data = jpeg(**options)
    with pytest.raises(ImageError, match='^a.jpg: is truncated: its pixels end in the middle of the picture$'):
        decode_image(data[:int(len(data) * share)] + end, 'a.jpg')


def test_a_gray_jpeg_too():
    file = io.BytesIO()
    Image.fromarray(np.kron(COLOUR[..., 0], np.ones((8, 8), np.uint8))).save(file, 'JPEG')
    data = file.getvalue()
    assert decode_image(data[:-2], 'a.jpg').pixels.shape == (192, 256)
    with pytest.raises(ImageError, match='is truncated'):
        decode_image(data[:len(data) // 2] + b'\xff\xd9', 'a.jpg')


def test_standard_output_is_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_as('a.png', 'png', COLOUR)
    assert enhance('a.png', '-o', '-') == 1
    assert capsys.readouterr().err.startswith('--output -: photos are not written to standard output')
    assert os.listdir() == ['a.png']
