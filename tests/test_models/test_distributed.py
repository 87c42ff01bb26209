"""Two gloo processes against one. The processes are forked, so that they start warm."""
import csv
import pytest
import torch
import torch.distributed as dist
from basicsr.models import build_model
from torch.utils.data import DataLoader, Dataset


def images(n):
    generator = torch.Generator().manual_seed(0)
    return {key: torch.rand(n, 3, 32, 32, generator=generator, dtype=torch.float64) for key in ('lq', 'gt')}


def on_two_ranks(function, opt, tmp_path):
    """Call ``function(rank, opt)`` on two ranks with a process group; its return values are saved and given back."""
    torch.multiprocessing.start_processes(_on_rank, args=(function, opt, tmp_path), nprocs=2, start_method='fork')
    return [torch.load(tmp_path / f'{rank}.result', weights_only=False) for rank in (0, 1)]


def _on_rank(rank, function, opt, tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=rank, world_size=2)
    opt.update(dist=True, rank=rank, world_size=2)
    torch.save(function(rank, opt), tmp_path / f'{rank}.result')
    dist.destroy_process_group()


def gradients(opt, data):
    """Of one step in float64, without taking it."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(opt['rank'])  # ranks start differently: the wrappers must agree on rank 0's weights
        model = build_model(opt)
        model.optimizer_g.step = model.optimizer_d.step = lambda: None
        model.feed_data(data)
        model.optimize_parameters(1)
        nets = {name: model.get_bare_model(net) for name, net in model.networks.items()}
        return {f'{name}.{key}': p.grad for name, net in nets.items() for key, p in net.named_parameters()}
    finally:
        torch.set_default_dtype(torch.float32)


def gradients_of_share(rank, opt):
    return gradients(opt, {key: v[rank::2] for key, v in images(4).items()})


def test_gradients_are_those_of_one_process_on_the_whole_batch(toy_opt, tmp_path):
    toy_opt['train'].update(pool_size=0, ema_decay=0)
    expected = gradients(toy_opt, images(4))
    for result in on_two_ranks(gradients_of_share, toy_opt, tmp_path):
        assert result.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(result[key], value, rtol=1e-8, atol=1e-12, msg=lambda m, key=key: f'{key}: {m}')


class ToyPairs(Dataset):
    opt = dict(name='toy_val')

    def __len__(self):
        return 5  # an odd number: the shares differ in size

    def __getitem__(self, index):
        pair = {key: v[index].float() for key, v in images(5).items()}
        return dict(pair, lq_path=f'/data/{index}.png')


def validate(rank, opt):
    torch.manual_seed(0)
    model = build_model(opt)
    model.iteration = 5
    model.validation(DataLoader(ToyPairs()), 5, None, save_img=True)
    return model.validator.means


def test_sharded_validation_counts_each_image_once(toy_opt, tmp_path):
    expected = validate(0, toy_opt)
    table = tmp_path / 'log' / 'metrics' / 'toy_val_5.csv'
    alone = table.read_text()
    table.unlink()
    pictures = sorted((tmp_path / 'visualization').rglob('*.png'))
    for picture in pictures:
        picture.unlink()
    results = on_two_ranks(validate, toy_opt, tmp_path)
    assert results == [expected, {}]  # the same floats, on rank 0
    assert table.read_text() == alone
    assert [row['image'] for row in csv.DictReader(alone.splitlines())] == ['0', '1', '2', '3', '4']
    assert sorted((tmp_path / 'visualization').rglob('*.png')) == pictures


def pools_differ(rank, opt):
    model = build_model(opt)
    model.feed_data({key: v[rank::2].float() for key, v in images(4).items()})
    model.optimize_parameters(1)
    model.save(0, 1)
    numbers = torch.rand(3)
    resumed = build_model(opt)
    state = torch.load(f"{opt['path']['training_states']}/1.state", weights_only=True)
    resumed.resume_training(state)
    same = all(torch.equal(a, b) for a, b in zip(model.pools['d_b'].images, resumed.pools['d_b'].images))
    return dict(pool=model.pools['d_b'].images, numbers=numbers, resumed=same and len(resumed.pools['d_b'].images) == 2)


def test_pools_and_random_streams_are_per_rank(toy_opt, tmp_path):
    first, second = on_two_ranks(pools_differ, toy_opt, tmp_path)
    assert first['resumed'] and second['resumed']
    assert not torch.equal(first['numbers'], second['numbers'])
    assert not any(torch.equal(a, b) for a in first['pool'] for b in second['pool'])


def stops(rank, opt):
    model = build_model(opt)
    model.feed_data({key: v[rank::2].float() for key, v in images(4).items()})
    model.stop_signal.received = 15 * rank  # rank 1 alone is told
    with pytest.raises(SystemExit) as stop:
        model.optimize_parameters(1)
    return stop.value.code


def test_a_signal_to_one_rank_stops_all(toy_opt, tmp_path):
    assert on_two_ranks(stops, toy_opt, tmp_path) == [143, 143]
    assert sorted(p.name for p in (tmp_path / 'training_states').iterdir()) == ['1.state', '1_rank1.pth']


class OneBroken(ToyPairs):

    def __getitem__(self, index):
        if index == 3:  # rank 1's
            raise ValueError('3.png is broken')
        return super().__getitem__(index)


def fails(rank, opt):
    model = build_model(opt)
    model.feed_data({key: v[rank::2].float() for key, v in images(4).items()})
    model.optimize_parameters(1)
    with pytest.raises(ValueError, match='3.png is broken') as error:
        model.validation(DataLoader(OneBroken()), 1, None)
    return str(error.value)


def test_a_validation_that_fails_on_one_rank_ends_all_and_costs_nothing(toy_opt, tmp_path):
    first, second = on_two_ranks(fails, toy_opt, tmp_path)
    assert first == 'Validation of toy_val failed on another rank (ValueError: 3.png is broken).'
    assert second == '3.png is broken'
    assert sorted(p.name for p in (tmp_path / 'training_states').iterdir()) == ['1.state', '1_rank1.pth']
