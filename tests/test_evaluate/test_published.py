import numpy as np
import pytest
import torch

from lowlight_cyclegan.archs import RetinexNet, ZeroDCE
from lowlight_cyclegan.evaluate.published import load_published

CHANNELS = {'e_conv1': 3, 'e_conv5': 64, 'e_conv6': 64, 'e_conv7': 64}


def zero_dce():
    """Random weights under the published names."""
    state = {}
    for i in range(1, 8):
        state[f'e_conv{i}.weight'] = torch.randn(24 if i == 7 else 32, CHANNELS.get(f'e_conv{i}', 32), 3, 3)
        state[f'e_conv{i}.bias'] = torch.randn(len(state[f'e_conv{i}.weight']))
    return state


def retinexnet(part):
    """Half of the weights, as in the two published files."""
    names = {'decompose.0': 'net1_conv0', 'decompose.11': 'net1_recon', 'relight.first': 'net2_conv0_1',
             'relight.fuse': 'net2_fusion', 'relight.last': 'net2_output'}
    names.update({f'decompose.{2 * i + 1}': f'net1_convs.{2 * i}' for i in range(5)})
    for i in range(3):
        names.update({f'relight.down.{i}': f'net2_conv1_{i + 1}', f'relight.up.{i}': f'net2_deconv1_{i + 1}'})
    state = RetinexNet().state_dict()
    renamed = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}
    return {key: value for key, value in renamed.items() if key.startswith(part)}


def test_files_give_a_method_ready_for_use(tmp_path):
    state = zero_dce()
    torch.save(state, tmp_path / 'a.pth')
    net = load_published('zero_dce', str(tmp_path / 'a.pth'))
    assert isinstance(net, ZeroDCE) and not net.training
    assert torch.equal(net.convs[6].bias, state['e_conv7.bias'])
    for part in ('net1', 'net2'):
        torch.save(retinexnet(part), tmp_path / f'{part}.tar')
    (tmp_path / 'a.pth').unlink()
    folder = load_published('retinexnet', str(tmp_path))
    both = load_published('retinexnet', [str(tmp_path / f'{part}.tar') for part in ('net2', 'net1')])
    assert torch.equal(folder.relight.last.weight, both.relight.last.weight)


def test_what_is_wrong_is_one_line(tmp_path):
    (tmp_path / 'broken.pth').write_bytes(b'not weights')
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save({'enhance.in_conv.0.weight': torch.zeros(3, 3, 3, 3)}, tmp_path / 'sci.pt')
    incomplete = zero_dce()
    incomplete.pop('e_conv3.bias')
    torch.save(incomplete, tmp_path / 'incomplete.pth')
    narrow = zero_dce()
    narrow['e_conv7.weight'] = narrow['e_conv7.weight'][:3]
    torch.save(narrow, tmp_path / 'narrow.pth')
    torch.save(retinexnet('net1'), tmp_path / 'Decom.tar')
    (tmp_path / 'twice').mkdir()
    for name in ('a.tar', 'b.tar'):
        torch.save(retinexnet('net'), tmp_path / 'twice' / name)
    (tmp_path / 'empty').mkdir()
    for name, path, said in [
        ('zero_dce', 'none.pth', 'cannot be loaded'), ('zero_dce', 'broken.pth', 'cannot be loaded'),
        ('zero_dce', 'list.pth', 'holds no weights'), ('zero_dce', 'sci.pt', "unknown key 'enhance"),
        ('zero_dce', 'incomplete.pth', 'convs.2.bias'), ('zero_dce', 'narrow.pth', 'convs.6.weight'),
        ('retinexnet', 'Decom.tar', 'relight.first.weight'), ('retinexnet', 'twice', 'name the files to load'),
        ('sci', 'empty', 'no weights (.pt'), ('zerodce', 'sci.pt', "no method 'zerodce'")
    ]:
        with pytest.raises(ValueError) as stop:
            load_published(name, str(tmp_path / path))
        line = str(stop.value)
        assert said in line and '\n' not in line and len(line) < 800, line


@pytest.mark.full
@pytest.mark.parametrize(('name', 'path', 'expected'), [
    ('zero_dce', 'zero_dce/Epoch99.pth', 14.861), ('sci', 'sci/medium.pt', 14.854), ('sci', 'sci/difficult.pt', 13.869),
    ('ruas', 'ruas/lol.pt', 16.446), ('retinexnet', 'retinexnet', 17.611), ('pairlie', 'pairlie/PairLIE.pth', 19.51),
    ('iat', 'iat/best_Epoch_lol_v1.pth', 23.38), ('psenet', 'psenet/afifi.safetensors', 17.1)])
def test_psnr_on_lol(lol_root, name, path, expected):
    """Mean over the 15 test pairs, as measured with the authors' code or printed by them."""
    import cv2

    from basicsr.metrics import calculate_psnr
    weights = lol_root.parents[1] / 'weights' / 'baselines' / path
    if not weights.exists():
        pytest.skip(f'no published weights at {path}')
    net, values = load_published(name, str(weights)), []
    for file in sorted((lol_root / 'eval15' / 'low').iterdir()):
        low, high = (cv2.imread(str(f)) for f in (file, lol_root / 'eval15' / 'high' / file.name))
        x = torch.from_numpy(low[..., ::-1].transpose(2, 0, 1) / np.float32(127.5) - 1).unsqueeze(0)
        with torch.inference_mode():
            y = ((net(x)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        values.append(calculate_psnr(y[..., ::-1], high, 0))
    assert len(values) == 15 and np.mean(values) == pytest.approx(expected, abs=0.05)
