"""Published methods: their key maps, and their values against transcriptions that use the published names."""
import math
import pytest
import torch
from torch.nn import functional as F

from lowlight_cyclegan.archs import RUAS, SCI, RetinexNet, ZeroDCE

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


def built(name, **options):
    """(The network with these weights, the weights in fp64)."""
    state = published(name)
    net = CLASSES[name](**options).eval()
    net.load_state_dict(net.convert(state))
    return net, {k: v.double() for k, v in state.items()}


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
def test_published_weights_give_the_methods_values(name):
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


@pytest.mark.parametrize(('name', 'count'), [('zero_dce', 79416), ('sci', 258), ('ruas', 3438),
                                             ('retinexnet', 555205)])
def test_sizes(name, count):
    with torch.device('meta'):
        assert sum(p.numel() for p in CLASSES[name]().parameters()) == count


def test_ruas_without_denoising():
    net, weights = built('ruas', denoise=False)
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    for key in weights:
        if key.startswith('denoise_net.activate'):
            weights[key].zero_()
    torch.testing.assert_close(net.double()(2 * x - 1), 2 * ruas(weights, x) - 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize('name', NAMES)
def test_keys_of_a_parallel_run_fit_and_foreign_ones_do_not(name):
    state = published(name)
    net = CLASSES[name]()
    net.load_state_dict(net.convert({f'module.{k}': v for k, v in state.items()}))
    with pytest.raises(ValueError, match="unknown key 'features.0.weight'"):
        net.convert({**state, 'features.0.weight': torch.zeros(1)})
