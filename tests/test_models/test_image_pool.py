import torch

from lowlight_cyclegan.models import ImagePool


def numbered(*values):
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_without_capacity_queries_pass_through():
    images = numbered(1, 2)
    assert ImagePool(0).query(images) is images


def test_a_filling_pool_returns_what_it_gets():
    pool = ImagePool(3)
    torch.testing.assert_close(pool.query(numbered(1, 2, 3)), numbered(1, 2, 3))
    assert len(pool.images) == 3


def test_a_full_pool_mixes_old_and_new_and_loses_nothing():
    torch.manual_seed(0)
    pool = ImagePool(5)
    pool.query(numbered(*range(5)))
    seen = [int(pool.query(numbered(i))[0, 0, 0, 0]) for i in range(5, 405)]
    old = sum(value != i for i, value in enumerate(seen, start=5))
    assert 150 < old < 250  # about half
    held = [int(image[0, 0, 0]) for image in pool.images]
    assert sorted(seen + held) == list(range(405))


def test_state_round_trip():
    pool, other = ImagePool(4), ImagePool(4)
    pool.query(numbered(1, 2, 3))
    other.load_state_dict(pool.state_dict(), 'cpu')
    torch.testing.assert_close(torch.stack(other.images), numbered(1, 2, 3))
    torch.manual_seed(1)
    first = [pool.query(numbered(i)) for i in range(10)]
    torch.manual_seed(1)
    assert all(torch.equal(a, other.query(numbered(i))) for i, a in enumerate(first))


def test_crops_of_another_size_begin_a_new_history(caplog):
    pool = ImagePool(2)
    pool.query(torch.rand(2, 3, 4, 4))
    with caplog.at_level('WARNING', logger='basicsr'):
        for _ in range(4):
            assert pool.query(torch.rand(2, 3, 6, 8)).shape == (2, 3, 6, 8)
    assert [record.message for record in caplog.records] == [
        'The history of generated images begins anew: crops of 4x4 are 6x8 now.']
