"""Published methods: their key maps, and their values against transcriptions that use the published names."""
import math
import numpy as np
import pytest
import torch
from pathlib import Path
from torch.nn import functional as F

from lowlight_cyclegan.archs import RUAS, SCI, RetinexNet, ZeroDCE, load_published

CONV_NAMES = {
    # name -> (out, in, kernel), as published
    'zero_dce': {**{f'e_conv{i}': (32, {1: 3, 2: 32, 3: 32, 4: 32}.get(i, 64), 3) for i in range(1, 7)},
                 'e_conv7': (24, 64, 3)},
    'sci': {'enhance.in_conv.0': (3, 3, 3), 'enhance.conv.0': (3, 3, 3), 'enhance.blocks.0.0': (3, 3, 3),
            'enhance.out_conv.0': (3, 3, 3), 'calibrate.in_conv.0': (16, 3, 3), 'calibrate.out_conv.0': (3, 16, 3),
            **{f'calibrate.{part}.{i}': (16, 16, 3) for part in ('convs', 'blocks.0', 'blocks.1', 'blocks.2')
               for i in (0, 3)}},
    'ruas': {**{f'enhance_net.iems.{i}.cell.{edge}': (3, cin, k) for i in range(3) for edge, cin, k in (
                ('c1_r.op', 3, 1), ('c2_d.op', 3, 3), ('c2_r.op', 3, 3), ('c3_d.op', 3, 3), ('c4.op', 3, 3),
                ('c5', 12, 1))},
             **{f'denoise_net.nrms.{i}.{edge}': (6, cin, k) for i in range(3) for edge, cin, k in (
                ('c1_d.op', 6, 1), ('c1_r.op', 6, 1), ('c2_d.op', 6, 3), ('c3_d.op', 6, 1), ('c3_r.op', 6, 1),
                ('c5', 24, 1))},
             'denoise_net.stem': (6, 3, 3), 'denoise_net.activate.0': (3, 6, 3)},
    'retinexnet': {'net1_conv0': (64, 4, 9), **{f'net1_convs.{i}': (64, 64, 3) for i in (0, 2, 4, 6, 8)},
                   'net1_recon': (4, 64, 3), 'net2_conv0_1': (64, 4, 3),
                   **{f'net2_conv1_{i}': (64, 64, 3) for i in (1, 2, 3)},
                   **{f'net2_deconv1_{i}': (64, 128, 3) for i in (1, 2, 3)},
                   'net2_fusion': (64, 192, 1), 'net2_output': (1, 64, 3)},
}  # yapf: disable
NORMS = ['enhance.conv.1', 'enhance.blocks.0.1', 'calibrate.in_conv.1',
         *(f'calibrate.{part}.{i}' for part in ('convs', 'blocks.0', 'blocks.1', 'blocks.2') for i in (1, 4))]
SHARED = [('enhance.blocks.0', 'enhance.conv'), *((f'calibrate.blocks.{i}', 'calibrate.convs') for i in range(3))]
CLASSES = {'zero_dce': ZeroDCE, 'sci': SCI, 'ruas': RUAS, 'retinexnet': RetinexNet}
NAMES = list(CLASSES)


def published(name):
    """Random weights under the published names."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, (out, cin, k) in CONV_NAMES[name].items():
        state[f'{key}.weight'] = torch.randn(out, cin, k, k, generator=generator) / math.sqrt(cin * k * k)
        state[f'{key}.bias'] = 0.1 * torch.randn(out, generator=generator)
    if name == 'ruas':  # an illumination near 0.6 and a little noise
        for i in range(3):
            state[f'enhance_net.iems.{i}.cell.c5.bias'] += 1
        state['denoise_net.activate.0.weight'] *= 1e-3
    if name == 'retinexnet':
        state['net1_recon.weight'] *= 10
        state['net2_output.bias'] += 1
    if name == 'sci':
        for key in NORMS:
            width = 3 if key.startswith('enhance') else 16
            for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
                state[f'{key}.{leaf}'] = 0.5 + torch.rand(width, generator=generator)
            state[f'{key}.num_batches_tracked'] = torch.tensor(7)
        for copy, original in SHARED:
            state.update({copy + k.removeprefix(original): v for k, v in list(state.items()) if k.startswith(original)})
    return state


@pytest.fixture
def built(tmp_path):
    """Function: name -> (network loaded from published files, their weights in fp64)."""

    def build(name, **options):
        state = published(name)
        if name == 'retinexnet':
            for part in ('net1', 'net2'):
                torch.save({k: v for k, v in state.items() if k.startswith(part)}, tmp_path / f'{part}.tar')
            path = tmp_path
        else:
            path = tmp_path / f'{name}.pth'
            torch.save(state, path)
        net = load_published(name, str(path), **options)
        assert not net.training
        return net, {k: v.double() for k, v in state.items()}

    return build


def conv(w, name, x, dilation=1):
    weight = w[f'{name}.weight']
    return F.conv2d(x, weight, w[f'{name}.bias'], padding=weight.shape[2] // 2 * dilation, dilation=dilation)


def zero_dce(w, x):
    x1 = conv(w, 'e_conv1', x).relu()
    x2 = conv(w, 'e_conv2', x1).relu()
    x3 = conv(w, 'e_conv3', x2).relu()
    x4 = conv(w, 'e_conv4', x3).relu()
    x5 = conv(w, 'e_conv5', torch.cat([x3, x4], 1)).relu()
    x6 = conv(w, 'e_conv6', torch.cat([x2, x5], 1)).relu()
    r = conv(w, 'e_conv7', torch.cat([x1, x6], 1)).tanh()
    for i in range(8):
        x = x + r[:, 3 * i:3 * i + 3] * (x**2 - x)
    return x


def sci(w, x):
    features = conv(w, 'enhance.in_conv.0', x).relu()
    block = conv(w, 'enhance.conv.0', features)
    mean, var, weight, bias = (w[f'enhance.conv.1.{leaf}'].view(-1, 1, 1)
                               for leaf in ('running_mean', 'running_var', 'weight', 'bias'))
    features = features + ((block - mean) / (var + 1e-5).sqrt() * weight + bias).relu()
    illumination = x + conv(w, 'enhance.out_conv.0', features).sigmoid()
    return (x / illumination.clamp(1e-4, 1)).clamp(0, 1)


def ruas(w, x):

    def act(v):
        return torch.maximum(v, 0.05 * v)

    def neighbours(v):
        v = F.pad(v, (0, 1, 0, 1))
        return torch.stack([v[..., :-1, :-1], v[..., 1:, :-1], v[..., :-1, 1:], v[..., 1:, 1:]]).amax(0)

    for i in range(3):
        t = neighbours(x) if i == 0 else neighbours(u) - (u - x) / 2  # noqa: F821
        cell = f'enhance_net.iems.{i}.cell'
        d1, r1 = act(t), act(t + t + conv(w, f'{cell}.c1_r.op', t))
        d2, r2 = act(r1 + conv(w, f'{cell}.c2_d.op', r1, dilation=2)), act(r1 + conv(w, f'{cell}.c2_r.op', r1))
        d3, r3 = act(conv(w, f'{cell}.c3_d.op', r2)), act(2 * r2)
        t = conv(w, f'{cell}.c5', torch.cat([d1, d2, d3, act(conv(w, f'{cell}.c4.op', r3))], 1)).sigmoid()
        u = (x / t.clamp(0.001, 1)).clamp(0, 1)
    v = conv(w, 'denoise_net.stem', u)
    for i in range(3):
        cell = f'denoise_net.nrms.{i}'
        d1, r1 = act(v + conv(w, f'{cell}.c1_d.op', v)), act(2 * v + conv(w, f'{cell}.c1_r.op', v))
        d2, r2 = act(r1 + conv(w, f'{cell}.c2_d.op', r1, dilation=2)), act(2 * r1)
        d3, r3 = act(r2 + conv(w, f'{cell}.c3_d.op', r2)), act(2 * r2 + conv(w, f'{cell}.c3_r.op', r2))
        v = conv(w, f'{cell}.c5', torch.cat([d1, d2, d3, act(r3)], 1))
    return (u - conv(w, 'denoise_net.activate.0', v)).clamp(0, 1)


def retinexnet(w, x):

    def conv(name, v, stride=1):
        k = w[f'{name}.weight'].shape[2] // 2
        return F.conv2d(F.pad(v, (k, ) * 4, mode='replicate'), w[f'{name}.weight'], w[f'{name}.bias'], stride)

    def enlarge(v, like):
        rows, columns = (torch.arange(n) * m // n for n, m in zip(like.shape[2:], v.shape[2:]))
        return v[:, :, rows][:, :, :, columns]

    v = conv('net1_conv0', torch.cat([x.max(1, keepdim=True)[0], x], 1))
    for i in (0, 2, 4, 6, 8):
        v = conv(f'net1_convs.{i}', v).relu()
    v = conv('net1_recon', v).sigmoid()
    reflectance = v[:, :3]
    c0 = conv('net2_conv0_1', v)
    c1 = conv('net2_conv1_1', c0, 2).relu()
    c2 = conv('net2_conv1_2', c1, 2).relu()
    c3 = conv('net2_conv1_3', c2, 2).relu()
    d1 = conv('net2_deconv1_1', torch.cat([enlarge(c3, c2), c2], 1)).relu()
    d2 = conv('net2_deconv1_2', torch.cat([enlarge(d1, c1), c1], 1)).relu()
    d3 = conv('net2_deconv1_3', torch.cat([enlarge(d2, c0), c0], 1)).relu()
    fused = conv('net2_fusion', torch.cat([enlarge(d1, c0), enlarge(d2, c0), d3], 1))
    return (reflectance * conv('net2_output', fused)).clamp(0, 1)


@pytest.mark.parametrize('name', NAMES)
def test_published_weights_give_the_methods_values(built, name):
    net, weights = built(name)
    x = torch.rand(2, 3, 33, 42, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        expected = globals()[name](weights, x)
        assert expected.std() > 0.02 and ((expected > 0) & (expected < 1)).double().mean() > 0.2
        torch.testing.assert_close(net.double()(2 * x - 1), 2 * expected - 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize('name', NAMES)
def test_any_size_stays_in_range(name):
    torch.manual_seed(0)
    net = CLASSES[name]().eval()
    for size in ((1, 3, 17, 31), (2, 3, 32, 24)):
        y = net(torch.rand(size) * 2 - 1)
        assert y.shape == size and -1 <= y.min() and y.max() <= 1


@pytest.mark.parametrize(('name', 'count'), [('zero_dce', 79416), ('sci', 5877), ('ruas', 3438),
                                             ('retinexnet', 555205)])
def test_sizes(name, count):
    with torch.device('meta'):
        assert sum(p.numel() for p in CLASSES[name]().parameters()) == count


def test_ruas_without_denoising(built):
    net, weights = built('ruas', denoise=False)
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    for key in weights:
        if key.startswith('denoise_net.activate'):
            weights[key].zero_()
    torch.testing.assert_close(net.double()(2 * x - 1), 2 * ruas(weights, x) - 1, rtol=0, atol=1e-9)


def test_keys_of_a_parallel_run_load_too(tmp_path):
    torch.save({f'module.{k}': v for k, v in published('sci').items()}, tmp_path / 'sci.pt')
    load_published('sci', str(tmp_path / 'sci.pt'))


def test_what_is_wrong_is_one_line(tmp_path):
    (tmp_path / 'broken.pth').write_bytes(b'not weights')
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save(published('sci'), tmp_path / 'sci.pt')
    incomplete = published('zero_dce')
    incomplete.pop('e_conv3.bias')
    torch.save(incomplete, tmp_path / 'incomplete.pth')
    narrow = published('zero_dce')
    narrow['e_conv7.weight'] = narrow['e_conv7.weight'][:3]
    torch.save(narrow, tmp_path / 'narrow.pth')
    torch.save({k: v for k, v in published('retinexnet').items() if k.startswith('net1')}, tmp_path / 'Decom.tar')
    (tmp_path / 'twice').mkdir()
    for name in ('a.tar', 'b.tar'):
        torch.save(published('retinexnet'), tmp_path / 'twice' / name)
    (tmp_path / 'empty').mkdir()
    for name, path, said in [
        ('zero_dce', 'none.pth', 'cannot be loaded'), ('zero_dce', 'broken.pth', 'cannot be loaded'),
        ('zero_dce', 'list.pth', 'holds no weights'), ('zero_dce', 'sci.pt', "unknown key 'enhance"),
        ('zero_dce', 'incomplete.pth', 'convs.2.bias'), ('zero_dce', 'narrow.pth', 'convs.6.weight'),
        ('retinexnet', 'Decom.tar', 'relight.first.weight'), ('retinexnet', 'twice', 'name the files to load'),
        ('sci', 'empty', 'no weights (.pt'), ('zerodce', 'sci.pt', "no method 'zerodce'")
    ]:
        with pytest.raises(SystemExit) as stop:
            load_published(name, str(tmp_path / path))
        line = str(stop.value)
        assert said in line and '\n' not in line and len(line) < 800, line


def test_option_file_names_methods_that_exist(tmp_path, write_images):
    """The network of test_lol_baselines.yml and those in its comments, as a run checks them."""
    import yaml

    import lowlight_cyclegan
    lowlight_cyclegan.register()
    from lowlight_cyclegan import config, preflight
    file = Path(config.options_dir()) / 'test_lol_baselines.yml'
    opt = config.load_options(str(file))
    opt['val']['metrics'].pop('lpips')  # whose weights may not be here
    for key in ('lq', 'gt'):
        opt['datasets']['test'][f'dataroot_{key}'] = str(write_images(tmp_path / key, 2))
    blocks, lines = [opt['network_g']], []
    for line in file.read_text().splitlines():
        if line.startswith('#   ') and 'python' not in line:
            lines.append(line[1:])
        elif lines:
            blocks.append(yaml.safe_load('\n'.join(lines)))
            lines = []
    names = [block['type'] for block in blocks]
    assert names == ['GammaCurve', 'CLAHE', 'LIME', 'ZeroDCE', 'SCI', 'RUAS', 'RetinexNet']
    for block in blocks:
        problems = list(preflight._problems({**opt, 'network_g': block}, is_train=False))
        paths = block.get('load_path', [])
        paths = [paths] if isinstance(paths, str) else paths
        assert problems == [f'network_g:load_path: no such file: {path}' for path in paths]
    problems = list(preflight._problems({**opt, 'network_g': {'type': 'SCI'}}, is_train=False))
    assert problems == ['path:pretrain_network_g: is missing, there is nothing to test']


@pytest.mark.full
@pytest.mark.parametrize(('name', 'path', 'expected'), [
    ('zero_dce', 'zero_dce/Epoch99.pth', 14.861), ('sci', 'sci/medium.pt', 14.854), ('sci', 'sci/difficult.pt', 13.869),
    ('ruas', 'ruas/lol.pt', 16.446), ('retinexnet', 'retinexnet', 17.611)])
def test_psnr_on_lol(lol_root, name, path, expected):
    """Mean over the 15 test pairs, as measured with the authors' code."""
    import cv2

    from lowlight_cyclegan.metrics import calculate_psnr_fast
    weights = lol_root.parents[1] / 'weights' / 'baselines' / path
    if not weights.exists():
        pytest.skip(f'no published weights at {path}')
    net, values = load_published(name, str(weights)), []
    for file in sorted((lol_root / 'eval15' / 'low').iterdir()):
        low, high = (cv2.imread(str(f)) for f in (file, lol_root / 'eval15' / 'high' / file.name))
        x = torch.from_numpy(low[..., ::-1].transpose(2, 0, 1) / np.float32(127.5) - 1).unsqueeze(0)
        with torch.inference_mode():
            y = ((net(x)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        values.append(calculate_psnr_fast(y[..., ::-1], high, 0))
    assert len(values) == 15 and np.mean(values) == pytest.approx(expected, abs=0.05)
