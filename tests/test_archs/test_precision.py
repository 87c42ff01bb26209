import pytest
import torch
from torch import nn

from lowlight_cyclegan.archs.precision import has_bf16


def test_bf16_needs_instructions_for_it(monkeypatch):
    for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported'):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not has_bf16(torch.device('cpu'))
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: True)
    assert has_bf16(torch.device('cpu'))
    monkeypatch.delattr(torch.cpu, '_is_avx512_bf16_supported')  # an older torch
    assert has_bf16(torch.device('cpu')) and not has_bf16(torch.device('mps'))


@pytest.mark.parametrize('native', [True, False])
def test_enhancer_and_training_agree_on_a_gpu(native, monkeypatch):
    """A T4 or GTX 1080 emulates bf16 and says that it supports it; neither takes it then."""
    from lowlight_cyclegan.enhance import enhancer
    from lowlight_cyclegan.models.speed import speed_options
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: including_emulation or native)
    monkeypatch.setattr(enhancer, 'prepare_for_inference', lambda network, device, precision: network)
    assert enhancer.Enhancer(nn.Identity(), device='cuda').precision == ('bf16' if native else 'fp32')
    dtype, _ = speed_options({'amp': 'auto', 'is_train': False}, torch.device('cuda'))
    assert dtype == (torch.bfloat16 if native else None)
