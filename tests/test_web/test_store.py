import errno
import io
import numpy as np
import os
import pytest
import time
import torch
from PIL import Image

from lowlight_cyclegan.enhance.enhancer import Enhancer
from lowlight_cyclegan.photos.color import PRIMARIES, profile
from lowlight_cyclegan.photos.formats import ImageError
from lowlight_cyclegan.photos.read import read_image
from lowlight_cyclegan.web.store import Photos, _blend, _size

from web_client import MAKER, Brightening, photo_bytes


@pytest.fixture
def photos(tmp_path):
    return Photos(tmp_path, max_pixels=10**6)


@pytest.fixture
def upload(tmp_path_factory):

    def write(name='night.jpg', **kwargs):
        path = tmp_path_factory.mktemp('upload') / name
        path.write_bytes(photo_bytes(**kwargs))
        return path

    return write


class TestPhotos:

    @pytest.mark.parametrize('name, mode, kind', [
        ('night.jpg', 'RGB', 'JPEG'), ('night.jpg', 'L', 'JPEG'), ('night.png', 'RGBA', 'PNG'),
        ('night.png', 'LA', 'PNG'), ('night.webp', 'RGB', 'WEBP')])
    def test_downloads_full_size_with_metadata(self, photos, upload, name, mode, kind):
        path = upload(name, size=(1700, 500), mode=mode, kind=kind)
        enhancer = Brightening()
        token, size, _ = photos.add(path, enhancer)
        before = read_image(path)
        result_name, data = photos.encode(token, 100)
        (photos.root / result_name).write_bytes(data)
        after = read_image(photos.root / result_name)
        assert size == before.size
        assert result_name == name.replace('.', '_enhanced.')
        assert after.pixels.shape == before.pixels.shape
        expected = enhancer.enhance(before.pixels)
        assert abs(after.pixels.astype(int) - expected).mean() < (0.1 if kind == 'PNG' else 4)
        assert (after.exif, after.icc) == (before.exif, before.icc)
        assert Image.open(io.BytesIO(data)).getexif()[MAKER] == 'Maker'

    def test_16_bits_stay(self, photos, tmp_path):
        path = tmp_path / 'deep.png'
        pixels = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) * 5
        Image.fromarray(pixels).save(path)
        token, _, _ = photos.add(path, Brightening(2))
        (tmp_path / 'out.png').write_bytes(photos.encode(token, 100)[1])
        assert np.array_equal(read_image(tmp_path / 'out.png').pixels, pixels * 2)
        assert Image.open(photos.preview(token, 50)[1]).size == (40, 48)

    @pytest.mark.parametrize('name, kind, mode', [
        ('named.jpg', 'PNG', 'RGBA'), ('named.jpg', 'PNG', 'LA'), ('named.bmp', 'WEBP', 'RGBA')])
    def test_the_download_has_a_format_that_holds_the_photo(self, photos, upload, name, kind, mode):
        path = upload(name, kind=kind, mode=mode, alpha=120)
        token, _, _ = photos.add(path, Brightening())
        for strength in (0, 40, 100):
            result_name, data = photos.encode(token, strength)
            assert result_name == 'named_enhanced.png'
            result = Image.open(io.BytesIO(data))
            assert result.format == 'PNG' and result.mode == mode
            assert set(np.asarray(result)[..., -1].ravel()) == {120}

    def test_opaque_alpha_keeps_the_format(self, photos, upload):
        token, _, _ = photos.add(upload('named.jpg', kind='PNG', mode='RGBA'), Brightening())
        assert photos.encode(token, 100)[0] == 'named_enhanced.jpg'

    def test_the_network_sees_srgb_and_the_download_has_the_colours_of_the_upload(self, photos, tmp_path):
        linear = profile(PRIMARIES[1], gamma=1.0)
        pixels = np.full((40, 50, 3), 20, np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'linear.png', icc_profile=linear)
        seen = []

        class Watching(Brightening):

            def enhance(self, image):
                seen.append(image)
                return super().enhance(image)

        token, _, _ = photos.add(tmp_path / 'linear.png', Watching(2))
        srgb = 1.055 * (20 / 255)**(1 / 2.4) - 0.055
        assert np.allclose(seen[0] / 65535, srgb, atol=0.002)
        before, after = map(Image.open, photos.preview(token, 100))
        assert abs(np.asarray(before).mean() - srgb * 255) < 3
        assert abs(np.asarray(after).mean() - min(2 * srgb, 1) * 255) < 3
        assert Image.open(io.BytesIO(photos.encode(token, 0)[1])).info['icc_profile'] == linear
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(photos.encode(token, 0)[1]))), pixels)
        expected = ((2 * srgb + 0.055) / 1.055)**2.4
        result = np.asarray(Image.open(io.BytesIO(photos.encode(token, 100)[1])))
        assert np.allclose(result / 255, expected, atol=0.01)

    def test_previews_are_reduced_and_differ_in_strength(self, photos, upload):
        token, _, _ = photos.add(upload(size=(3200, 40)), Brightening())
        means = []
        for strength in (0, 40, 100):
            before, after = map(Image.open, photos.preview(token, strength))
            assert before.size == after.size == (1600, 20)
            means.append(np.asarray(after).mean())
        assert means[0] == np.asarray(before).mean() < means[1] - 5 < means[2] - 10

    @pytest.mark.parametrize('shape', [(300, 7), (5, 6, 3), (600, 5, 4), (9, 8, 2)])
    @pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
    def test_blends_as_the_enhancer_does(self, shape, dtype):
        rng = np.random.default_rng(0)
        low = rng.integers(0, np.iinfo(dtype).max // 4, shape, dtype=dtype)
        enhancer = Enhancer(torch.nn.Tanh(), device='cpu', mode='direct')  # any function
        expected = enhancer.enhance(low, strength=0.35)
        assert np.abs(_blend(low, enhancer.enhance(low), 0.35).astype(int) - expected).max() <= 1

    def test_refuses_with_one_line(self, photos, upload, tmp_path):
        for name, data, words in (('a.jpg', b'', 'a.jpg: is empty'), ('b.jpg', b'hello', 'b.jpg: holds no image'),
                                  ('c.jpg', photo_bytes()[:900], 'c.jpg: '),
                                  ('d.jpg', photo_bytes((1001, 1000)), 'd.jpg: 1001x1000')):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(ImageError, match=f'^{words}.*$'):
                photos.add(tmp_path / name, Brightening())
        assert not [path for path in photos.root.iterdir() if path.is_dir()]

    def test_removes_what_is_not_used(self, photos, upload):
        tokens = [photos.add(upload(), Brightening())[0] for _ in range(3)]
        (photos.root / 'tmp_of_gradio').touch()
        for entry in photos.root.iterdir():
            os.utime(entry, (0, time.time() - 100))
        photos.preview(tokens[1], 100)
        photos.sweep(age=50)
        assert [path.name for path in photos.root.iterdir()] == [tokens[1]]
        photos.remove(tokens[1])
        photos.remove(tokens[1])
        assert not list(photos.root.iterdir())

    def test_removes_the_oldest_when_space_is_short(self, photos, upload):
        tokens = []
        for i in range(4):
            tokens.append(photos.add(upload(), Brightening())[0])
            os.utime(photos.root / tokens[-1], (0, i))
        photos.max_bytes = 2.5 * _size(photos.root / tokens[0])
        photos.shrink()
        assert {path.name for path in photos.root.iterdir()} == set(tokens[2:])

    def test_a_photo_that_is_being_removed_is_gone(self, photos, upload):
        token, _, _ = photos.add(upload(), Brightening())
        next((photos.root / token / 'original').iterdir()).unlink()
        for function in (lambda: photos.encode(token, 100), lambda: photos.original(token)):
            with pytest.raises(FileNotFoundError):
                function()

    def test_a_full_disk_leaves_no_part_of_a_photo(self, photos, upload, monkeypatch):
        token, _, _ = photos.add(upload(), Brightening())
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def fail(*args, **kwargs):
            raise full

        with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left'):
            patch.setattr(np, 'savez', fail)
            photos.add(upload(), Brightening())
        assert [path.name for path in photos.root.iterdir()] == [token]
        with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left'):
            patch.setattr(os, 'replace', fail)
            photos.preview(token, 40)
        assert not list((photos.root / token).glob('*.webp')) + list((photos.root / token).glob('.*'))
        assert Image.open(photos.preview(token, 40)[1]).size == (90, 60)

    @pytest.mark.parametrize('token', [None, '', '..', '../..', 'a' * 32, 'original'])
    def test_knows_only_its_tokens(self, photos, token):
        with pytest.raises(FileNotFoundError):
            photos.encode(token, 100)
