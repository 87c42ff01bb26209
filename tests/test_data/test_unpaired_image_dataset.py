import cv2
import logging
import multiprocessing
import numpy as np
import pickle
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from torch.utils.data import DataLoader

import lowlight_cyclegan
from lowlight_cyclegan.data import EpochSampler, PairedNameListDataset, SampleIndex, UnpairedImageDataset
from lowlight_cyclegan.data import image_set, unpaired_image_dataset
from lowlight_cyclegan.data.data_util import FileReader

lowlight_cyclegan.register()


def picture(seed, h=40, w=56):
    """(h, w, 3) BGR in which every pixel differs from its neighbours."""
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path):
    for offset, key in ((0, 'lq'), (100, 'gt')):
        (tmp_path / key).mkdir()
        for i in range(5 if key == 'lq' else 4):
            cv2.imwrite(str(tmp_path / key / f'{i}.png'), picture(offset + i))
    return tmp_path


@pytest.fixture
def log(caplog):
    logger = logging.getLogger('basicsr')
    logger.addHandler(caplog.handler)
    level = logger.level
    logger.setLevel('INFO')
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


def make(root, **changes):
    return UnpairedImageDataset({
        'name': 'toy', 'phase': 'train', 'dataroot_lq': str(root / 'lq'), 'dataroot_gt': str(root / 'gt'),
        'io_backend': {'type': 'disk'}, 'gt_size': 32, 'use_hflip': True, 'manual_seed': 10,
        'batch_size_per_gpu': 2, **changes
    })


def equal(a, b):
    return torch.equal(a['lq'], b['lq']) and torch.equal(a['gt'], b['gt']) and a['gt_path'] == b['gt_path']


def lone_image(tmp_path, name, content, **changes):
    """The 'lq' image (3, h, w) RGB that the dataset holds for a file of these bytes."""
    for key in ('lq', 'gt'):
        (tmp_path / key).mkdir(exist_ok=True)
        (tmp_path / key / name).write_bytes(content)
    return make(tmp_path, **changes).low[0]


def encode(img, ext, *params):
    return cv2.imencode(ext, img, list(params))[1].tobytes()


def occurrences(img, crop):
    """(top, left, flipped) of all places where the crop occurs in the image, both (3, h, w)."""
    size = crop.shape[1]
    return [(top, left, flipped) for flipped in (False, True)
            for top in range(img.shape[1] - size + 1) for left in range(img.shape[2] - size + 1)
            if torch.equal(img[:, top:top + size, left:left + size], crop.flip(2) if flipped else crop)]


def test_sample_layout(folders):
    dataset = make(folders)
    sample = dataset[SampleIndex(3, 7, 1)]
    assert len(dataset) == 5
    assert set(sample) == {'lq', 'gt', 'lq_path', 'gt_path', 'gt_folder', 'epoch'}
    assert sample['epoch'] == 7 and sample['lq_path'] == str(folders / 'lq' / '3.png')
    for key, offset in (('lq', 0), ('gt', 100)):
        crop = sample[key]
        assert crop.shape == (3, 32, 32) and crop.dtype == torch.uint8 and crop.is_contiguous()
        number = int(sample[f'{key}_path'][:-4].rsplit('/', 1)[1])
        rgb = torch.from_numpy(picture(offset + number)[..., ::-1].transpose(2, 0, 1).copy())
        assert len(occurrences(rgb, crop)) == 1  # RGB order, true pixels


@pytest.mark.parametrize('cache', [True, False])
def test_teacher_is_cropped_as_the_low_image(folders, cache):
    """By name, whatever its extension; what else is drawn stays the same."""
    (folders / 'teacher').mkdir()
    for i in range(6):
        cv2.imwrite(str(folders / 'teacher' / f'{i}.bmp'), 255 - picture(i))
    dataset, plain = make(folders, dataroot_teacher=str(folders / 'teacher'), cache=cache), make(folders)
    for draw in range(8):
        index = SampleIndex(draw % 5, 1, draw)
        sample, expected = dataset[index], plain[index]
        assert torch.equal(sample['teacher'], 255 - sample['lq']) and equal(sample, expected)


def test_teacher_without_a_picture_or_of_another_size(folders):
    (folders / 'teacher').mkdir()
    for i in range(4):
        cv2.imwrite(str(folders / 'teacher' / f'{i}.png'), picture(i, 40, 60))
    changes = {'dataroot_teacher': str(folders / 'teacher')}
    with pytest.raises(ValueError, match=r'dataroot_teacher: no picture named 4 that can be read .*1 of 5 low images'):
        make(folders, **changes)
    with pytest.raises(ValueError, match=r'dataroot_teacher: .*0\.png. is 60x40, the low image .*0\.png. 56x40: have'):
        make(folders, **changes, exclude_names=write(folders, '4'))


def test_registered_once_and_built_by_basicsr(folders):
    dataset = build_dataset({**make(folders).opt, 'type': 'UnpairedImageDataset'})
    assert type(dataset) is UnpairedImageDataset


def test_crops_flips_and_images_are_independent(folders):
    dataset = make(folders)
    low, normal = dataset.low, dataset.normal
    places = []
    for epoch in range(60):
        sample = dataset[SampleIndex(0, epoch, 0)]
        gt_index = normal.paths.index(sample['gt_path'])
        places.append((*occurrences(low[0], sample['lq'])[0], *occurrences(normal[gt_index], sample['gt'])[0],
                       gt_index))
    top, left, flip, top_gt, left_gt, flip_gt, gt_index = zip(*places, strict=True)
    assert set(gt_index) == {0, 1, 2, 3}
    assert {0, 8} <= set(top) | set(top_gt) and {0, 24} <= set(left) | set(left_gt)  # the borders are reached
    assert len(set(zip(flip, flip_gt, strict=True))) == 4
    assert len(set(zip(left, left_gt, strict=True))) > 40


def test_no_flip_gives_the_image_itself(tmp_path):
    img = picture(0, 32, 32)
    lone_image(tmp_path, 'a.png', encode(img, '.png'))
    dataset = make(tmp_path, use_hflip=False)
    sample = dataset[0]
    assert np.array_equal(sample['lq'].permute(1, 2, 0).numpy()[..., ::-1], img)
    sample['lq'].zero_()  # a sample is not a view of the cache
    assert np.array_equal(dataset[0]['lq'].permute(1, 2, 0).numpy()[..., ::-1], img)


def test_stream_repeats_by_seed_and_differs_by_epoch_and_draw(folders):
    dataset = make(folders)
    first = dataset[SampleIndex(0, 0, 0)]
    torch.manual_seed(1)
    np.random.seed(1)
    assert equal(first, make(folders)[SampleIndex(0, 0, 0)])
    assert not equal(first, dataset[SampleIndex(0, 1, 0)])
    assert not equal(first, dataset[SampleIndex(0, 0, 1)])
    assert not equal(first, make(folders, manual_seed=11)[SampleIndex(0, 0, 0)])


def test_plain_index_draws_afresh_from_torch(folders):
    dataset = make(folders)
    torch.manual_seed(0)
    a, b = dataset[0], dataset[0]
    torch.manual_seed(0)
    assert equal(a, dataset[0]) and not equal(a, b)
    assert len(list(dataset)) == 5  # iterating by hand ends


def test_normal_images_are_used_equally_and_shuffled(folders):
    dataset = make(folders)
    orders = [tuple(dataset[SampleIndex(0, epoch, draw)]['gt_path'] for draw in range(turn, turn + 4))
              for epoch in range(6) for turn in (0, 4)]
    assert all(len(set(order)) == 4 for order in orders)
    assert len(set(orders)) > 6


def collect(dataset, **loader):
    sampler = EpochSampler(dataset, 1, 0, ratio=2)
    sampler.set_epoch(3)
    return [(batch['lq'], batch['gt'], batch['gt_path'], batch['epoch'].tolist())
            for batch in DataLoader(dataset, batch_size=2, sampler=sampler, **loader)]


def same_batches(a, b):
    return len(a) == len(b) > 0 and all(
        torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) and x[2:] == y[2:] for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize('cache', [True, False])
def test_same_samples_with_any_number_of_workers(folders, cache):
    dataset = make(folders, cache=cache)
    assert same_batches(collect(dataset), collect(dataset, num_workers=2))


def test_spawned_workers_share_the_cache(folders):
    dataset = make(folders)
    assert same_batches(collect(dataset), collect(dataset, num_workers=1, multiprocessing_context='spawn'))
    assert all(chunk.is_shared() for chunk in dataset.low.chunks + dataset.normal.chunks)


def test_cache_and_disk_give_the_same(folders, monkeypatch):
    monkeypatch.setattr(image_set, '_CHUNK_BYTES', 15000)  # two images a chunk
    cached, disk = make(folders), make(folders, cache=False)
    assert len(cached.low.chunks) == 3 and not disk.low.chunks
    assert same_batches(collect(cached), collect(disk))


@pytest.mark.parametrize('limit', [1e-5, 4e-5])  # 10 kB: exceeded by the low images; 40 kB: by the normal ones
def test_cache_limit_falls_back_to_disk(folders, log, limit):
    dataset = make(folders, cache_limit_gb=limit)
    assert not dataset.low.chunks and not dataset.normal.chunks
    assert sum('cache_limit_gb' in record.message for record in log.records) == 1
    assert same_batches(collect(dataset), collect(make(folders, cache_limit_gb=1)))


@pytest.mark.parametrize(('available', 'processes', 'held'), [
    (200_000, 1, True), (200_000, 2, False), (60_000, 1, False)])  # nine pictures of 6,720 bytes
def test_cache_keeps_to_half_of_the_available_memory(folders, log, monkeypatch, available, processes, held):
    monkeypatch.setattr(unpaired_image_dataset, 'available_memory', lambda: available)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    dataset = make(folders)
    assert bool(dataset.low.chunks) is held
    text = '\n'.join(record.message for record in log.records)
    assert ('held in RAM (limit 0.00 GB)' in text) is held
    assert ('more than 0.00 GB, half of the available memory' in text) is not held


def test_lmdb(folders):
    for key in ('lq', 'gt'):
        names = sorted(path.name for path in (folders / key).iterdir())
        make_lmdb_from_imgs(str(folders / key), str(folders / f'{key}.lmdb'), names, [name[:-4] for name in names])
    lmdb = {'dataroot_lq': str(folders / 'lq.lmdb'), 'dataroot_gt': str(folders / 'gt.lmdb'),
            'io_backend': {'type': 'lmdb'}}
    for cache in (True, False):
        dataset = make(folders, cache=cache, **lmdb)
        assert dataset.low.paths == ['0', '1', '2', '3', '4']
        for workers in (2, 0, 1):  # the second opens the LMDB in this process, before it forks again
            for sample, expected in zip(collect(dataset, num_workers=workers), collect(make(folders)), strict=True):
                assert torch.equal(sample[0], expected[0]) and torch.equal(sample[1], expected[1])
        pickle.dumps(dataset)  # open LMDBs stay out of what spawned workers receive


def test_teacher_in_an_lmdb(folders):
    """Whose names may hold dots and folders."""
    keys = ['a/0', 'b/0', 'c.1', 'c.2', '4']
    for key, offset in (('lq', 0), ('gt', 100), ('teacher', 0)):
        (folders / key).mkdir(exist_ok=True)
        for i in range(5):
            cv2.imwrite(str(folders / key / f'{i}.png'), picture(offset + i) if key != 'teacher' else 255 - picture(i))
        make_lmdb_from_imgs(str(folders / key), str(folders / f'{key}.lmdb'), [f'{i}.png' for i in range(5)], keys)
    lmdb = {f'dataroot_{key}': str(folders / f'{key}.lmdb') for key in ('lq', 'gt', 'teacher')}
    dataset = make(folders, io_backend={'type': 'lmdb'}, cache=False, **lmdb)
    for index in range(5):
        sample = dataset[SampleIndex(index, 0, index)]
        assert torch.equal(sample['teacher'], 255 - sample['lq'])


def test_training_and_validation_share_an_lmdb(folders):
    for key in ('lq', 'gt'):
        names = [f'{i}.png' for i in range(4)]
        make_lmdb_from_imgs(str(folders / key), str(folders / f'{key}.lmdb'), names, [name[:-4] for name in names])
    lmdb = {'dataroot_lq': str(folders / 'lq.lmdb'), 'dataroot_gt': str(folders / 'gt.lmdb'),
            'io_backend': {'type': 'lmdb'}}
    names = write(folders, '3')
    train = make(folders, cache=False, exclude_names=names, **lmdb)
    val = PairedNameListDataset({**train.opt, 'phase': 'val', 'names': names})
    for _ in range(2):
        assert train[0]['lq_path'] == '0' and val[0]['lq_path'] == '3'
        assert len(collect(train, num_workers=2)) == 3
    assert sorted(train.normal.paths) == ['0', '1', '2']


def test_every_process_opens_its_own_lmdb(folders):
    make_lmdb_from_imgs(str(folders / 'lq'), str(folders / 'lq.lmdb'), ['0.png'], ['0'])
    reader = FileReader({'type': 'lmdb'}, {'lq': str(folders / 'lq.lmdb')})
    client = reader._client('lq')
    assert FileReader({'type': 'lmdb'}, {'gt': str(folders / 'lq.lmdb')})._client('gt') is client
    fork = multiprocessing.get_context('fork')
    answers = fork.SimpleQueue()
    child = fork.Process(target=lambda: answers.put((reader._client('lq') is client, reader.get('0', 'lq'))))
    child.start()
    child.join()
    assert answers.get() == (False, reader.get('0', 'lq'))


def test_broken_lmdb(folders):
    for key in ('lq', 'gt'):
        (folders / f'{key}.lmdb').mkdir()
        (folders / f'{key}.lmdb' / 'meta_info.txt').write_text('a.png (40,56,3) 1\n')
        (folders / f'{key}.lmdb' / 'data.mdb').write_bytes(b'x' * 9000)
    with pytest.raises(ValueError, match=r"dataroot_lq: LMDB '.*lq\.lmdb' cannot be opened"):
        make(folders, dataroot_lq=str(folders / 'lq.lmdb'), dataroot_gt=str(folders / 'gt.lmdb'),
             io_backend={'type': 'lmdb'})


def write(folder, text):
    path = folder / 'names.txt'
    path.write_text(text)
    return str(path)


def test_exclude_names(folders, log):
    names = write(folders, '# held out\n1\n\n3  # a comment\n')
    dataset = make(folders, exclude_names=names)
    assert [path[-5:] for path in dataset.low.paths] == ['0.png', '2.png', '4.png']
    assert [path[-5:] for path in dataset.normal.paths] == ['0.png', '2.png']
    assert not [record for record in log.records if record.levelname == 'WARNING']
    make(folders, exclude_names=write(folders, '1.png'))
    assert sum('nothing is excluded' in record.message for record in log.records) == 2


@pytest.mark.parametrize('shape', [(20, 56), (5, 7), (1, 40), (31, 31), (1, 1)])
def test_small_images_are_reflected(tmp_path, shape):
    img = picture(0, *shape)
    padded = lone_image(tmp_path, 'a.png', encode(img, '.png')).permute(1, 2, 0).numpy()[..., ::-1]

    def source(position, missing, side):
        period = max(2 * side - 2, 1)
        position = (position - missing // 2) % period
        return min(position, period - position) if side > 1 else 0

    h, w = (max(32, side) for side in shape)
    rows = [source(i, h - shape[0], shape[0]) for i in range(h)]
    cols = [source(i, w - shape[1], shape[1]) for i in range(w)]
    assert np.array_equal(padded, img[rows][:, cols])


@pytest.mark.parametrize('resize, size', [(32, (32, 45)), (400, (40, 56)), ([34, 36], (34, 36))])
def test_resize(tmp_path, resize, size):
    img = picture(0)
    held = lone_image(tmp_path, 'a.png', encode(img, '.png'), resize=resize)
    expected = cv2.resize(img, size[::-1], interpolation=cv2.INTER_AREA)
    assert np.array_equal(held.permute(1, 2, 0).numpy()[..., ::-1], expected)


def test_kinds_of_images(tmp_path):
    pil = pytest.importorskip('PIL.Image')
    img = cv2.GaussianBlur(picture(0), (0, 0), 3)
    rgb = np.ascontiguousarray(img[..., ::-1])
    gray, alpha = img[..., 0], picture(1)[..., 0]
    pil.fromarray(rgb).quantize(16).save(tmp_path / 'palette.png')
    palette = np.asarray(pil.open(tmp_path / 'palette.png').convert('RGB'))
    exif = pil.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    pil.fromarray(rgb).save(tmp_path / 'turned.png', exif=exif)
    cases = {
        'color.png': (encode(img, '.png'), rgb),
        'color.webp': (encode(img, '.webp', cv2.IMWRITE_WEBP_QUALITY, 101), rgb),
        'COLOR.BMP': (encode(img, '.bmp'), rgb),
        'gray.png': (encode(gray, '.png'), np.dstack([gray] * 3)),
        'rgba.png': (encode(np.dstack([img, alpha]), '.png'), rgb),
        'palette.png': ((tmp_path / 'palette.png').read_bytes(), palette),
        'deep.png': (encode(img.astype(np.uint16) * 257, '.png'), rgb),
        'deep_gray.png': (encode(gray.astype(np.uint16) * 257, '.png'), np.dstack([gray] * 3)),
        'deep.tiff': (encode(img.astype(np.uint16) * 257, '.tiff'), rgb),
        'turned.png': ((tmp_path / 'turned.png').read_bytes(), np.rot90(rgb, -1)),
    }
    for name, (content, expected) in cases.items():
        folder = tmp_path / name.replace('.', '_')
        folder.mkdir()
        held = lone_image(folder, name, content).permute(1, 2, 0).numpy()
        assert held.dtype == np.uint8 and np.array_equal(held, expected), name


@pytest.mark.parametrize('cache', [True, False])
def test_unreadable_files_are_named_and_skipped(folders, log, cache):
    whole = {ext: encode(picture(9, 200, 300), ext) for ext in ('.png', '.jpg', '.webp', '.bmp', '.tiff')}
    for ext, content in whole.items():
        (folders / 'lq' / f'cut{ext}').write_bytes(content[:len(content) * 9 // 10])
    (folders / 'lq' / 'end.jpg').write_bytes(whole['.jpg'][:-2])
    (folders / 'gt' / 'empty.png').write_bytes(b'')
    (folders / 'gt' / 'text.png').write_text('not a picture')
    (folders / 'gt' / 'dangling.png').symlink_to(folders / 'nowhere.png')
    dataset = make(folders, cache=cache)
    assert len(dataset) == 5 and len(dataset.normal) == 4
    warnings = [record.message for record in log.records if record.levelname == 'WARNING']
    bad = ['cut.png', 'cut.jpg', 'cut.webp', 'cut.bmp', 'cut.tiff', 'end.jpg', 'empty.png', 'text.png']
    assert len(warnings) == len(bad)
    assert all(sum(name in warning and 'skipped' in warning for warning in warnings) == 1 for name in bad)
    assert all(int(path[-5]) == i for i, path in enumerate(dataset.low.paths))  # the others keep their pixels
    assert np.array_equal(dataset.low[4].numpy()[::-1].transpose(1, 2, 0), picture(4))


def test_other_files_are_ignored_and_named_once(folders, log):
    for name in ('notes.txt', 'Thumbs.db', '.DS_Store', '._0.png'):
        (folders / 'lq' / name).write_text('x')
    (folders / 'lq' / 'more').mkdir()
    assert len(make(folders)) == 5
    messages = [record.message for record in log.records if 'files' in record.message]
    assert len(messages) == 1 and messages[0].endswith(': notes.txt')
    assert not [record for record in log.records if record.levelname == 'WARNING']


@pytest.mark.parametrize('problem, message', [
    ({'dataroot_lq': 'no/such/folder'}, r"dataroot_lq: folder 'no/such/folder' does not exist"),
    ({'io_backend': {'type': 'memcached'}}, r"io_backend: type 'memcached' is not supported here; use disk or lmdb"),
    ({'io_backend': {'type': 'lmdb'}}, r'dataroot_lq: .* is no LMDB of BasicSR'),
    ({'exclude_names': 'absent.txt'}, r"exclude_names: the list 'absent.txt' cannot be read"),
    ({'phase': 'val'}, r"phase 'val' is not supported"),
    ({'resize': [40]}, r'resize: \[40\] is neither'),
    ({'resize': '40x40'}, r'resize: 40x40 is neither'),
    ({'resize': 0}, r'resize: 0 is neither'),
])
def test_mistakes_get_one_line(folders, problem, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        make(folders, **problem)
    assert '\n' not in str(error.value)


def test_folders_without_usable_images_are_refused(folders):
    with pytest.raises(ValueError, match='dataroot_lq: exclude_names leaves no image'):
        make(folders, exclude_names=write(folders, '0\n1\n2\n3\n4'))
    with pytest.raises(ValueError, match='holds no names'):
        make(folders, exclude_names=write(folders, '# nothing\n'))
    for file in (folders / 'gt').iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match='dataroot_gt: none of the 4 images .* can be read'):
        make(folders)
    for file in list((folders / 'gt').iterdir()):
        file.rename(file.with_suffix('.heic'))
    with pytest.raises(ValueError, match=r'dataroot_gt: no image in .*4 other files, such as 0\.heic'):
        make(folders)


def test_several_folders_with_weights(folders):
    dataset = make(folders, dataroot_lq=[str(folders / 'lq'), str(folders / 'gt')], weights_lq=[1, 3],
                   dataroot_gt=[str(folders / 'gt')])
    counts = [dataset.low.paths.count(path) for path in dict.fromkeys(dataset.low.paths)]
    assert len(dataset) == 5 + 3 * 4 and counts == [1] * 5 + [3] * 4
    first, again = [index for index, path in enumerate(dataset.low.paths) if path == dataset.low.paths[5]][:2]
    assert torch.equal(dataset.low[first], dataset.low[again]) and len(dataset.normal) == 4


@pytest.mark.parametrize('changes, line', [
    ({'crop_scale': [1, 0.5]}, r'crop_scale: \[1, 0.5\] is not \[smallest, largest\]'),
    ({'weights_gt': [1, 2]}, 'weights_gt: has 2 numbers for 1 folders of dataroot_gt'),
    ({'dataroot_lq': ['a.lmdb', 'b.lmdb'], 'io_backend': {'type': 'lmdb'}}, 'several folders need'),
])
def test_folders_that_do_not_suit(folders, changes, line):
    with pytest.raises(ValueError, match=line):
        make(folders, **changes).low  # noqa: B018


def test_resized_crops_show_most_of_a_picture(folders):
    """A bright frame around a dark middle: whatever the crop, part of both is seen, at the size that is asked for."""
    img = np.full((90, 120, 3), 255, np.uint8)
    img[15:-15, 15:-15] = 0
    for key in ('lq', 'gt'):
        for path in (folders / key).iterdir():
            cv2.imwrite(str(path), img)
    dataset = make(folders, crop_scale=[0.9, 1.0], gt_size=[16, 24])
    samples = [dataset[SampleIndex(0, 0, draw)]['lq'] for draw in range(20)]
    assert all(sample.shape == (3, 16, 24) and sample.dtype == torch.uint8 for sample in samples)
    assert all(sample.max() > 200 and sample.min() < 50 for sample in samples)
    assert len({sample.float().mean().item() for sample in samples}) > 10


def test_what_lies_beside_the_pictures_is_counted_and_named(folders, log):
    (folders / 'lq' / 'more').mkdir()
    for name in ('gone.png', 'lost.png'):
        (folders / 'lq' / name).symlink_to(folders / 'nowhere.png')
    (folders / 'lq' / 'linked.png').symlink_to(folders / 'gt' / '0.png')
    assert len(make(folders)) == 6
    said = [record.message for record in log.records if 'ignored' in record.message]
    assert said == ['dataroot_lq: 1 sub-folders ignored: more',
                    'dataroot_lq: 2 links to nothing ignored: gone.png, lost.png']
