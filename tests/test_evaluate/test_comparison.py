import csv
import cv2
import json
import math
import numpy as np
import os
import pytest
import shutil
from basicsr.metrics import calculate_psnr, calculate_ssim

from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.evaluate.cache import Cache
from lowlight_cyclegan.evaluate.methods import Method
from lowlight_cyclegan.evaluate.pairs import find_pairs


@pytest.fixture
def data(tmp_path, write_pairs):
    return write_pairs(tmp_path / 'toy', 3)


@pytest.fixture
def evaluate(tmp_path, data, monkeypatch):
    """Function that evaluates methods on the toy pairs: the table as JSON, and how many images were enhanced."""
    calls = []
    enhance = Method.enhance
    monkeypatch.setattr(Method, 'enhance', lambda *args: calls.append(1) or enhance(*args))

    def run(methods, *args, output='out', figures=False):
        calls.clear()
        flags = [flag for method in methods for flag in ('--method', method)]
        cli.main(['evaluate', *flags, '--data', f'toy={data}/low:{data}/high', '--lpips', 'none', '--output',
                  str(tmp_path / output), *([] if figures else ['--no-figures']), *args])
        return json.loads((tmp_path / output / 'table.json').read_text()), len(calls)

    return run


def test_table_equals_basicsr(evaluate, data, tmp_path, capsys):
    table, _ = evaluate(['input', 'gamma'], figures=True)
    row, other = table['tables'][0]['rows']
    pairs = [[cv2.imread(str(data / kind / f'{i}.png')) for kind in ('low', 'high')] for i in range(3)]
    psnr = [calculate_psnr(low, high, 0) for low, high in pairs]
    assert row['psnr'] == pytest.approx([np.mean(psnr), np.std(psnr, ddof=1) / math.sqrt(3)])
    assert row['ssim'][0] == pytest.approx(np.mean([calculate_ssim(low, high, 0) for low, high in pairs]))
    assert row['niqe'] == [None, None] and row['lpips'] == [None, None]  # below 96 pixels; left out
    assert (row['method'], row['n'], other['method']) == ('input', 3, 'gamma')
    assert row['psnr_gt_mean'][0] > row['psnr'][0] + 10  # only the exposure differs
    difference = table['tables'][1]['rows'][0]
    assert difference['psnr'][0] == pytest.approx(other['psnr'][0] - row['psnr'][0])
    assert difference['psnr'][1] < difference['psnr'][0] < difference['psnr'][2]
    out = tmp_path / 'out'
    for name in ('table.md', 'table.csv', 'differences.csv', 'comparison_toy.png', 'sheet_toy.jpg'):
        assert (out / name).stat().st_size > 0, name
    text = capsys.readouterr().out
    for where in (text, (out / 'table.md').read_text()):
        assert 'PSNR and SSIM on RGB, border 0, rounding to 8 bits: nearest, resize: off' in where
        assert f"{row['psnr'][0]:.3f} ± {row['psnr'][1]:.3f}" in where
    images = list(csv.DictReader((out / 'per_image.csv').open()))
    assert [(r['method'], r['image']) for r in images] == [(m, str(i)) for m in ('input', 'gamma') for i in range(3)]
    assert float(images[1]['psnr']) == pytest.approx(psnr[1])


def test_data_without_references(evaluate, data, tmp_path):
    table, count = evaluate(['input', 'gamma'], '--data', f'alone={data}/low', figures=True)
    paired, _, row, gamma = table['tables'][0]['rows']
    assert (row['data'], row['n'], count) == ('alone', 3, 6)  # the same pictures, enhanced once
    assert row['psnr'] == [None, None] and row['brightness'] == [0, 0] and row['chroma'] == [1, 0]
    assert gamma['brightness'][0] > 0.1 and gamma['clipped'] == [0, 0] and paired['brightness'] == [None, None]
    out = tmp_path / 'out'
    assert (out / 'sheet_alone.jpg').stat().st_size and not (out / 'comparison_alone.png').exists()


def test_metric_of_pyiqa_and_cap(evaluate):
    pytest.importorskip('pyiqa')
    table, _ = evaluate(['input'], '--metric', 'ssimc', '--psnr-cap', '5')
    row = table['tables'][0]['rows'][0]
    assert row['psnr'] == [5, 0] and 0 < row['ssimc'][0] < 1


def test_cache(evaluate, data, tmp_path):
    first, count = evaluate(['input'])
    assert count == 3
    table, count = evaluate(['input', 'gamma'])
    assert count == 3 and table['tables'][0]['rows'][0] == first['tables'][0]['rows'][0]
    assert evaluate(['gamma', 'input'])[1] == 0
    uniform, count = evaluate(['input'], '--ssim', 'uniform')  # another protocol measures the same pictures
    assert count == 0 and uniform['tables'][0]['rows'][0]['ssim'] != first['tables'][0]['rows'][0]['ssim']
    shutil.move(data / 'low' / '0.png', data / 'low' / 'x.png')
    shutil.move(data / 'high' / '0.png', data / 'high' / 'x.png')
    assert evaluate(['input'])[1] == 0  # content counts, not names
    cv2.imwrite(str(data / 'high' / '1.png'), cv2.imread(str(data / 'high' / '1.png')) // 2)
    assert evaluate(['input'])[1] == 0  # the method does not see the reference
    low = data / 'low' / '1.png'
    cv2.imwrite(str(low), cv2.imread(str(low)) // 2)
    assert evaluate(['input'])[1] == 1
    for name in os.listdir(tmp_path / 'out' / 'cache'):  # broken entries are made again
        (tmp_path / 'out' / 'cache' / name).write_bytes(b'{') if name.endswith('.json') else None
    assert evaluate(['input'])[1] == 3


def test_clean_rows_and_warning(evaluate, data, tmp_path, caplog):
    train = tmp_path / 'train'
    train.mkdir()
    shutil.copy(data / 'low' / '0.png', train)
    cv2.imwrite(str(train / '1.png'), cv2.imread(str(data / 'high' / '1.png')) // 2)
    table, _ = evaluate(['input', 'gamma'], '--train-manifest', str(train))
    line = 'toy: of its 3 images 1 are identical to training images and 1 more show the same view'
    assert line in caplog.text and any(line in note for note in table['notes'])
    rows = table['tables'][0]['rows']
    assert [(r['data'], r['method'], r['n']) for r in rows] == [
        (title, method, n) for title, n in (('toy', 3), ('toy, no identical image in training', 2),
                                            ('toy, no view of it in training', 1)) for method in ('input', 'gamma')]
    alone = next(r for r in table['images'] if (r['image'], r['method']) == ('2', 'gamma'))
    assert rows[-1]['psnr'] == [alone['psnr'], None]
    shutil.rmtree(train)
    train.mkdir()
    cv2.imwrite(str(train / '1.png'), np.random.default_rng(5).integers(0, 9, (48, 40, 3), dtype=np.uint8))
    assert len(evaluate(['input'], '--train-manifest', str(train))[0]['tables'][0]['rows']) == 1


def test_mistakes_are_one_line(evaluate, data, tmp_path, refusal):
    assert 'is there twice' in refusal(evaluate, ['input', 'input'])
    assert '--baseline x: is none of the methods: input' in refusal(evaluate, ['input'], '--baseline', 'x')
    assert 'x: is no manifest' in refusal(evaluate, ['input'], '--train-manifest', 'x')
    assert '--lpips-trunk x: no such file' in refusal(evaluate, ['input'], '--lpips-trunk', 'x')
    assert 'device nowhere: ' in refusal(evaluate, ['input'], '--device', 'nowhere')
    assert 'write it as NAME=LOW_FOLDER:HIGH_FOLDER' in refusal(find_pairs, 'toy=')
    assert "'a/b' does not" in refusal(find_pairs, 'a/b=low:high')
    assert 'no such folder' in refusal(find_pairs, f'toy={data}/low:{data}/absent')
    assert 'no images in' in refusal(find_pairs, f'toy={data}/low:{data}')
    (data / 'low' / '1.png').write_bytes(b'x')
    assert 'low/1.png: cannot be read' in refusal(evaluate, ['input'])
    cv2.imwrite(str(data / 'low' / '1.png'), np.zeros((9, 9, 3), np.uint8))
    assert 'is 9x9, its reference' in refusal(evaluate, ['input'])
    cv2.imwrite(str(data / 'high' / '1.png'), np.zeros((9, 9, 3), np.uint8))
    assert 'too small' in refusal(evaluate, ['input'])
    (data / 'low' / '1.png').unlink()
    assert '1 images are in one of the folders alone, such as 1' in refusal(evaluate, ['input'])


def test_cache_entries_need_both_files(tmp_path):
    cache, record = Cache(str(tmp_path / 'cache')), {'psnr': 1.0, 'ms': 2.0}
    cache.put('k', record, np.zeros((4, 4, 3), np.uint8))
    assert cache.get('k', {'psnr'}) == record and cache.get('k', {'psnr', 'ssim'}) is None
    (tmp_path / 'cache' / 'k.png').unlink()
    assert cache.get('k', {'psnr'}) is None
