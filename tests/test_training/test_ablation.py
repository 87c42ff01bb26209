import csv
import os
import pytest
import signal
import sys
import yaml

from lowlight_cyclegan.config import load_options
from lowlight_cyclegan.training import ablation, budget
from lowlight_cyclegan.training.ablation import ROWS, ablate, parse_budget, row_options, summary_table


def test_budget(refusal):
    assert parse_budget('500it') == (500, None) and parse_budget('1.5min') == (None, 1.5)
    for text in ('500', '1.5it', '0it', '-3min', 'min'):
        assert 'write it as 500it or 10min' in refusal(parse_budget, text)


def test_rows_differ_by_their_switches_alone(toy_run):
    base = load_options(toy_run / 'toy.yml')
    for row, switches in ROWS.items():
        opt = row_options(base, row, 3, 7)
        assert opt.pop('name') == f'{row}_seed3' and opt['manual_seed'] == 3
        assert opt['train'].pop('total_iter') == opt['val'].pop('val_freq') == 7
        for key in ('network_g', 'network_f'):
            assert (opt[key].pop('use_ema'), opt[key].pop('use_aspp')) == switches
        assert opt['network_g'] == base['network_g'] and opt['datasets'] == base['datasets']
    assert len(set(ROWS.values())) == 4 and 'use_ema' not in base['network_g']


def test_summary_by_hand():
    results = [{'row': row, 'seed': seed, 'iterations': 9, 'psnr': value}
               for row, values in (('plain', (1.0, 3.0)), ('ema', (2.0, 2.0))) for seed, value in zip((0, 5), values)]
    table = summary_table(results, {'psnr': 'higher'})
    assert table.headings() == ['variant', 'iterations', 'psnr ↑', 'psnr, seed 0 ↑', 'psnr, seed 5 ↑']
    assert table.cells() == [['CycleGAN', '9', '2.0000 ± 1.4142', '1.0000', '3.0000'],
                             ['with EMA', '9', '2.0000 ± 0.0000', '2.0000', '2.0000']]
    assert 'no spread' in summary_table(results[:1], {'psnr': 'higher'}).title


@pytest.fixture
def run(toy_run, forked, monkeypatch):
    """Function that runs an ablation of the toy, each training in a fork; what it trained goes to ``run.trained``."""
    import lowlight_cyclegan
    lowlight_cyclegan.register()
    monkeypatch.chdir(toy_run)

    def train(opt_file, folder):
        from lowlight_cyclegan.train import main
        monkeypatch.setattr(sys, 'argv', ['train', '-opt', opt_file, '--auto_resume'])

        code, output = forked(main)
        run.trained.append(os.path.basename(opt_file)[:-4])
        assert code == 0 or run.fails, output
        return code

    def run(budget='2it', seeds=(0, 1), train=train):
        run.trained, run.fails = [], False
        ablate('toy.yml', budget, list(seeds), 'out', train)

    return run


def test_values_that_are_names_of_files_too(run, toy_run):
    """Options stay as they are, whatever lies in the folder."""
    base = load_options(toy_run / 'toy.yml')
    for name in ('vanilla', 'lsgan', 'psnr', 'auto', 'disk', 'Adam'):
        (toy_run / name).write_text('')
    run(seeds=[0])
    opt = yaml.safe_load((toy_run / 'out' / 'options' / 'plain_seed0.yml').read_text())
    assert opt['datasets'] == base['datasets'] and opt['val']['metrics'] == base['val']['metrics']
    assert {**opt['train'], 'total_iter': None} == {**base['train'], 'total_iter': None}


def test_four_rows_once(run, toy_run, capsys):
    run(seeds=[0])
    assert run.trained == ['plain_seed0', 'ema_seed0', 'aspp_seed0', 'ema_aspp_seed0']
    rows = list(csv.DictReader((toy_run / 'out' / 'ablation.csv').open()))
    assert [(r['row'], r['seed'], r['iterations']) for r in rows] == [(row, '0', '2') for row in ROWS]
    assert len({r['psnr'] for r in rows}) == 4
    opt = yaml.safe_load((toy_run / 'out' / 'options' / 'ema_seed0.yml').read_text())
    assert opt['datasets']['train']['dataroot_lq'] == 'data/low' and not (toy_run / 'experiments').exists()
    table = toy_run / 'out' / 'experiments' / 'ema_seed0' / 'metrics' / 'toy_val_2.csv'
    values = [float(r['psnr']) for r in csv.DictReader(table.open())]
    assert float(rows[1]['psnr']) == pytest.approx(sum(values) / 2)

    table.unlink()  # as if that run had been interrupted
    run(seeds=[0])
    assert run.trained == ['ema_seed0']
    assert list(csv.DictReader((toy_run / 'out' / 'ablation.csv').open())) == rows
    assert 'Ablation, seed 0 alone' in capsys.readouterr().out
    assert '| with EMA and ASPP | 2 |' in (toy_run / 'out' / 'ablation.md').read_text()


def fake(psnr):
    """A training that leaves a table behind and does nothing else."""

    def train(opt_file, folder):
        with open(opt_file) as f:
            opt = yaml.safe_load(f)
        table = ablation._validation_file(folder, opt)
        os.makedirs(os.path.dirname(table))
        with open(table, 'w') as f:
            f.write(f'image,psnr\n0,{psnr + opt["manual_seed"]}\n1,inf\n')
        return 0

    return train


def test_more_seeds_join_and_other_budgets_do_not(run, toy_run, refusal):
    run(seeds=[0], train=fake(10))
    run(seeds=[0, 2], train=fake(20))
    text = (toy_run / 'out' / 'ablation.md').read_text()
    assert text.count('16.0000 ± 8.4853 | 10.0000 | 22.0000') == 4
    assert 'other options or another budget' in refusal(run, '3it')
    (toy_run / 'toy.yml').write_text((toy_run / 'toy.yml').read_text().replace('lr: 1e-3', 'lr: 1e-4'))
    assert 'other options or another budget' in refusal(run)
    (toy_run / 'out' / 'plan.json').write_text('{')
    assert 'plan.json: is damaged' in refusal(run)


def test_minutes_become_iterations(run, toy_run, monkeypatch):
    monkeypatch.setattr(budget, 'PROBE_SECONDS', 0.01)
    text = (toy_run / 'toy.yml').read_text()
    text = text.replace('    exclude_names:', '    dataroot_teacher: data/low\n    exclude_names:')
    (toy_run / 'toy.yml').write_text(text.replace('  gan_opt:', '  distill_opt: {type: L1Loss}\n  gan_opt:'))
    run('0.01min', seeds=[0], train=fake(10))
    counts = {r['row']: int(r['iterations']) for r in csv.DictReader((toy_run / 'out' / 'ablation.csv').open())}
    assert counts.keys() == ROWS.keys() and min(counts.values()) >= 1
    monkeypatch.setattr(ablation, 'iterations_within', None)  # counted once
    run('0.01min', seeds=[0], train=None)


def test_failed_training(run, refusal):
    assert 'plain_seed0: training ended with code 7' in refusal(run, train=lambda *_: 7)


def test_training_runs_in_a_process_of_its_own(tmp_path, monkeypatch):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(python))
    assert ablation.run_training('options/a.yml', str(tmp_path)) == 3
    assert (tmp_path / 'a.log').read_text() == '-m lowlight_cyclegan.train -opt options/a.yml --auto_resume\n'


def test_sigterm_reaches_the_training(tmp_path, monkeypatch):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\ntrap "echo saved; exit 143" TERM\nsleep 0.3\nkill -TERM $PPID\n'
                      'for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; done\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(python))
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # should the training be quicker than its parent
    try:
        assert ablation.run_training('options/a.yml', str(tmp_path)) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / 'a.log').read_text() == 'saved\n'


@pytest.mark.parametrize('old, new, line', [
    ('model_type: LowLightCycleGANModel', 'model_type: SRModel', 'model_type: an ablation needs'),
    ('network_f: {type: EMAResNetGenerator', 'network_f: {type: Other', 'network_f: an ablation needs'),
    ('  val:\n    name: toy_val', '  vall:\n    name: toy_val', 'datasets:val: is missing'),
    ('  metrics:', '  metriks:', 'val:metrics: is missing'),
])
def test_unsuitable_options(run, toy_run, refusal, old, new, line):
    text = (toy_run / 'toy.yml').read_text()
    assert old in text
    (toy_run / 'toy.yml').write_text(text.replace(old, new))
    assert line in refusal(run) and not (toy_run / 'out').exists()


def test_repeated_seeds(run, refusal):
    assert 'give each seed once' in refusal(run, seeds=[1, 1])
