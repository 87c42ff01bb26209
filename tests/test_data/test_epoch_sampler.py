import pickle
import pytest

import lowlight_cyclegan  # noqa: F401  (makes basicsr importable)
from lowlight_cyclegan.data.epoch_sampler import EpochSampler, SampleIndex


class Numbers(list):
    """Dataset stand-in: a list with options."""

    def __init__(self, length, batch=4, seed=0):
        super().__init__(range(length))
        self.opt = {'batch_size_per_gpu': batch, 'manual_seed': seed}


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


def test_index_survives_pickling():
    index = pickle.loads(pickle.dumps(SampleIndex(5, epoch=2, draw=7)))
    assert (index, index.epoch, index.draw) == (5, 2, 7)
    assert ['a', 'b', 'c', 'd', 'e', 'f'][index] == 'f'


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, number):
        return epoch(EpochSampler(Numbers(64, seed=seed), 1, 0), number)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 1) != order(1, 0)  # seed + epoch alone would make these equal


@pytest.mark.parametrize('world_size', [1, 2, 3])
@pytest.mark.parametrize(('length', 'ratio'), [(8, 1), (9, 1), (3, 1), (3, 5), (485, 8), (10, 0.5)])
def test_epochs_are_whole_batches_of_disjoint_ranks(world_size, length, ratio):
    samplers = [EpochSampler(Numbers(length), world_size, rank, ratio) for rank in range(world_size)]
    shares = [epoch(sampler, 1) for sampler in samplers]
    batches = -(-length * ratio // (4 * world_size))  # what BasicSR's trainer counts with
    assert all(len(share) == len(sampler) == batches * 4 for share, sampler in zip(shares, samplers))
    draws = sorted(index.draw for share in shares for index in share)
    assert draws == list(range(samplers[0].total_size))
    counts = [sum(share.count(i) for share in shares) for i in range(length)]
    assert max(counts) - min(counts) <= 1
    assert {index.epoch for share in shares for index in share} == {1}


@pytest.mark.parametrize(('total_iter', 'length'), [(100, 9), (100, 3), (7, 8), (12125, 485)])
def test_toolbox_loop_reaches_total_iter(total_iter, length):
    sampler = EpochSampler(Numbers(length, batch=8), 1, 0)
    num_iter_per_epoch = -(-length // 8)
    total_epochs = -(-total_iter // num_iter_per_epoch)
    # BasicSR: for epoch in range(start_epoch, total_epochs + 1), with drop_last
    assert (total_epochs + 1) * (len(sampler) // 8) > total_iter


@pytest.mark.parametrize('iteration', [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize('rank', [0, 1])
def test_continues_inside_an_epoch(iteration, rank):
    def stream(sampler, first):
        return [i for number in range(first, 4) for i in epoch(sampler, number)]

    dataset = Numbers(24)  # 3 batches of 4 for each of 2 ranks
    whole = stream(EpochSampler(dataset, 2, rank), 0)
    resumed = EpochSampler(dataset, 2, rank)
    first = resumed.start_from(iteration)
    assert first == iteration // 3
    rest = stream(resumed, first)
    assert rest == whole[iteration * 4:]
    assert [i.draw for i in rest] == [i.draw for i in whole[iteration * 4:]]
