import cv2
import numpy as np
import pytest
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

import lowlight_cyclegan
from lowlight_cyclegan.data import PairedNameListDataset

lowlight_cyclegan.register()


def picture(seed, h=24, w=32):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path):
    for offset, key, ext in ((0, 'lq', '.png'), (100, 'gt', '.bmp')):
        (tmp_path / key).mkdir()
        for i in range(5):
            cv2.imwrite(str(tmp_path / key / f'{i}{ext}'), picture(offset + i))
    cv2.imwrite(str(tmp_path / 'lq' / 'lone.png'), picture(50))
    return tmp_path


def options(root, names=None, **changes):
    if names is not None:
        (root / 'names.txt').write_text('\n'.join(names))
        changes['names'] = str(root / 'names.txt')
    return {
        'name': 'toy', 'type': 'PairedNameListDataset', 'phase': 'val', 'dataroot_lq': str(root / 'lq'),
        'dataroot_gt': str(root / 'gt'), 'io_backend': {'type': 'disk'}, **changes
    }


def stems(dataset):
    return [pair['gt_path'].rsplit('/', 1)[-1].split('.')[0] for pair in dataset.paths]


def test_pairs_by_name_in_the_order_of_the_list(folders):
    dataset = build_dataset(options(folders, ['3', '# not this one: 2', '0']))
    assert isinstance(dataset, PairedImageDataset) and type(dataset) is PairedNameListDataset
    assert stems(dataset) == ['3', '0'] and len(dataset) == 2
    sample = dataset[0]
    assert sample['lq_path'].endswith('lq/3.png') and sample['gt_path'].endswith('gt/3.bmp')
    for key, seed in (('lq', 3), ('gt', 103)):
        rgb = picture(seed)[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
        assert np.array_equal(sample[key].numpy(), rgb)


def test_without_a_list_all_common_names(folders):
    opt = options(folders)
    dataset = build_dataset(opt)
    assert stems(dataset) == ['0', '1', '2', '3', '4']
    assert opt['io_backend'] == {'type': 'disk'}
    assert len(list(build_dataloader(dataset, {**opt, 'phase': 'val'}))) == 5


def test_filename_tmpl_and_training_crops(folders):
    for file in (folders / 'lq').iterdir():
        file.rename(file.with_stem(file.stem + '_low'))
    opt = options(folders, ['1'], filename_tmpl='{}_low', phase='train', gt_size=16, use_hflip=False, use_rot=False)
    sample = PairedNameListDataset(opt)[0]
    assert sample['lq_path'].endswith('1_low.png') and sample['lq'].shape == sample['gt'].shape == (3, 16, 16)


def test_lmdb(folders):
    for key, ext in (('lq', '.png'), ('gt', '.bmp')):
        keys = [str(i) for i in range(5)]
        make_lmdb_from_imgs(str(folders / key), str(folders / f'{key}.lmdb'), [k + ext for k in keys], keys)
    dataset = PairedNameListDataset(options(
        folders, ['2', '4'], dataroot_lq=str(folders / 'lq.lmdb'), dataroot_gt=str(folders / 'gt.lmdb'),
        io_backend={'type': 'lmdb'}))
    assert stems(dataset) == ['2', '4']
    assert np.array_equal((dataset[1]['gt'] * 255).round().numpy().astype(np.uint8)[::-1].transpose(1, 2, 0),
                          picture(104))


@pytest.mark.parametrize('names, message', [
    (['0', 'lone'], r"dataroot_gt: no image named 'lone' in"),
    (['0', '9'], r"dataroot_lq: no image named '9' in"),
    (['0.png'], r'names are written without extension'),
    (['# none'], r'names: the list .* holds no names'),
])
def test_names_that_do_not_fit(folders, names, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        PairedNameListDataset(options(folders, names))
    assert '\n' not in str(error.value)


def test_ambiguous_name(folders):
    cv2.imwrite(str(folders / 'lq' / '1.bmp'), picture(1))
    with pytest.raises(ValueError, match=r"dataroot_lq: '1' is ambiguous .*1\.bmp, .*1\.png; keep one"):
        PairedNameListDataset(options(folders, ['1']))
    assert len(PairedNameListDataset(options(folders, ['0', '2']))) == 2  # the others are not concerned


def test_nothing_in_common(folders):
    for file in (folders / 'gt').iterdir():
        file.rename(file.with_stem('x' + file.stem))
    with pytest.raises(ValueError, match='no name is in both'):
        PairedNameListDataset(options(folders))


def test_a_reference_larger_than_its_picture_is_refused(folders):
    """BasicSR would cut off its corner and measure that."""
    cv2.imwrite(str(folders / 'gt' / '2.bmp'), picture(2, 48, 64))
    with pytest.raises(ValueError, match=r"dataroot_gt: '.*2\.bmp' is 64x48, but its lq image is 32x24 and scale is 1"):
        PairedNameListDataset(options(folders))


def test_bad_pictures_end_the_run_before_it_begins(folders):
    cv2.imwrite(str(folders / 'gt' / '2.bmp'), picture(2, 24, 30))
    with pytest.raises(ValueError, match=r"dataroot_gt: '.*2\.bmp' is 30x24, but its lq image is 32x24 and scale is 1"):
        PairedNameListDataset(options(folders))
    (folders / 'lq' / '2.png').write_bytes((folders / 'lq' / '2.png').read_bytes()[:200])
    with pytest.raises(ValueError, match=r"dataroot_lq: '.*2\.png' cannot be read"):
        PairedNameListDataset(options(folders))
    assert len(PairedNameListDataset(options(folders, ['0', '1']))) == 2
