import pytest
import torch

from lowlight_cyclegan.models.loss_meter import LossMeter


def test_means_since_the_last_call():
    meter = LossMeter(torch.device('cpu'), 'states')
    for iteration, (a, b) in enumerate(((1.0, 4.0), (3.0, 8.0)), 1):
        meter.add({'l_a': torch.tensor(a, requires_grad=True), 'l_b': torch.tensor(b)}, iteration)
    assert meter.take() == {'l_a': 2, 'l_b': 6}
    meter.add({'l_c': torch.tensor(7.0)}, 3)
    assert meter.take() == {'l_c': 7}


def test_a_loss_that_is_not_finite_is_named_with_the_first_iteration():
    meter = LossMeter(torch.device('cpu'), 'run/states')
    meter.add({'l_a': torch.tensor(1.0)}, 1)
    with pytest.raises(ValueError, match=r'iteration 2 \(l_a: inf\).*run/states is good'):
        meter.add({'l_a': torch.tensor(float('inf'))}, 2)
    with pytest.raises(ValueError, match='iteration 2'):
        meter.check()


def test_on_a_gpu_it_is_found_when_the_log_is_due():
    meter = LossMeter(torch.device('cpu'), 'states')
    meter.deferred = True  # as on a GPU
    for iteration, value in enumerate((1.0, float('nan'), 1.0), 1):
        meter.add({'l_a': torch.tensor(value)}, iteration)
    for look in (meter.check, meter.take):
        with pytest.raises(ValueError, match=r'iteration 2 \(l_a: nan\)'):
            look()
