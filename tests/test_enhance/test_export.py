import copy
import numpy as np
import os
import pytest
import torch

from lowlight_cyclegan import commands
from lowlight_cyclegan.archs import EMAResNetGenerator
from lowlight_cyclegan.enhance import export as export_module
from lowlight_cyclegan.enhance.export import CHECKED, TRACED, ExportWrapper, check, export


def toy_network(head='gain', **kwargs):
    torch.manual_seed(0)
    network = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, aspp_width=8, head=head, **kwargs).eval()
    if head == 'gain':
        torch.nn.init.normal_(network.exposure.linear.weight, std=0.3)
        torch.nn.init.normal_(network.fine[4].weight, std=0.02)
    if head == 'exposure':
        for parameter in network.exposure.parameters():
            torch.nn.init.normal_(parameter, std=0.03)
    return network


@pytest.mark.parametrize('head', ['gain', 'tanh', 'exposure'])
@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 96), (101, 130), (262, 175)])
def test_wrapper_is_the_network_at_any_size(size, head):
    network, x = toy_network(head), torch.rand(2, 3, *size) * 0.2
    with torch.no_grad():
        torch.testing.assert_close(ExportWrapper(network)(x), (network(x * 2 - 1) + 1) / 2, rtol=0, atol=1e-6)


@pytest.fixture(scope='module')
def new_torch():
    if torch.__version__ < (2, 10):
        pytest.skip('export needs torch 2.10')


@pytest.fixture(scope='module')
def traced(new_torch):
    """Network and its program: tracing is the slow part."""
    network = toy_network()
    with torch.no_grad():
        return network, export_module._trace(ExportWrapper(network).eval())


@pytest.mark.parametrize('fp16', [False, pytest.param(True, marks=pytest.mark.full)])
def test_onnx_runs_at_other_sizes(tmp_path, monkeypatch, traced, fp16):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    (network, program), path = traced, str(tmp_path / 'toy.onnx')
    monkeypatch.setattr(export_module, '_trace', lambda wrapper: program)
    written = export(network, path, fp16=fp16)
    differences = written.differences
    assert written.size == os.path.getsize(path) and (written.size < written.full_size) == fp16
    assert written.onnxruntime == '1.18'
    assert set(differences) == set(CHECKED) and TRACED not in differences
    assert max(differences.values()) < (2 / 255 if fp16 else 1e-4)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    assert session.get_inputs()[0].name == 'image' and session.get_inputs()[0].type == 'tensor(float)'
    x = np.random.default_rng(0).random((1, 3, 75, 90), dtype=np.float32) * 0.2
    y = session.run(None, {'image': x})[0]
    with torch.no_grad():
        expected = (network(torch.from_numpy(x) * 2 - 1) + 1) / 2
    assert abs(y - expected.numpy()).max() < (2 / 255 if fp16 else 1e-4)
    assert os.listdir(tmp_path) == ['toy.onnx']


def test_head_exposure_is_traced_for_any_size(new_torch):
    network = toy_network('exposure')
    with torch.no_grad():
        program = export_module._trace(ExportWrapper(network).eval())
    assert max(check(network, program.module()).values()) < 1e-5


@pytest.mark.parametrize('opset, ir_version, oldest', [
    (18, 8, '1.15'), (20, 9, '1.17'), (18, 10, '1.18'), (23, 10, '1.23')])
def test_oldest_onnxruntime(opset, ir_version, oldest):
    pytest.importorskip('onnxruntime')
    assert export_module._loaded_from(opset, ir_version) == oldest


def test_command_says_what_fp16_saves_and_what_loads_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def fake(network, path, fp16):
        (tmp_path / path).write_bytes(b'')
        return export_module.Exported({(1, 3, 32, 32): 1e-6}, 930_000, 1_000_000, '1.18')

    monkeypatch.setattr(export_module, 'export', fake)
    commands.main(['export', '--fp16'])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith('everyday-fp16.onnx: 0.93 MB (7% less than in full precision)')
    assert line.endswith('onnxruntime 1.18 or newer')


@pytest.mark.full
@pytest.mark.parametrize('kwargs', [
    dict(head='tanh', num_block=9, num_feat=64, ema_factor=32), dict(ema_position='output'),
    dict(use_ema=False), dict(use_aspp=False), dict(head='exposure')])
def test_every_variant_exports(tmp_path, kwargs, new_torch):
    pytest.importorskip('onnxscript')
    torch.manual_seed(0)
    network = EMAResNetGenerator(**{'num_feat': 8, 'num_block': 1, 'ema_factor': 4, **kwargs}).eval()
    assert max(export(network, str(tmp_path / 'toy.onnx')).differences.values()) < 5e-4


def test_file_is_kept_only_if_it_agrees(tmp_path, monkeypatch, traced):
    path = tmp_path / 'toy.onnx'
    path.write_text('what was there')
    monkeypatch.setattr(export_module, '_trace', lambda wrapper: traced[1])
    other = copy.deepcopy(traced[0])
    torch.nn.init.normal_(other.fine[4].bias, std=0.1)
    with pytest.raises(ValueError, match='not written: at .* the graph differs from PyTorch by') as error:
        export(other, str(path))
    assert '\n' not in str(error.value)
    assert os.listdir(tmp_path) == ['toy.onnx'] and path.read_text() == 'what was there'


def test_an_old_torch_gets_one_line(tmp_path, monkeypatch):
    pytest.importorskip('onnxscript')
    monkeypatch.setattr(torch, '__version__', torch.torch_version.TorchVersion('2.9.1+cpu'))
    with pytest.raises(ValueError, match=r'^export needs torch 2\.10 or later, found 2\.9\.1\+cpu: pip install'):
        export(toy_network(), str(tmp_path / 'toy.onnx'))


@pytest.mark.parametrize('argv, message', [
    (['-o', 'none/x.onnx'], 'must be a file in a folder that exists'),
    (['-o', 'there.onnx'], 'exists already'),
    (['--model', 'none.pth'], 'none.pth: no such file'),
])
def test_mistakes_get_one_line(tmp_path, monkeypatch, argv, message):
    pytest.importorskip('onnx')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there.onnx').touch()
    monkeypatch.setattr(export_module, '_trace', lambda wrapper: None)
    with pytest.raises(SystemExit, match=message) as stop:
        commands.main(['export', *argv])
    assert '\n' not in str(stop.value)
    assert os.listdir(tmp_path) == ['there.onnx']
