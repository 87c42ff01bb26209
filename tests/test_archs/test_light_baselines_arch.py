"""PairLIE, IAT and PSENet: their values against transcriptions that use the published names."""
import math
import pytest
import torch
from torch.nn import functional as F

from lowlight_cyclegan.archs import IAT, PairLIE, PSENet

CLASSES = {'pairlie': PairLIE, 'iat': IAT, 'psenet': PSENet}
NAMES = list(CLASSES)


def pairlie_names():
    for net, out in (('L_net', 1), ('R_net', 3), ('N_net', 3)):
        for i, shape in zip((1, 4, 7, 10, 13), ((64, 3), (64, 64), (64, 64), (64, 64), (out, 64))):
            yield f'{net}.{net}.{i}', (*shape, 3, 3)


def psenet_names():
    blocks = {'first_conv': (3, 6, 3), 'conv1': (3, 24, 16), 'conv2': (16, 24, 16), 'conv3': (16, 48, 32),
              'conv5': (32, 48, 32), 'conv6': (32, 48, 16), 'conv7': (32, 48, 16), 'conv8': (16, 24, 3),
              'last_conv': (6, 9, 3)}
    for name, (first, hidden, last) in blocks.items():
        layers = {'0': (hidden, first, 1, 1), '2': (hidden, 1, 3, 3), '5': (last, hidden, 1, 1)}
        if name in ('first_conv', 'last_conv'):
            layers.update({'3.fc.0': (hidden, hidden, 1, 1), '3.fc.2': (hidden, hidden, 1, 1)})
        yield from ((f'model.{name}.conv.{layer}', shape) for layer, shape in layers.items())


def iat_names():
    yield 'local_net.conv1', (16, 3, 3, 3)
    for part in ('mul', 'add'):
        for i in range(3):
            for layer, shape in (('pos_embed', (16, 1, 3, 3)), ('conv1', (16, 16, 1, 1)), ('conv2', (16, 16, 1, 1)),
                                 ('attn', (16, 1, 5, 5)), ('mlp.fc1', (64, 16, 1, 1)), ('mlp.fc2', (16, 64, 1, 1))):
                yield f'local_net.{part}_blocks.{i}.{layer}', shape
        yield f'local_net.{part}_end.0', (3, 16, 3, 3)
    yield from (('global_net.conv_large.proj.0', (32, 3, 3, 3)), ('global_net.conv_large.proj.3', (64, 32, 3, 3)),
                ('global_net.generator.pos_embed', (64, 1, 3, 3)), ('global_net.generator.attn.proj', (64, 64)),
                ('global_net.generator.mlp.fc1', (256, 64)), ('global_net.generator.mlp.fc2', (64, 256)),
                ('global_net.gamma_linear', (1, 64)), ('global_net.color_linear', (1, 64)))


def published(name):
    """Random weights under the published names."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    state = {}
    for key, shape in globals()[f'{name}_names']():
        state[f'{key}.weight'] = random(*shape) / math.sqrt(math.prod(shape[1:]))
        state[f'{key}.bias'] = 0.1 * random(shape[0])
    if name == 'pairlie':
        state = {key: 2 * value for key, value in state.items()}
    if name == 'psenet':
        state['model.last_conv.conv.5.weight'] *= 20
    if name == 'iat':
        for part in ('mul', 'add'):
            for i in range(3):
                block = f'local_net.{part}_blocks.{i}'
                for j in (1, 2):
                    state[f'{block}.gamma_{j}'] = random(1, 16, 1, 1)
                    state[f'{block}.norm{j}.alpha'], state[f'{block}.norm{j}.beta'] = random(2, 1, 1, 16)
                    state[f'{block}.norm{j}.color'] = random(16, 16) / 4
        for i, width in ((1, 32), (4, 64)):
            for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
                state[f'global_net.conv_large.proj.{i}.{leaf}'] = 0.5 + torch.rand(width, generator=generator)
            state[f'global_net.conv_large.proj.{i}.num_batches_tracked'] = torch.tensor(7)
        attention = 'global_net.generator.attn'
        state[f'{attention}.q'] = random(1, 10, 64)
        state[f'{attention}.k.weight'], state[f'{attention}.v.weight'] = random(2, 64, 64) / 8
        for i in (1, 2):
            state[f'global_net.generator.norm{i}.weight'], state[f'global_net.generator.norm{i}.bias'] = random(2, 64)
        state['global_net.gamma_base'] = torch.tensor([0.5])
        state['global_net.color_base'] = torch.eye(3) + 0.1 * random(3, 3)
        for key in ('gamma_linear', 'color_linear'):
            state[f'global_net.{key}.weight'] *= 0.05
        for part in ('mul', 'add'):
            state[f'local_net.{part}_end.0.weight'] *= 0.05
        state['local_net.mul_end.0.bias'] += 1
    return state


def conv(w, name, x, **options):
    return F.conv2d(x, w[f'{name}.weight'], w[f'{name}.bias'], **options)


def pairlie(w, x):

    def net(name, v):
        for i in (1, 4, 7, 10, 13):
            v = conv(w, f'{name}.{name}.{i}', F.pad(v, (1, 1, 1, 1), mode='reflect'))
            v = v.sigmoid() if i == 13 else v.relu()
        return v

    x = net('N_net', x)
    return net('L_net', x)**0.14 * net('R_net', x)


def psenet(w, x):

    def block(name, v, stride=1):
        key = f'model.{name}.conv'
        y = F.leaky_relu(conv(w, f'{key}.0', v), 0.01)
        y = conv(w, f'{key}.2', F.pad(y, (1, 1, 1, 1), mode='reflect'), stride=stride, groups=y.shape[1])
        if name.endswith('_conv'):
            y = y * conv(w, f'{key}.3.fc.2', conv(w, f'{key}.3.fc.0', F.adaptive_avg_pool2d(y, 1)).relu())
        y = conv(w, f'{key}.5', F.leaky_relu(y, 0.01))
        return v + y if name in ('first_conv', 'conv2', 'conv5') else y

    def resize(v, like):
        return F.interpolate(v, like.shape[2:], mode='bilinear', align_corners=True)

    a = block('first_conv', x)
    b = block('conv2', block('conv1', a, 2))
    c = block('conv6', block('conv5', block('conv3', b, 2)))
    r = block('conv8', block('conv7', torch.cat([b, resize(c, b)], 1)))
    r = block('last_conv', torch.cat([a, resize(r, a)], 1))
    return 1 - (1 - x)**(r + 1).abs()


def iat(w, x):

    def norm(name, v):
        v = v.permute(0, 2, 3, 1) * w[f'{name}.alpha'] + w[f'{name}.beta']
        return torch.tensordot(v, w[f'{name}.color'], dims=[[-1], [-1]]).permute(0, 3, 1, 2)

    first = F.leaky_relu(conv(w, 'local_net.conv1', x, padding=1), 0.2)
    maps = {}
    for part in ('mul', 'add'):
        v = first
        for i in range(3):
            b = f'local_net.{part}_blocks.{i}'
            v = v + conv(w, f'{b}.pos_embed', v, padding=1, groups=16)
            y = conv(w, f'{b}.attn', conv(w, f'{b}.conv1', norm(f'{b}.norm1', v)), padding=2, groups=16)
            v = v + w[f'{b}.gamma_1'] * conv(w, f'{b}.conv2', y)
            y = conv(w, f'{b}.mlp.fc2', F.gelu(conv(w, f'{b}.mlp.fc1', norm(f'{b}.norm2', v))))
            v = v + w[f'{b}.gamma_2'] * y
        maps[part] = conv(w, f'local_net.{part}_end.0', v + first, padding=1)
    image = x * maps['mul'].relu() + maps['add'].tanh()

    v = x
    for i in (0, 3):
        n = f'global_net.conv_large.proj.{i + 1}'
        v = conv(w, f'global_net.conv_large.proj.{i}', v, stride=2, padding=1)
        v = F.batch_norm(v, w[f'{n}.running_mean'], w[f'{n}.running_var'], w[f'{n}.weight'], w[f'{n}.bias'])
        v = F.gelu(v) if i == 0 else v
    g = 'global_net.generator'
    v = (v + conv(w, f'{g}.pos_embed', v, padding=1, groups=64)).flatten(2).transpose(1, 2)
    v = F.layer_norm(v, (64, ), w[f'{g}.norm1.weight'], w[f'{g}.norm1.bias'])
    heads = []
    for h in range(4):
        part = slice(16 * h, 16 * h + 16)
        k, values = (F.linear(v, w[f'{g}.attn.{name}.weight'])[..., part] for name in ('k', 'v'))
        scores = w[f'{g}.attn.q'][..., part] @ k.transpose(1, 2) / 4
        heads.append(scores.softmax(-1) @ values)
    v = F.linear(torch.cat(heads, -1), w[f'{g}.attn.proj.weight'], w[f'{g}.attn.proj.bias'])
    y = F.layer_norm(v, (64, ), w[f'{g}.norm2.weight'], w[f'{g}.norm2.bias'])
    y = F.gelu(F.linear(y, w[f'{g}.mlp.fc1.weight'], w[f'{g}.mlp.fc1.bias']))
    v = v + F.linear(y, w[f'{g}.mlp.fc2.weight'], w[f'{g}.mlp.fc2.bias'])
    gamma = F.linear(v[:, 0], w['global_net.gamma_linear.weight'], w['global_net.gamma_linear.bias'])
    gamma = gamma + w['global_net.gamma_base']
    color = F.linear(v[:, 1:], w['global_net.color_linear.weight'], w['global_net.color_linear.bias'])
    color = color.reshape(-1, 3, 3) + w['global_net.color_base']
    pictures = [torch.tensordot(matrix, picture, dims=1).clamp(1e-8, 1)**power
                for matrix, picture, power in zip(color, image, gamma)]
    return torch.stack(pictures)


@pytest.mark.parametrize('name', NAMES)
def test_published_weights_give_the_methods_values(name):
    state = published(name)
    net = CLASSES[name]().eval()
    net.load_state_dict(net.convert(state))
    x = torch.rand(2, 3, 33, 42, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        expected = globals()[name]({k: v.double() for k, v in state.items()}, x).clamp(0, 1)
        assert expected.std() > 0.02 and ((expected > 0) & (expected < 1)).double().mean() > 0.2
        torch.testing.assert_close(net.double()(2 * x - 1), 2 * expected - 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize(('name', 'count'), [('pairlie', 341767), ('iat', 91154), ('psenet', 15251)])
def test_sizes(name, count):
    with torch.device('meta'):
        assert sum(p.numel() for p in CLASSES[name]().parameters()) == count


@pytest.mark.parametrize('name', NAMES)
def test_any_size_stays_in_range(name):
    torch.manual_seed(0)
    net = CLASSES[name]().eval()
    for size in ((1, 3, 17, 31), (2, 3, 32, 24)):
        y = net(torch.rand(size) * 2 - 1)
        assert y.shape == size and -1 <= y.min() and y.max() <= 1


@pytest.mark.parametrize('name', NAMES)
def test_keys_of_a_parallel_run_fit_and_foreign_ones_do_not(name):
    state = published(name)
    net = CLASSES[name]()
    net.load_state_dict(net.convert({f'module.{k}': v for k, v in state.items()}))
    with pytest.raises(ValueError, match="unknown key 'features.0.weight'"):
        net.convert({**state, 'features.0.weight': torch.zeros(1)})
