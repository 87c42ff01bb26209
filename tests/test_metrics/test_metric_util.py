import pytest
import torch

from lowlight_cyclegan.metrics.metric_util import default_device


@pytest.mark.parametrize(('environment', 'device'), [
    ({}, 'cuda:0'), ({'LOCAL_RANK': '1'}, 'cuda:1'), ({'LOCAL_RANK': '3'}, 'cuda:1'),
    ({'SLURM_LOCALID': '1'}, 'cuda:1')])
def test_each_process_of_a_machine_measures_on_its_own_gpu(monkeypatch, environment, device):
    """Before the process group is there, torch's current device is the first one in every process."""
    for name in ('LOCAL_RANK', 'SLURM_LOCALID'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert default_device() == device
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert default_device() == 'cpu'
