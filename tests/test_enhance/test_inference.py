from helpers_enhance import build, picture, psnr
import pytest
import torch

from lowlight_cyclegan.archs import ZeroDCE
from lowlight_cyclegan.enhance import inference
from lowlight_cyclegan.enhance.inference import prepare_for_inference


@pytest.mark.parametrize('options', [{}, {'head': 'gain', 'upsample': 'resize'}], ids=str)
def test_preparation_changes_no_value(options):
    plain, net, x = build(**options), build(**options), picture(64, 52)
    prepared = prepare_for_inference(net, 'cpu', 'bf16')
    assert list(net.state_dict()) == list(prepared.state_dict())
    net = prepared
    assert list(net.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x), rtol=0, atol=0)
        expected = plain(x)
        with torch.autocast('cpu', torch.bfloat16):
            if options:
                torch.testing.assert_close(net(x), plain(x), rtol=0, atol=0)
            else:
                assert psnr(net(x), expected) > psnr(plain(x), expected) + 6


def test_the_callers_network_stays_as_it_was():
    """Someone enhances in the middle of a training: it goes on, with its own layers."""
    net = build().train().requires_grad_(True)
    layers = [type(module) for module in net.modules()]
    prepared = prepare_for_inference(net, 'cpu', 'bf16')
    assert net.training and all(p.requires_grad for p in net.parameters())
    assert [type(module) for module in net.modules()] == layers
    assert not prepared.training and not any(p.requires_grad for p in prepared.parameters())


def test_memory_of_the_process_is_left_alone(monkeypatch):
    monkeypatch.setattr(inference.ctypes, 'CDLL', lambda name: pytest.fail('mallopt is for programs of our own'))
    prepare_for_inference(build(), 'cpu')


@pytest.mark.parametrize('network', [build, lambda: ZeroDCE(num_feat=8)])
def test_subnormal_weights_become_zero(network):
    """Arithmetic with them takes a CPU a hundred cycles; integers, infinities and other weights stay."""
    net = network()
    net.register_buffer('count', torch.tensor([1, 2**40]))
    weight = next(net.parameters()).data.view(-1)
    weight[:4] = torch.tensor([1e-39, -1e-44, 2e-38, float('inf')])
    prepared = next(prepare_for_inference(net, 'cpu').parameters()).view(-1)
    assert prepared[:4].tolist() == [0, 0, pytest.approx(2e-38, rel=1e-6), float('inf')]
    assert torch.equal(prepared[4:], weight[4:])
    assert weight[0] != 0
