import csv
import pytest
import sys
import yaml
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'scripts'))
import results  # noqa: E402


@pytest.fixture
def run(tmp_path, write_pairs, write_images, monkeypatch):
    """Function that runs the script on toy data: what it printed, and the report."""
    shared = tmp_path / 'shared'
    write_pairs(shared / 'data' / 'LOLv1' / 'eval15', 3)
    write_images(shared / 'data' / 'photos' / 'val', 3)
    for kind in ('under', 'over'):
        write_images(shared / 'data' / 'exposures' / kind, 4, brightness=60 if kind == 'under' else 255)
    recipes = {'methods': {'input': {'learned from': 'nothing'}, 'gamma': {}, 'gone': {'weights': 'no/such.pth'}},
               'ablations': {}, 'notes': {'x': 'In words.'},
               'paper': {'LOL': {'gamma': [12.34, 0.5, 0.25, 6], 'CycleGAN': [15, 0.6, 0.2, 5]}}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results.Protocol, '__init__', lambda self, *args, lpips='none', _init=results.Protocol.__init__,
                        **kwargs: _init(self, *args, lpips='none', **kwargs))
    (tmp_path / 'options').mkdir()

    def run(*args):
        (tmp_path / 'recipes.yml').write_text(yaml.safe_dump(recipes, sort_keys=False))
        monkeypatch.setattr(sys, 'argv', ['results.py', '--shared', str(shared), '--recipes', 'recipes.yml', '--output',
                                          'options', *args])
        results.main()
        return (tmp_path / 'options' / 'RESULTS.md').read_text()

    run.recipes = recipes
    return run


def test_only_what_is_missing_is_measured(run, tmp_path, capsys):
    text = run()
    output = capsys.readouterr().out
    assert 'gone: ' in output and 'is not here' in output
    assert 'input on LOL: 3 images' in output and 'gamma on scenes: 2 images' in output
    assert 'gamma on dark_partial: 2 images' in output and 'input on jpeg_ev-2: 3 images' in output
    rows = list(csv.DictReader((tmp_path / 'options' / 'results' / 'LOL.csv').open()))
    images = [(method, str(i)) for method in ('input', 'gamma') for i in range(3)]
    assert [(row['method'], row['image']) for row in rows] == images
    mean = sum(float(row['psnr']) for row in rows[3:]) / 3
    assert f'| gamma |  | 3 | {mean:.2f} ±' in text and '| 12.34 | 0.500 | 0.250 | 6.00 |' in text
    assert '| CycleGAN |  | 0 | – |' in text and 'the set is not here' in text and 'In words.' in text
    assert '| method | as they are (3) | -2 EV (3) | -4 EV (3) | dark in part (2) | real scenes (2) |' in text

    assert run() == text and ' images, ' not in capsys.readouterr().out
    (tmp_path / 'options' / 'results' / 'dark_ev-2.csv').unlink()
    run()
    assert [line.split(':')[0] for line in capsys.readouterr().out.splitlines() if ' images, ' in line] == [
        'input on dark_ev-2', 'gamma on dark_ev-2']


def test_another_recipe_is_measured_again(run, tmp_path, capsys, write_pairs):
    run()
    capsys.readouterr()
    low = tmp_path / 'shared' / 'data' / 'LOLv1' / 'eval15' / 'low'
    (low / '0.png').write_bytes((low / '1.png').read_bytes())
    run()
    assert [line.split(':')[0] for line in capsys.readouterr().out.splitlines() if ' images, ' in line] == [
        'input on LOL', 'gamma on LOL']


def test_nothing_new_after_the_minutes(run, capsys):
    text = run('--minutes', '0', '--figures')
    assert (Path('results/evidence/figures') / 'comparison_LOL.png').exists()
    assert ' images, ' not in capsys.readouterr().out and 'the set is not here' in text


def test_ablation_by_hand():
    rows = {f'r, {row}, seed {seed}': [{'psnr': value + seed, 'ssim': 0.5, 'lpips': 0.1} for _ in range(2)]
            for row, value in (('plain', 10), ('ema', 11)) for seed in (0, 2)}
    table = results.ablation_table('r', {'budget': '9it', 'seeds': [0, 2]}, rows)
    plain, ema = table.rows[:2]
    assert plain['psnr'] == (11, pytest.approx(2**0.5)) and 'psnr_difference' not in plain
    assert ema['psnr_difference'] == (1, 1, 1) and ema['seeds'] == 2 and table.rows[2]['seeds'] == 0
