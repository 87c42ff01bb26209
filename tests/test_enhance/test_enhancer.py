import io
import numpy as np
import pytest
import subprocess
import sys
import torch
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image, ImageCms, ImageOps
from torch import nn

from lowlight_cyclegan import Enhancer
from lowlight_cyclegan.archs import EMAResNetGenerator
from lowlight_cyclegan.enhance.blend import blend
from lowlight_cyclegan.enhance.modes import DIRECT_PIXELS, memory_needed
from lowlight_cyclegan.enhance.denoise import denoise

ROOT = Path(__file__).resolve().parents[2]


class Doubler(nn.Module):
    """Doubles the light of [0, 1] pictures, so that right answers are known."""

    def forward(self, x):
        self.seen = x
        return ((x + 1) / 2 * 2).clamp(0, 1) * 2 - 1


@pytest.fixture
def doubler():
    return Enhancer(Doubler(), device='cpu', precision='fp32')


@pytest.mark.parametrize('shape', [
    (40, 50), (40, 50, 1), (40, 50, 2), (40, 50, 3), (40, 50, 4), (2, 40, 50, 3), (1, 1), (5, 7, 3)])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32', 'float64', 'float16'])
def test_arrays(doubler, shape, dtype):
    rng = np.random.default_rng(0)
    top = {'uint8': 127, 'uint16': 32767}.get(dtype, 0.5)
    image = (rng.random(shape) * top).astype(dtype)
    result = doubler.enhance(image)
    assert result.dtype == image.dtype and result.shape == image.shape
    alpha = len(shape) > 2 and shape[-1] in (2, 4)
    expected = image * 2
    if alpha:
        expected[..., -1] = image[..., -1]
        np.testing.assert_array_equal(result[..., -1], image[..., -1])
    np.testing.assert_allclose(result.astype(float), expected.astype(float), atol=1 if 'int' in dtype else 2e-3)


def test_arrays_with_negative_strides(doubler):
    image = np.random.default_rng(0).integers(0, 127, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(doubler.enhance(image[::-1, :, ::-1]), doubler.enhance(image)[::-1, :, ::-1])


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA', 'P', 'CMYK', '1', 'HSV'])
def test_pil(doubler, mode):
    image = Image.new('RGB', (50, 40), (20, 40, 60)).convert(mode)
    result = doubler.enhance(image)
    assert result.size == (50, 40) and result.mode == (mode if mode in ('L', 'LA', 'RGB', 'RGBA') else 'RGB')
    expected = np.asarray(image.convert('RGB')).astype(int) * 2
    assert np.abs(np.asarray(result.convert('RGB')) - expected.clip(0, 255)).max() <= 2


@pytest.mark.parametrize('mode, dtype', [('I;16', '<u2'), ('I;16L', '<u2'), ('I;16B', '>u2'), ('I', '<i4')])
def test_pil_of_16_bits_keeps_them(doubler, mode, dtype):
    values = np.random.default_rng(0).integers(0, 32768, (40, 50)).astype(dtype)
    image = Image.frombytes(mode, (50, 40), values.tobytes())
    for strength, factor in ((0, 1), (1, 2)):
        result = doubler.enhance(image, strength)
        assert result.mode == mode and result.size == (50, 40)
        np.testing.assert_allclose(np.frombuffer(result.tobytes(), dtype).reshape(40, 50), values * factor, atol=1)


def stored(form, image, **options):
    """As Pillow reads it from a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return Image.open(file)


@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('strength', [0, 1])
def test_pil_metadata_stays(doubler, form, strength):
    exif = Image.Exif()
    exif[0x10F], exif[0x112] = 'maker', 6  # turned by 90 degrees
    exif[0x8769], exif[0x8825] = {0x9003: '2024:05:01 12:30:45'}, {1: 'N'}
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    image = stored(form, Image.new('RGB', (50, 40), (20, 40, 60)), exif=exif.tobytes(), icc_profile=icc)
    result = doubler.enhance(image, strength)
    again = stored('JPEG', result, exif=result.getexif(), icc_profile=result.info['icc_profile'])
    found = again.getexif()
    assert again.info['icc_profile'] == icc and found[0x10F] == 'maker' and 0x111 not in found
    assert found.get_ifd(0x8769)[0x9003] == '2024:05:01 12:30:45' and found.get_ifd(0x8825)[1] == 'N'
    assert ImageOps.exif_transpose(again).size == (40, 50)  # as an eye sees it; of a TIFF Pillow turns the pixels


def test_pil_profile_of_other_pixels_is_dropped(doubler):
    cmyk = b'\0' * 16 + b'CMYK' + b'\0' * 108
    image = Image.new('CMYK', (50, 40))
    image.info.update(icc_profile=cmyk, dpi=(300, 300), transparency=0)
    assert doubler.enhance(image).info == {'dpi': (300, 300)}


@pytest.mark.parametrize('shape', [(3, 40, 50), (2, 3, 40, 50), (1, 40, 50), (4, 40, 50)])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32, torch.bfloat16])
def test_tensors(doubler, shape, dtype):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) / 2
    image = (image * 255).to(dtype) if dtype == torch.uint8 else image.to(dtype)
    result = doubler.enhance(image)
    assert result.dtype == dtype and result.shape == image.shape
    expected = image.float() * 2
    if shape[-3] == 4:
        expected[3] = image[3].float()
    assert (result.float() - expected).abs().max() <= (1 if dtype == torch.uint8 else 0.02)


def test_lists_and_call(doubler):
    images = [np.zeros((40, 50, 3), np.uint8), Image.new('L', (33, 44))]
    results = doubler(images)
    assert results[0].shape == (40, 50, 3) and results[1].size == (33, 44)


def test_strength_blends_light():
    low, enhanced = torch.full((1, 3, 2, 2), 0.02), torch.full((1, 3, 2, 2), 0.5)
    assert torch.equal(blend(low, enhanced, 0), low) and torch.equal(blend(low, enhanced, 1), enhanced)
    # by hand, IEC 61966-2-1: 0.02 / 12.92 and ((0.5 + 0.055) / 1.055) ** 2.4 = 0.21404
    light = (0.02 / 12.92 + 0.214041) / 2
    assert abs(blend(low, enhanced, 0.5)[0, 0, 0, 0].item() - (1.055 * light**(1 / 2.4) - 0.055)) < 1e-4
    strengths = [blend(low, enhanced, s).mean().item() for s in (0, 0.001, 0.3, 0.7, 0.999, 1)]
    assert strengths == sorted(strengths)


def test_strength_zero_is_the_input(doubler):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(doubler.enhance(image, strength=0), image)


def test_callers_pictures_stay_as_they_are(doubler):
    array = np.random.default_rng(0).random((40, 50), np.float32) / 2
    for image in (array, torch.from_numpy(array)[None]):
        for strength, mode in ((0, 'direct'), (0.5, 'direct'), (1, 'guided')):
            before = image.copy() if image is array else image.clone()
            result = doubler.enhance(image, strength, mode)
            assert (image == before).all() and (result != image).any() == bool(strength)
            result[:] = 0
            assert (image == before).all()


def test_batches_take_the_memory_of_one_picture(doubler, monkeypatch):
    monkeypatch.setitem(DIRECT_PIXELS, 'cpu', 2 * 40 * 50)
    images = np.random.default_rng(0).integers(0, 127, (5, 40, 50, 3), dtype=np.uint8)
    result = doubler.enhance(images)
    assert doubler.network.seen.shape[0] == 1  # after two times two
    np.testing.assert_array_equal(result, np.stack(doubler.enhance(list(images))))


@pytest.mark.full
def test_large_pictures_are_not_copied_needlessly():
    code = """import numpy, resource; from lowlight_cyclegan import Enhancer
image, enhancer = numpy.full((3000, 4000, 3), 20, numpy.uint8), Enhancer.from_pretrained('lite', device='cpu')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert enhancer.enhance_with_report(image, 0.5).mode == 'guided'
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))"""
    taken = int(subprocess.check_output([sys.executable, '-c', code], text=True, cwd=ROOT))
    # as floating point: the picture and its output; the coefficients of mode guided, the network and what it loads
    assert taken < 5 * 4 * 3 * 3000 * 4000


@pytest.mark.parametrize('mode', ['direct', 'guided'])
def test_self_ensemble_is_the_mean_over_flips(mode):
    """Of what the same enhancer makes without it, in every mode; strength blends the mean."""
    torch.manual_seed(0)
    network = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    plain, ensemble = (Enhancer(network, device='cpu', precision='fp32', mode=mode, self_ensemble=flips)
                       for flips in (False, True))
    image = torch.rand(3, 48, 40, generator=torch.Generator().manual_seed(0)) / 4
    outputs = [plain.enhance(image.flip(dims)).flip(dims) for dims in ((), (1, ), (2, ), (1, 2))]
    assert (outputs[0] - outputs[3]).abs().max() > 0.01
    mean = sum(outputs) / 4
    result = ensemble.enhance_with_report(image)
    torch.testing.assert_close(result.image, mean)
    torch.testing.assert_close(ensemble.enhance(image, 0.4), blend(image, mean, 0.4))
    assert result.mode == mode and result.reason == 'asked for'


def test_self_ensemble_goes_on_in_the_mode_that_memory_allows():
    calls = []

    class TooLarge(nn.Module):

        def forward(self, x):
            calls.append(x.shape[2:])
            if x.shape[2] > 600:
                raise MemoryError
            return x

    enhancer = Enhancer(TooLarge(), device='cpu', precision='fp32', mode='direct', self_ensemble=True)
    image = torch.full((3, 1200, 30), 0.25)
    result = enhancer.enhance_with_report(image)
    torch.testing.assert_close(result.image, image, atol=1e-3, rtol=0)
    assert [max(shape) > 600 for shape in calls] == [True, False, False, False, False]  # tried once, not four times
    assert result.mode == 'guided' and result.reason == 'memory ran out in mode direct'


@pytest.mark.parametrize('mode', ['direct', 'guided'])
@pytest.mark.parametrize('flips', [False, True])
def test_denoise_takes_the_photo_as_its_guide(mode, flips):
    torch.manual_seed(0)
    network = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4)
    plain, enhancer = (
        Enhancer(network, device='cpu', precision='fp32', mode=mode, self_ensemble=flips, denoise=strength)
        for strength in (0, 0.5))
    image = torch.rand(3, 40, 700) / 4
    expected = denoise(plain.enhance(image)[None] * 2 - 1, image[None] * 2 - 1, 0.5)[0] / 2 + 0.5
    torch.testing.assert_close(enhancer.enhance(image), expected, atol=1e-5, rtol=0)
    assert (expected - plain.enhance(image)).abs().max() > 1e-2


class Stops(nn.Module):
    """Takes any size, uint8 and the strength: multiplies by two to the power of what it predicts."""
    handles_any_size = True

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.applied = []

    def thumbnail(self, x):
        return x.float().mean((2, 3))

    def predict(self, thumbnail):
        return thumbnail.new_ones(len(thumbnail), 1, 1, 1)

    def apply(self, x, curve=None, strength=1.0):
        if callable(x):
            return super().apply(x)
        self.applied.append((tuple(x.shape), strength))
        if x.dtype == torch.uint8:
            return (x * 2**(curve * strength)).clamp(0, 255).round().to(torch.uint8)
        return ((x + 1) / 2 * 2**(curve * strength)).clamp(0, 1) * 2 - 1


@pytest.mark.parametrize('options', [{}, {'self_ensemble': True}, {'denoise': 1e-6}], ids=str)
def test_a_network_that_takes_any_size_runs_in_one_piece_with_the_strength(options):
    enhancer = Enhancer(Stops(), device='cpu', max_memory=0, **options)
    image = np.random.default_rng(0).integers(0, 50, (1100, 1000, 3), dtype=np.uint8)
    for strength in (0.5, 1, 2):
        result = enhancer.enhance_with_report(image, strength)
        assert result.mode == 'direct' and 'any size' in result.reason
        assert enhancer.network.applied[-1] == ((1, 3, 1100, 1000), strength)
        np.testing.assert_allclose(result.image, image * 2.0**strength, atol=1)
    np.testing.assert_array_equal(enhancer.enhance(image, 0), image)
    result = enhancer.enhance_with_report(image[:40, :40], 1, adapt=lambda thumbnail, curve: curve * 0 + 1.5)
    np.testing.assert_allclose(result.image, image[:40, :40] * 2.0**1.5, atol=1)
    with pytest.raises(ValueError, match='strength is from 0 to 2, got 2.5'):
        enhancer.enhance(image, 2.5)


@pytest.mark.parametrize('mode', ['direct', 'guided'])
def test_what_is_predicted_can_be_adapted_in_every_mode(mode):
    torch.manual_seed(0)
    network = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, head='gain')
    enhancer, image = Enhancer(network, device='cpu', mode=mode), torch.rand(3, 48, 40) / 4
    plain = enhancer.enhance(image)
    same = enhancer.enhance_with_report(image, adapt=lambda thumbnail, curve: curve).image
    torch.testing.assert_close(same, plain, rtol=0, atol=1e-5)
    brighter = enhancer.enhance_with_report(image, adapt=lambda thumbnail, curve: (curve[0] * 1.2, *curve[1:])).image
    assert brighter.mean() / plain.mean() == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize('flips', [False, True])
def test_threads_share_an_enhancer(flips):
    """One runs in another mode than the other: neither changes what the other gets."""
    torch.manual_seed(0)
    network = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    enhancer = Enhancer(network, device='cpu', self_ensemble=flips)
    image = torch.rand(3, 64, 700, generator=torch.Generator().manual_seed(0)) / 4
    expected = {mode: enhancer.enhance(image, mode=mode) for mode in ('direct', 'guided')}
    assert (expected['direct'] - expected['guided']).abs().max() > 0.05
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda mode: enhancer.enhance_with_report(image, mode=mode), list(expected) * 4))
    for mode, result in zip(list(expected) * 4, found):
        assert result.mode == mode and torch.equal(result.image, expected[mode])


def test_auto_counts_what_self_ensemble_and_denoise_hold():
    network, image = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4), torch.rand(3, 64, 700) / 4
    budget = memory_needed('direct', 64, 700, net=network) + 12 * 64 * 700 * 2
    modes = [Enhancer(network, 'cpu', max_memory=budget, self_ensemble=flips, denoise=denoise)
             .enhance_with_report(image).mode for flips, denoise in ((True, 0), (False, 0.5), (True, 0.5))]
    assert modes[:2] == ['direct', 'direct'] and modes[2] != 'direct'


def test_small_pictures_are_extended(doubler):
    doubler.enhance(np.zeros((1, 3, 3), np.uint8))
    assert doubler.network.seen.shape == (1, 3, 32, 32)


def test_refusals(doubler):
    with pytest.raises(ValueError, match='strength is from 0 to 1'):
        doubler.enhance(np.zeros((40, 50), np.uint8), strength=1.5)
    with pytest.raises(ValueError, match='did you mean direct'):
        doubler.enhance(np.zeros((40, 50), np.uint8), mode='dirct')
    with pytest.raises(ValueError, match='did you mean bf16'):
        Enhancer(Doubler(), precision='fb16')
    with pytest.raises(ValueError, match='denoise is from 0 to 1, got 2'):
        Enhancer(Doubler(), denoise=2)
    with pytest.raises(ValueError, match='^device abacus: .*$'):
        Enhancer(Doubler(), device='abacus')
    with pytest.raises(ValueError, match='weights hold values that are not finite'):
        broken = Stops()
        torch.nn.init.constant_(broken.weight, torch.nan)
        Enhancer(broken)
    with pytest.raises(TypeError, match='got int64'):
        doubler.enhance(np.zeros((40, 50), np.int64))
    with pytest.raises(TypeError, match='got str'):
        doubler.enhance('photo.jpg')
    for shape in ((40,), (40, 50, 5), (0, 50, 3)):
        with pytest.raises(ValueError, match='got'):
            doubler.enhance(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match='not finite'):
        doubler.enhance(np.full((40, 50), np.nan, np.float32))
    with pytest.raises(ValueError, match='from_pretrained'):
        doubler.save_pretrained('x.safetensors')


def test_lite_brightens_and_keeps_structure(tmp_path):
    from skimage import data
    image = (data.astronaut()[:200, 100:330] * 0.1).astype(np.uint8)
    enhancer = Enhancer.from_pretrained('lite', device='cpu')
    result = enhancer.enhance(image)
    assert result.shape == image.shape and result.mean() > 3 * image.mean()
    assert np.corrcoef(result.mean(2).ravel(), image.mean(2).ravel())[0, 1] > 0.85
    for name in ('copy.safetensors', 'folder'):
        enhancer.save_pretrained(tmp_path / name)
        again = Enhancer.from_pretrained(tmp_path / name, device='cpu')
        np.testing.assert_array_equal(again.enhance(image), result)


def test_push_to_hub_sends_what_from_pretrained_reads(tmp_path, monkeypatch):
    import shutil
    import huggingface_hub

    class Api(huggingface_hub.HfApi):

        def create_repo(self, repo_id, **_):
            return type('Url', (), {'repo_id': repo_id})

        def upload_folder(self, folder_path, **_):
            shutil.copytree(folder_path, tmp_path / 'sent')

    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    enhancer = Enhancer.from_pretrained('lite', device='cpu')
    enhancer.push_to_hub('someone/lite')
    image = np.full((40, 50, 3), 20, np.uint8)
    again = Enhancer.from_pretrained(tmp_path / 'sent', device='cpu')
    np.testing.assert_array_equal(again.enhance(image), enhancer.enhance(image))
