import logging
import pytest
import torch
from torch import nn

from lowlight_cyclegan.models.weights import load_weights, read_weights


@pytest.fixture
def log(caplog):
    logger = logging.getLogger('basicsr')
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_entry_of_a_file_or_its_params(tmp_path):
    torch.save({'params': {'module.a': torch.ones(1)}, 'params_ema': {'a': torch.zeros(1)}}, tmp_path / 'x.pth')
    assert read_weights(str(tmp_path / 'x.pth'), 'params_ema') == {'a': torch.zeros(1)}
    for key in ('params', 'unknown'):
        assert read_weights(str(tmp_path / 'x.pth'), key) == {'a': torch.ones(1)}
    torch.save({'a': torch.ones(1)}, tmp_path / 'plain.pth')
    assert read_weights(str(tmp_path / 'plain.pth'), None) == {'a': torch.ones(1)}
    with pytest.raises(ValueError, match="plain.pth: has no entry 'params'; it holds a"):
        read_weights(str(tmp_path / 'plain.pth'), 'params')
    torch.save([1], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='list.pth: holds no weights but list'):
        read_weights(str(tmp_path / 'list.pth'), 'params')


def test_what_does_not_fit_is_left_out_and_named(tmp_path, log):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    state = {'0.weight': torch.full((2, 2), 7.0), '1.weight': torch.zeros(1, 3), 'other': torch.zeros(1)}
    torch.save({'params': state}, tmp_path / 'x.pth')
    before = net[1].weight.clone()
    load_weights(net, str(tmp_path / 'x.pth'), 'params', strict=False)
    assert net[0].weight.eq(7).all() and torch.equal(net[1].weight, before)
    assert '2 weights do not fit and are left out: 1.weight, other' in log.text
    assert '3 weights are not there: 0.bias, 1.bias, 1.weight' in log.text
    with pytest.raises(ValueError, match='x.pth: does not fit Sequential .*0.bias'):
        load_weights(net, str(tmp_path / 'x.pth'), 'params', strict=True)


@pytest.mark.parametrize('state, said', [
    (None, "the entry 'params' holds no weights but NoneType"), (3, 'but int'),
    ({'a': [1.0]}, "no weights under 'a' but list"), ({1: torch.ones(1)}, 'no weights under 1 but a tensor'),
    ({'a': torch.ones(2, 2).to_sparse()}, 'torch.sparse_coo'), ({'a': torch.ones(1, device='meta')}, 'meta'),
    ({'a': torch.ones(1, dtype=torch.complex64)}, 'torch.complex64'),
    ({'a': torch.quantize_per_tensor(torch.ones(1), 0.1, 0, torch.qint8)}, 'torch.qint8'),
])
def test_entries_that_are_no_weights_are_named(state, said, tmp_path):
    torch.save({'params': state}, tmp_path / 'x.pth')
    for strict in (True, False):
        with pytest.raises(ValueError, match='x.pth: the entry') as refused:
            load_weights(nn.Linear(1, 1), str(tmp_path / 'x.pth'), 'params', strict)
        assert said in str(refused.value)
