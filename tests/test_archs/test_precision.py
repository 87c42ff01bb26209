import torch

from lowlight_cyclegan.archs.precision import has_bf16


def test_bf16_needs_instructions_for_it(monkeypatch):
    for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported'):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not has_bf16(torch.device('cpu'))
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: True)
    assert has_bf16(torch.device('cpu'))
    monkeypatch.delattr(torch.cpu, '_is_avx512_bf16_supported')  # an older torch
    assert has_bf16(torch.device('cpu')) and not has_bf16(torch.device('mps'))
