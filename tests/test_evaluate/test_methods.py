import cv2
import importlib.util
import numpy as np
import pytest
import sys
import torch
from torch import nn

from lowlight_cyclegan.archs import EMAResNetGenerator, GammaCurve
from lowlight_cyclegan.enhance.denoise import denoise
from lowlight_cyclegan.enhance.enhancer import Enhancer
from lowlight_cyclegan.enhance.pretrained import build_network
from lowlight_cyclegan.evaluate.methods import Method, _fingerprint, complexity, load_method

NETWORK = dict(type='EMAResNetGenerator', num_feat=8, num_block=1, ema_factor=4)


@pytest.fixture
def run(tmp_path):
    """Folder of a training run with a checkpoint of plain and averaged weights."""
    nets = [build_network(dict(NETWORK)) for _ in range(2)]
    (tmp_path / 'models').mkdir()
    torch.save({key: net.state_dict() for key, net in zip(('params', 'params_ema'), nets)},
               tmp_path / 'models' / 'net_g_5.pth')
    (tmp_path / 'toy.yml').write_text(f'network_g: {NETWORK}\n')
    return tmp_path, nets


def method(net):
    return Method('m', Enhancer(net, 'cpu'), '')


def weights(net):
    return torch.cat([p.flatten() for p in net.parameters()])


def test_by_name():
    assert isinstance(load_method('input').enhancer.network, nn.Identity)
    gamma = load_method('gamma').enhancer.network
    assert type(gamma).__name__ == 'GammaCurve' and not gamma.training
    for name, arch in (('gain', 'ExposureGain'), ('gain+fusion', 'ExposureGainFusion')):
        assert type(load_method(name).enhancer.network).__name__ == arch


def test_from_a_run(run):
    folder, (_, averaged) = run
    method = load_method(f'ours={folder}/models/net_g_5.pth')
    network = method.enhancer.network
    assert method.label == 'ours'
    assert torch.equal(weights(network), weights(averaged))
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_run_is_built_by_the_options_it_used(run):
    """Its option file as it was written may lack what the command line changed."""
    folder, (_, averaged) = run
    text = (folder / 'toy.yml').read_text()
    (folder / 'options_used.yml').write_text(text)
    (folder / 'toy.yml').write_text(text.replace("'num_feat': 8", "'num_feat': 16"))
    network = load_method(f'ours={folder}/models/net_g_5.pth').enhancer.network
    assert torch.equal(weights(network), weights(averaged))


@pytest.mark.parametrize('text', ['SCI-easy=easy.pt', 'small=sci:easy.pt'])
def test_published_weights(lol_root, text):
    folder = lol_root.parents[1] / 'weights' / 'baselines' / 'sci'
    if not folder.is_dir():
        pytest.skip('the published weights are not at ../shared/weights/baselines')
    assert type(load_method(text.replace('easy.pt', f'{folder}/easy.pt')).enhancer.network).__name__ == 'SCI'


def test_refusals(run, refusal):
    folder, _ = run
    assert 'did you mean gammacurve?' in refusal(load_method, 'gamacurve')
    assert 'needs weights' in refusal(load_method, 'EMAResNetGenerator')
    assert 'write it as NAME' in refusal(load_method, '=x.pth')
    assert 'write it as NAME' in refusal(load_method, '+flips')
    assert 'no such file: x.pth' in refusal(load_method, 'ours=x.pth')
    assert "no published weights are known for 'scii', did you mean sci?" in refusal(
        load_method, f'a=scii:{folder}/models/net_g_5.pth')
    assert 'ZeroDCE: ' in refusal(load_method, f'Zero-DCE={folder}/models/net_g_5.pth')
    torch.save({'conv.weight': torch.zeros(1)}, folder / 'other.pth')
    assert 'is none of our generators' in refusal(load_method, f'ours={folder}/other.pth')
    (folder / 'models' / 'net_g_5.pth').write_bytes(b'broken')
    assert 'cannot be loaded as weights' in refusal(load_method, f'ours={folder}/models/net_g_5.pth')


def test_fingerprint_follows_weights_and_settings(run):
    folder, _ = run
    same = [load_method(f'{label}={folder}/models/net_g_5.pth').fingerprint for label in 'ab']
    assert same[0] == same[1]
    torch.save({'params': build_network(dict(NETWORK)).state_dict()}, folder / 'models' / 'net_g_6.pth')
    assert load_method(f'ours={folder}/models/net_g_6.pth').fingerprint != same[0]
    assert _fingerprint(GammaCurve(0.5)) != _fingerprint(GammaCurve())


def test_fingerprint_follows_code_below_a_folder_named_torch(tmp_path):
    file = tmp_path / 'torch' / 'mine.py'
    file.parent.mkdir()
    file.write_text('from torch import nn\n\n\nclass Mine(nn.Module):\n    pass\n')
    spec = importlib.util.spec_from_file_location('mine_below_torch', file)
    mine = sys.modules['mine_below_torch'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    before = _fingerprint(mine.Mine())
    file.write_text(file.read_text() + '# changed\n')
    assert _fingerprint(mine.Mine()) != before
    assert _fingerprint(nn.Identity()) == _fingerprint(nn.Identity())


def test_flips(run):
    folder, (net, _) = run
    plain, flips = (load_method(f'{label}={folder}/models/net_g_5.pth') for label in ('ours', 'ours+flips'))
    assert flips.label == 'ours+flips' and flips.fingerprint != plain.fingerprint
    img = np.random.default_rng(0).integers(0, 60, (32, 36, 3), dtype=np.uint8)
    expected = np.mean([plain.enhance(img[::v, ::h])[0][::v, ::h] for v in (1, -1) for h in (1, -1)], axis=0)
    assert np.abs(flips.enhance(img)[0] - expected).max() < 1e-3
    assert np.abs(plain.enhance(img)[0] - expected).max() > 1e-2
    params, gmacs = complexity(plain.enhancer, (32, 32))
    assert complexity(flips.enhancer, (32, 32)) == pytest.approx((params, 4 * gmacs))


def test_denoise(run):
    folder, _ = run
    plain, flips, denoised, both, other = (load_method(f'ours{suffix}={folder}/models/net_g_5.pth') for suffix in (
        '', '+flips', '+denoise', '+flips+denoise', '+denoise+flips'))
    img = np.random.default_rng(0).integers(0, 60, (32, 36, 3), dtype=np.uint8)
    x = torch.from_numpy(img[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    for before, after in ((plain, denoised), (flips, both), (flips, other)):
        y = torch.from_numpy(before.enhance(img)[0][..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
        expected = (denoise(y, x)[0].permute(1, 2, 0).numpy()[..., ::-1] + 1) * 127.5
        assert np.abs(after.enhance(img)[0] - expected).max() < 1e-2
    assert len({method.fingerprint for method in (plain, flips, denoised, both)}) == 4
    assert complexity(denoised.enhancer, (32, 32))[0] == complexity(plain.enhancer, (32, 32))[0]  # by way of gradients


def test_enhance_keeps_pixels_and_order():
    img = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    output, ms = method(nn.Identity()).enhance(img)
    assert np.abs(output - img).max() < 1e-4 and ms >= 0

    class Red(nn.Module):

        def forward(self, x):
            return x * torch.tensor([1., 0, 0]).view(1, 3, 1, 1) - torch.tensor([0, 2., 2]).view(1, 3, 1, 1)

    output = method(Red()).enhance(img)[0]
    assert np.abs(output[..., 2] - img[..., 2]).max() < 1e-4 and output[..., :2].max() == 0  # BGR, clipped


def test_complexity_counts_what_is_used():

    class Net(nn.Module):

        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 64, 3)

        def forward(self, x):
            return self.used(x)

    params, gmacs = complexity(Enhancer(Net(), 'cpu'), (10, 20))
    assert params * 1e6 == pytest.approx(3 * 3 * 9 + 3)
    assert gmacs * 1e9 == pytest.approx(10 * 20 * 3 * 3 * 9)  # a multiply and add is one
    assert all(np.isnan(complexity(Enhancer(nn.Identity(), 'cpu'), (10, 20))))


def test_paper_generator_has_its_parameters():
    net = EMAResNetGenerator()
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(13.613, abs=5e-4)
    small = build_network(dict(NETWORK))
    count = sum(p.numel() for p in small.parameters())
    assert complexity(Enhancer(small, 'cpu'), (32, 32))[0] * 1e6 == pytest.approx(count)


def test_images_are_read_as_the_toolbox_does(tmp_path, run):
    """What evaluate enhances is what the model of this project makes of the same file."""
    folder, (_, net) = run
    img = np.random.default_rng(0).integers(0, 60, (32, 36, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'x.png'), img)
    x = torch.from_numpy(cv2.imread(str(tmp_path / 'x.png'))[..., ::-1].copy()).permute(2, 0, 1)[None] / 255 * 2 - 1
    with torch.no_grad():
        expected = (net(x)[0] + 1) / 2 * 255
    output = load_method(f'ours={folder}/models/net_g_5.pth').enhance(img)[0]
    assert np.abs(output[..., ::-1].transpose(2, 0, 1) - expected.numpy()).max() < 1e-2
