import cv2
import lpips
import numpy as np
import pytest
import torch
import torchvision
from basicsr.metrics import calculate_metric
from pathlib import Path

from lowlight_cyclegan.metrics import build_lpips, calculate_lpips
from lowlight_cyclegan.metrics import lpips_metric as module

SHARED = Path(__file__).resolve().parents[2].parent / 'shared'
EVAL15 = SHARED / 'data' / 'LOLv1' / 'eval15'
ALEX = SHARED / 'weights' / 'lpips_alexnet_features.pth'


@pytest.fixture(scope='module')
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, 72, 80, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def trunk_file(tmp_path_factory):
    """Maker of files with random weights in torchvision's layout."""
    made = {}

    def make(net):
        if net not in made:
            torch.manual_seed(0)
            name = {'alex': 'alexnet', 'vgg': 'vgg16', 'squeeze': 'squeezenet1_1'}[net]
            features = getattr(torchvision.models, name)(weights=None).features
            path = tmp_path_factory.mktemp('trunk') / f'{net}.pth'
            torch.save({f'features.{key}': value for key, value in features.state_dict().items()}, path)
            made[net] = str(path), features
        return made[net]

    return make


@pytest.mark.filterwarnings('ignore:The parameter', 'ignore:Arguments other')
@pytest.mark.parametrize('net', ['alex', 'squeeze'])
def test_value_against_lpips_itself(net, trunk_file, pictures):
    path, features = trunk_file(net)
    reference = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for part in (part for name, part in reference.net.named_children() if name.startswith('slice')):
        for number, layer in part.named_children():
            layer.load_state_dict(features[int(number)].state_dict())
    first, second = (torch.from_numpy(p[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1 for p in pictures)
    with torch.no_grad():
        expected = reference(first, second).item()
        cropped = reference(first[..., 4:-4, 4:-4], second[..., 4:-4, 4:-4]).item()
    assert expected > 1e-3
    assert calculate_lpips(*pictures, 0, net=net, trunk=path) == pytest.approx(expected, rel=1e-4)
    assert calculate_lpips(*pictures, 4, net=net, trunk=path) == pytest.approx(cropped, rel=1e-4)
    chw = [p.transpose(2, 0, 1) for p in pictures]
    assert calculate_lpips(*chw, 0, input_order='CHW', net=net, trunk=path) == pytest.approx(expected, rel=1e-4)
    assert calculate_lpips(pictures[0], pictures[0], 0, net=net, trunk=path) == 0


def test_called_through_basicsr(trunk_file, pictures):
    path, _ = trunk_file('alex')
    opt = {'type': 'calculate_lpips', 'net': 'alex', 'trunk': path, 'crop_border': 0, 'better': 'lower'}
    value = calculate_metric({'img': pictures[0], 'img2': pictures[1]}, opt)
    assert value == calculate_lpips(*pictures, 0, trunk=path) and type(value) is float


def test_built_once_without_touching_the_random_numbers(trunk_file):
    path, _ = trunk_file('alex')
    build_lpips.cache_clear()
    state = torch.get_rng_state()
    model = build_lpips('alex', path, 'cpu')
    assert torch.equal(state, torch.get_rng_state())
    assert build_lpips('alex', path, 'cpu') is model and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_mistakes_get_one_line(trunk_file, pictures, tmp_path):
    alex, squeeze = trunk_file('alex')[0], trunk_file('squeeze')[0]
    text = tmp_path / 'text.pth'
    text.write_text('not weights')
    for net, trunk, message in (
        ('alexnet', alex, "net 'alexnet' is unknown; use one of alex, vgg, squeeze"),
        ('alex', str(tmp_path / 'absent.pth'), r"trunk '.*absent\.pth' cannot be loaded"),
        ('alex', str(text), r"trunk '.*text\.pth' cannot be loaded"),
        ('alex', squeeze, 'does not hold the alex trunk'),
        ('squeeze', alex, 'does not hold the squeeze trunk'),
    ):
        with pytest.raises(ValueError, match=message) as error:
            calculate_lpips(*pictures, 0, net=net, trunk=trunk)
        assert '\n' not in str(error.value)


def test_offline_without_weights_says_which_file_to_put_where(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError('network is unreachable')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    build_lpips.cache_clear()
    with pytest.raises(ValueError) as error:
        calculate_lpips(*pictures, 0)
    line = str(error.value)
    assert str(tmp_path / 'checkpoints' / 'alexnet-owt-7be5be79.pth') in line and 'option trunk' in line
    assert 'network is unreachable' in line and '\n' not in line


def test_weights_in_the_download_folder_are_used(trunk_file, pictures, tmp_path, monkeypatch):
    path, _ = trunk_file('squeeze')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / 'squeezenet1_1-b8a52dc0.pth').write_bytes(Path(path).read_bytes())
    build_lpips.cache_clear()
    assert calculate_lpips(*pictures, 0, net='squeeze') == calculate_lpips(*pictures, 0, net='squeeze', trunk=path)
    build_lpips.cache_clear()


def test_every_trunk_has_a_download():
    for net, name in module._TRUNKS.items():
        assert torchvision.models.get_weight(name).url.endswith('.pth'), net


@pytest.mark.skipif(not (EVAL15.is_dir() and ALEX.is_file()), reason='LOL eval15 and the AlexNet trunk are not there')
def test_published_value_on_lol():
    names = sorted(path.name for path in (EVAL15 / 'low').iterdir())
    values = [calculate_lpips(*(cv2.imread(str(EVAL15 / part / name)) for part in ('low', 'high')), 0, trunk=str(ALEX))
              for name in names]
    assert len(values) == 15 and np.mean(values) == pytest.approx(0.560, abs=6e-4)
