import huggingface_hub as hub
import json
import os
import pytest
import subprocess
import sys
import torch
import yaml
from basicsr.archs import build_network as basicsr_network
from pathlib import Path
from safetensors.torch import load_file, save_file

from lowlight_cyclegan import register
from lowlight_cyclegan.config import bundled
from lowlight_cyclegan.enhance.pretrained import build_network, load_pretrained, save_pretrained

register()
NETWORK = {'type': 'EMAResNetGenerator', 'num_feat': 8, 'num_block': 1, 'ema_factor': 4, 'aspp_width': 8}


@pytest.fixture
def net():
    return build_network(dict(NETWORK)).eval()


def same(a, b, tolerance=0.0):
    x = torch.rand(1, 3, 33, 47) * 2 - 1
    with torch.no_grad():
        return (a(x) - b(x)).abs().max() <= tolerance


def test_bundled_weights_are_what_their_cards_say():
    assert 'lite' in bundled()
    for name, file in bundled().items():
        net, options, path = load_pretrained(name)
        assert os.path.getsize(path) < 64e6 and not net.training and not any(p.requires_grad for p in net.parameters())
        assert f'{sum(p.numel() for p in net.parameters()):,} parameters' in Path(file).with_suffix('.md').read_text()


@pytest.mark.parametrize('half', [False, True])
def test_safetensors_say_what_they_hold(net, tmp_path, half):
    save_pretrained(tmp_path / 'net.safetensors', net, NETWORK, half, data='toys')
    loaded, options, _ = load_pretrained(tmp_path / 'net.safetensors')
    assert options == NETWORK and same(net, loaded, 0.01 if half else 0)
    assert next(loaded.parameters()).dtype == torch.float32


def test_folder_in_the_layout_of_the_hub(net, tmp_path):
    save_pretrained(tmp_path / 'net', net, NETWORK, half=False)
    assert json.loads((tmp_path / 'net' / 'config.json').read_text()) == NETWORK
    save_file(net.state_dict(), tmp_path / 'net' / 'model.safetensors')  # from other software: nothing in its header
    loaded, options, _ = load_pretrained(tmp_path / 'net')
    assert options == NETWORK and same(net, loaded)


@pytest.mark.parametrize('change', [{}, {'use_ema': False}, {'use_aspp': False}, {'upsample': 'resize'},
                                    {'head': 'exposure'}, {'num_block': 2, 'ema_factor': 8, 'num_feat': 16}])
def test_options_are_inferred_from_shapes(tmp_path, change):
    net = build_network({**NETWORK, **change}).eval()
    torch.save({'params': net.state_dict()}, tmp_path / 'net_g_5.pth')
    assert same(net, load_pretrained(tmp_path / 'net_g_5.pth')[0])


@pytest.mark.parametrize('change', [lambda w: w.flatten()[1:], lambda w: w.new_zeros(()), lambda w: w.new_zeros(0),
                                    lambda w: w[None], lambda w: w[:1]])
def test_weights_of_other_dimensions_are_one_line(net, change, tmp_path):
    state, path = net.state_dict(), tmp_path / 'x.pth'
    for key in ('encoder.stem.1.weight', 'transformer.0.body.1.weight', 'transformer.0.ema.gn.weight',
                'encoder.aspp.pool.0.weight'):
        torch.save({'params': {**state, key: change(state[key])}}, path)
        with pytest.raises(ValueError, match=r'x.pth: (is none of our generators|does not fit|its options build)'):
            load_pretrained(path)


def test_checkpoint_of_a_run_takes_the_options_of_the_run(tmp_path):
    options = {**NETWORK, 'head': 'gain', 'gain_mean': 0.3}
    nets = [build_network(dict(options)).eval() for _ in range(2)]
    path = tmp_path / 'models' / 'net_g_5.pth'
    path.parent.mkdir()
    torch.save({key: net.state_dict() for key, net in zip(('params', 'params_ema'), nets)}, path)
    with pytest.raises(ValueError, match='give its option file'):
        load_pretrained(path)
    given = tmp_path / 'run.txt'
    given.write_text(yaml.safe_dump({'network_g': options}))
    assert same(nets[1], load_pretrained(path, str(given))[0])
    assert same(nets[1], load_pretrained(path, options)[0])
    given.rename(tmp_path / 'run.yml')
    assert same(nets[1], load_pretrained(path)[0])


def test_options_as_a_run_used_them_win_over_the_file_as_written(net, tmp_path):
    """Of the same shapes: what a run changed on its command line would go unnoticed."""
    used = {**NETWORK, 'ema_position': 'output'}
    net = build_network(dict(used)).eval()
    path = tmp_path / 'models' / 'net_g_5.pth'
    path.parent.mkdir()
    torch.save({'params': net.state_dict()}, path)
    (tmp_path / 'run.yml').write_text(yaml.safe_dump({'network_g': NETWORK}))
    assert load_pretrained(path)[1] == NETWORK
    (tmp_path / 'options_used.yml').write_text(yaml.safe_dump({'network_g': used}))
    loaded, options, _ = load_pretrained(path)
    assert options == used and same(net, loaded)


def test_option_files_of_other_programs_are_passed_over(net, tmp_path):
    path = tmp_path / 'weights' / 'net_g.pth'
    path.parent.mkdir()
    torch.save({'params': net.state_dict()}, path)
    (tmp_path / 'docker-compose.yml').write_text('services: {}')
    (tmp_path / 'list.yml').write_text('- 1')
    (tmp_path / 'template.yml').write_text('{% raw %}: {')
    (tmp_path / 'theirs.yml').write_text('network_g: {type: Unknown}')
    loaded, options, _ = load_pretrained(path)
    assert options['type'] == 'EMAResNetGenerator' and same(net, loaded)
    (tmp_path / 'a.yml').write_text(yaml.safe_dump({'network_g': NETWORK}))
    assert load_pretrained(path)[1] == NETWORK


def test_subnormal_weights_become_zero(net, tmp_path):
    weight = next(net.parameters()).data.view(-1)
    weight[:2] = torch.tensor([1e-39, 0.5])
    torch.save({'params': net.state_dict()}, tmp_path / 'net_g.pth')
    assert next(load_pretrained(tmp_path / 'net_g.pth')[0].parameters()).view(-1)[:2].tolist() == [0, 0.5]


def test_weights_are_saved_as_they_are(net, tmp_path):
    """Full precision unless asked, integers always; a file is complete or absent."""
    net.register_buffer('count', torch.tensor([2**40 + 1]))
    for half, dtype in ((False, torch.float32), (True, torch.float16)):
        save_pretrained(tmp_path / 'net.safetensors', net, NETWORK, **({'half': True} if half else {}))
        saved = load_file(tmp_path / 'net.safetensors')
        assert saved['count'].tolist() == [2**40 + 1] and saved['encoder.stem.1.weight'].dtype == dtype
    before = (tmp_path / 'net.safetensors').read_bytes()
    with pytest.raises(TypeError):
        save_pretrained(tmp_path / 'net.safetensors', net, NETWORK, data=5)
    with pytest.raises(OSError):
        save_pretrained(tmp_path / 'none' / 'net.safetensors', net, NETWORK)
    assert (tmp_path / 'net.safetensors').read_bytes() == before and os.listdir(tmp_path) == ['net.safetensors']


LIGHT = """
import sys
import numpy
from lowlight_cyclegan import Enhancer
Enhancer.from_pretrained('lite', device='cpu').enhance(numpy.full((40, 50, 3), 20, numpy.uint8))
print(*sorted({name.partition('.')[0] for name in sys.modules}))
print(*(name for name in sys.modules if name.startswith('lowlight_cyclegan.archs.')))
"""


def test_enhancing_loads_what_it_needs_alone():
    packages, ours = subprocess.check_output([sys.executable, '-c', LIGHT], text=True).splitlines()
    heavy = {'basicsr', 'torchvision', 'matplotlib', 'huggingface_hub', 'mmengine', 'cv2', 'scipy'}
    assert not heavy & set(packages.split())
    assert 'lowlight_cyclegan.archs.ema_resnet_arch' in ours and 'zero_dce' not in ours


def test_networks_of_basicsr_load_too(tmp_path):
    options = {'type': 'SRVGGNetCompact', 'num_feat': 8, 'num_conv': 1, 'upscale': 1}
    net = basicsr_network(dict(options)).eval()
    torch.save({'params': net.state_dict()}, tmp_path / 'net.pth')
    assert same(net, load_pretrained(tmp_path / 'net.pth', options)[0])


def test_original_cyclegan_checkpoint(tmp_path):
    net = build_network({**NETWORK, 'use_ema': False, 'use_aspp': False}).eval()
    names = {'encoder.stem.1': '1', 'encoder.down.0': '4', 'encoder.down.3': '7', 'decoder.0': '11', 'decoder.3': '14',
             'decoder.7': '18', 'transformer.0.body.1': '10.conv_block.1', 'transformer.0.body.5': '10.conv_block.5'}
    theirs = {f'model.{names[key.rpartition(".")[0]]}.{key.rpartition(".")[2]}': value
              for key, value in net.state_dict().items()}
    torch.save(theirs, tmp_path / 'latest_net_G_A.pth')
    assert same(net, load_pretrained(tmp_path / 'latest_net_G_A.pth')[0])


def test_refusals(net, tmp_path):
    def refusal(name, options=None):
        with pytest.raises(ValueError) as caught:
            load_pretrained(name, options)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    assert 'did you mean lite?' in refusal('litee')
    assert 'no such file' in refusal('./a/b.pth')
    assert 'holds no model.safetensors' in refusal(tmp_path)
    (tmp_path / 'a.safetensors').write_bytes(b'\xff' * 100)
    assert 'a.safetensors: ' in refusal(tmp_path / 'a.safetensors')
    (tmp_path / 'a.pth').write_bytes(b'broken')
    assert 'cannot be loaded as weights' in refusal(tmp_path / 'a.pth')
    torch.save([1, 2], tmp_path / 'a.pth')
    assert 'a.pth: ' in refusal(tmp_path / 'a.pth')
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'a.pth')
    assert 'is none of our generators' in refusal(tmp_path / 'a.pth')
    torch.save(net.state_dict(), tmp_path / 'a.pth')
    assert 'does not fit' in refusal(tmp_path / 'a.pth', {**NETWORK, 'num_feat': 16})
    assert 'build no network' in refusal(tmp_path / 'a.pth', {**NETWORK, 'num_feet': 16})
    assert 'no_such.yml' in refusal(tmp_path / 'a.pth', 'no_such.yml')


def test_hub_without_a_network_answers_in_one_line(monkeypatch):

    def offline(*args, **kwargs):
        raise OSError('no route\nto the hub')

    monkeypatch.setattr(hub, 'snapshot_download', offline)
    with pytest.raises(ValueError, match='^someone/net: .*no route to the hub'):
        load_pretrained('someone/net')


def test_hub_repository(net, tmp_path, monkeypatch):
    save_pretrained(tmp_path / 'net', net, NETWORK, half=False)
    asked = []
    monkeypatch.setattr(hub, 'snapshot_download', lambda name, **_: asked.append(name) or str(tmp_path / 'net'))
    assert same(net, load_pretrained('someone/net')[0]) and asked == ['someone/net']


def test_weights_that_are_not_finite_are_named(net, tmp_path):
    state = {key: value.clone() for key, value in net.state_dict().items()}
    key = next(iter(state))
    state[key].flatten()[0] = torch.inf
    torch.save({'params': state}, tmp_path / 'net_g_5.pth')
    with pytest.raises(ValueError, match=rf'net_g_5.pth: holds values that are not finite, in {key}'):
        load_pretrained(tmp_path / 'net_g_5.pth', NETWORK)
