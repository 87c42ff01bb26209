import cv2
import hashlib
import json
import numpy as np
import os
import pytest
import shutil
import zipfile
from basicsr.data import build_dataset
from pathlib import Path

import lowlight_cyclegan
from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.prepare import manifest
from lowlight_cyclegan.prepare.layouts import LAYOUTS, prepare

lowlight_cyclegan.register()


@pytest.fixture
def lol(tmp_path, write_pairs):
    """A small LOL as it is downloaded: 3 training and 2 test pairs."""
    write_pairs(tmp_path / 'LOLdataset' / 'our485', 3, seed=1)
    write_pairs(tmp_path / 'LOLdataset' / 'eval15', 2, seed=2)
    return tmp_path / 'LOLdataset'


def command(*args):
    cli.main(['data', *map(str, args)])


def read_manifest(folder):
    return json.loads((folder / 'manifest.json').read_text())


def test_lol_from_archive_and_folder(tmp_path, lol, capsys):
    shutil.make_archive(str(tmp_path / 'LOL'), 'zip', tmp_path, 'LOLdataset')
    for source, output in ((lol, 'a'), (tmp_path / 'LOL.zip', 'b')):
        command('lol', source, '--output', tmp_path / output, '--partial')
    assert '2 pairs in eval15, 3 pairs in our485' in capsys.readouterr().out
    a, b = (read_manifest(tmp_path / name / 'LOL') for name in 'ab')
    assert [e.pop('source').removeprefix('LOLdataset/') for e in b['images']] == [e.pop('source') for e in a['images']]
    assert a == b and len(a['images']) == 10 and sorted(p.name for p in (tmp_path / 'a').iterdir()) == ['LOL']
    for entry in a['images']:
        file = tmp_path / 'a' / 'LOL' / entry['path']
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry['sha256']
        assert entry['size'] == [40, 48] and entry['role'] == ('train' if 'our485' in entry['path'] else 'test')


def test_repeated_and_interrupted_runs(tmp_path, lol, capsys, refusal, monkeypatch):
    target = tmp_path / 'out' / 'LOL'
    written = []

    def die(path, content, **kwargs):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content, **kwargs)

    write = manifest.atomic_write
    monkeypatch.setattr(manifest, 'atomic_write', die)
    with pytest.raises(KeyboardInterrupt):
        prepare(LAYOUTS['lol'], [str(lol)], str(tmp_path / 'out'), partial=True)
    monkeypatch.undo()
    staging = tmp_path / 'out' / '.LOL.partial'
    assert not target.exists() and staging.is_dir()
    Path(written[0]).write_bytes(b'half')
    (staging / 'eval15' / 'low' / 'stray.png').write_bytes(b'of another source')
    prepare(LAYOUTS['lol'], [str(lol)], str(tmp_path / 'out'), partial=True)
    assert not staging.exists() and len(list(target.rglob('*.png'))) == 10
    prepare(LAYOUTS['lol'], [str(lol)], str(tmp_path / 'out'), partial=True)
    assert f'complete {target}' in capsys.readouterr().out
    (target / 'eval15' / 'low' / '0.png').write_bytes(b'changed')
    assert 'not what the manifest says' in refusal(prepare, LAYOUTS['lol'], [str(lol)], str(tmp_path / 'out'))
    (target / 'manifest.json').unlink()
    assert 'no readable manifest.json' in refusal(prepare, LAYOUTS['lol'], [str(lol)], str(tmp_path / 'out'))


def test_wrong_sources_are_refused(tmp_path, lol, refusal):

    def refused(source=lol, partial=True):
        line = refusal(prepare, LAYOUTS['lol'], [str(source)], str(tmp_path / 'out'), partial)
        assert not (tmp_path / 'out' / 'LOL').exists()
        return line

    with pytest.raises(ValueError, match='3 pairs in our485, 485 are published(.|\n)*15 are published'):
        prepare(LAYOUTS['lol'], [str(lol)], str(tmp_path / 'out'))
    assert 'no images found' in refused(lol / 'our485' / 'low')
    high = lol / 'our485' / 'high' / '1.png'
    good = high.read_bytes()
    high.write_bytes(good[:200])
    assert 'our485/high/1.png cannot be read: not an image OpenCV can decode, or cut short' in refused()
    cv2.imwrite(str(high), np.zeros((8, 9, 3), np.uint8))
    assert 'our485/low/1.png is 40x48, its high image 9x8' in refused()
    high.unlink()
    assert 'our485/low/1.png has no high image' in refused()
    high.write_bytes(good)
    (lol / 'our485' / 'high' / '1.jpg').write_bytes(good)
    assert 'have the same name' in refused()


def test_long_lists_of_problems_are_cut(tmp_path, write_pairs):
    write_pairs(tmp_path / 'our485', 14)
    for path in (tmp_path / 'our485' / 'high').iterdir():
        path.write_bytes(b'')
    with pytest.raises(ValueError) as stop:
        prepare(LAYOUTS['lol'], [str(tmp_path)], str(tmp_path / 'out'), partial=True)
    lines = str(stop.value).split('\n')
    assert len(lines) == 11 and 'empty file' in lines[0] and lines[-1] == '... and 4 more'


def test_warnings(tmp_path, lol, capsys):
    low, high = lol / 'our485' / 'low', lol / 'our485' / 'high'
    shutil.copy(low / '0.png', low / '1.png')  # a duplicate, and misaligned
    shutil.copy(high / '2.png', lol / 'eval15' / 'high' / '0.png')  # test scene among the training images
    shutil.copy(low / '2.png', lol / 'eval15' / 'low' / '0.png')
    prepare(LAYOUTS['lol'], [str(lol)], str(tmp_path / 'out'), partial=True)
    output = capsys.readouterr().out
    assert 'our485/1: low and high image correlate by' in output and 'our485/0: low' not in output
    assert '3 images repeat another of their kind pixel by pixel' in output
    assert '1 of 2 test inputs show a view that is among the training inputs (1 of them identical)' in output
    content = read_manifest(tmp_path / 'out' / 'LOL')
    assert len(content['warnings']) == 3
    assert content['duplicates'] == {'our485/low/1.png': 'our485/low/0.png', 'our485/low/2.png': 'eval15/low/0.png',
                                     'our485/high/2.png': 'eval15/high/0.png'}


def test_lolv2_names_are_made_alike(tmp_path, write_pairs, capsys):
    root = tmp_path / 'LOL-v2'
    for half in ('Real_captured', 'Synthetic'):
        for split in ('Train', 'Test'):
            folder = write_pairs(root / half / split, 1, 'Low', 'Normal')
            (folder / 'Low' / '0.png').rename(folder / 'Low' / 'low00690.png')
            (folder / 'Normal' / '0.png').rename(folder / 'Normal' / 'normal00690.png')
    command('lolv2', root, '--output', tmp_path, '--partial')
    assert 'pixel-identical to training images of LOL' in capsys.readouterr().out
    images = read_manifest(tmp_path / 'LOL-v2-real')['images']
    assert [e['path'] for e in images] == ['test/low/00690.png', 'test/high/00690.png', 'train/low/00690.png',
                                           'train/high/00690.png']
    assert images[3]['source'] == 'Real_captured/Train/Normal/normal00690.png'


def test_one_split_is_a_dataset_too(tmp_path, write_pairs, capsys, monkeypatch, refusal):
    monkeypatch.setitem(LAYOUTS['lolv2'].counts, 'test', 2)
    folder = write_pairs(tmp_path / 'Test', 2, 'Low', 'Normal')
    for kind, word in (('Low', 'low'), ('Normal', 'normal')):
        for i in range(2):
            (folder / kind / f'{i}.png').rename(folder / kind / f'{word}0069{i}.png')
    command('lolv2', tmp_path, '--output', tmp_path)
    assert f'no pairs of train in {tmp_path}: laid out without' in capsys.readouterr().out
    target = tmp_path / 'LOL-v2-real'
    assert sorted(path.name for path in target.iterdir()) == ['manifest.json', 'test']
    shutil.rmtree(target)
    for kind in ('Low', 'Normal'):
        next((folder / kind).glob('*1.png')).unlink()
    assert '1 pairs in test, 2 are published' in refusal(command, 'lolv2', tmp_path, '--output', tmp_path)


def test_lsrw_pick_is_fixed(tmp_path, write_pairs, capsys):
    for camera in ('Huawei', 'Nikon'):
        write_pairs(tmp_path / camera, 20, seed=len(camera))
    command('lsrw', tmp_path / 'Huawei' / '..', '--output', tmp_path, '--partial')
    assert 'test pairs of the paper are not published' in capsys.readouterr().out
    picked = {path.stem for path in (tmp_path / 'LSRW' / 'test' / 'low').iterdir()}
    names = [f'{camera}_{i}' for camera in ('huawei', 'nikon') for i in range(20)]
    assert picked == set(sorted(names, key=lambda name: hashlib.sha256(f'2024:{name}'.encode()).hexdigest())[:30])
    assert {path.stem for path in (tmp_path / 'LSRW' / 'train' / 'high').iterdir()} == set(names) - picked


def test_folder_with_lmdb(tmp_path, write_pairs, capsys):
    write_pairs(tmp_path / 'mine', 3)
    args = ('folder', tmp_path / 'mine' / 'low', tmp_path / 'mine' / 'high', '--name', 'Mine', '--output', tmp_path)
    command(*args, '--lmdb')
    command(*args, '--lmdb')
    root = tmp_path / 'Mine'
    assert f'complete {root / "low"}.lmdb' in capsys.readouterr().out
    opt = dict(name='m', type='PairedImageDataset', phase='val', scale=1, dataroot_lq=f'{root}/low.lmdb',
               dataroot_gt=f'{root}/high.lmdb', io_backend=dict(type='lmdb'))
    pairs = build_dataset(opt)
    expected = cv2.imread(str(tmp_path / 'mine' / 'low' / '1.png'))[..., ::-1]
    assert len(pairs) == 3 and np.array_equal((pairs[1]['lq'].numpy().transpose(1, 2, 0) * 255).round(), expected)


def test_plain_folders_pair_by_number(tmp_path, write_pairs, caplog):
    write_pairs(tmp_path / 'mine', 2)
    for i in range(2):
        (tmp_path / 'mine' / 'low' / f'{i}.png').rename(tmp_path / 'mine' / 'low' / f'dark_{i}.png')
    (tmp_path / 'mine' / 'high' / 'more').mkdir()
    shutil.copy(tmp_path / 'mine' / 'high' / '1.png', tmp_path / 'mine' / 'high' / 'more' / '7.png')
    command('folder', tmp_path / 'mine' / 'low', tmp_path / 'mine' / 'high', '--name', 'Mine', '--output', tmp_path)
    assert 'Mine: 2 pairs by number, such as dark_0 with 0' in caplog.text
    assert '1 files in sub-folders or of other kinds are left out, such as more/7.png' in caplog.text
    assert sorted(path.name for path in (tmp_path / 'Mine' / 'low').iterdir()) == ['0.png', '1.png']


def test_folder_refusals(tmp_path, write_pairs, refusal):
    write_pairs(tmp_path, 1)
    assert 'give two folders' in refusal(command, 'folder', tmp_path / 'low', '--name', 'a')
    assert 'plain name' in refusal(command, 'folder', tmp_path / 'low', tmp_path / 'high', '--name', '../a')


def test_archive_with_a_damaged_image(tmp_path, lol, refusal):
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z:
        for path in sorted(lol.rglob('*.png')):
            z.write(path, str(path.relative_to(lol)))
    content = (tmp_path / 'x.zip').read_bytes()
    start = content.index((lol / 'eval15' / 'high' / '0.png').read_bytes()) + 50
    (tmp_path / 'x.zip').write_bytes(content[:start] + b'xxxx' + content[start + 4:])
    line = refusal(prepare, LAYOUTS['lol'], [str(tmp_path / 'x.zip')], str(tmp_path / 'out'), partial=True)
    assert 'eval15/high/0.png cannot be read: damaged in the archive' in line


def test_full_disk(tmp_path, lol, refusal, monkeypatch):

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    assert 'make room' in refusal(command, 'lol', lol, '--output', tmp_path / 'out', '--partial')
