import pytest

from lowlight_cyclegan.enhance.pretrained import load_pretrained
from lowlight_cyclegan.training import budget
from lowlight_cyclegan.training.budget import train_within


@pytest.mark.full
def test_ends_inside_the_budget_with_weights_that_load(toy_run, monkeypatch, capsys):
    monkeypatch.chdir(toy_run)
    assert train_within('toy.yml', 2, ['name=short']) == 0
    output = capsys.readouterr().out
    lines = [line for line in output.splitlines() if 'images a second' in line or line.startswith('weights: ')]
    assert len(lines) == 2 and float(lines[1].rsplit('after ', 1)[1].split()[0]) <= 2
    network, options, _ = load_pretrained(lines[1].split()[1].rstrip(','))
    assert options['num_feat'] == 8 and not network.training


def test_refusals(toy_run, monkeypatch, refusal):
    monkeypatch.chdir(toy_run)
    assert '0.5 minutes: give more than 1' in refusal(train_within, 'toy.yml', 0.5)
    (toy_run / 'experiments' / 'toy').mkdir(parents=True)
    assert 'experiments/toy: exists' in refusal(train_within, 'toy.yml', 5)


def test_goes_where_the_options_say(toy_run, monkeypatch, capsys, refusal):
    """The folder of the run is the one that training writes to: it is looked for, watched and filled there."""
    monkeypatch.chdir(toy_run)
    monkeypatch.setattr(budget, 'iterations_within', lambda opt, minutes: 4)
    elsewhere = toy_run / 'elsewhere'
    assert train_within('toy.yml', 5, [f'path:experiments_root={elsewhere}']) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f'weights: {elsewhere}/toy/models/net_g_')
    assert load_pretrained(line.split()[1].rstrip(','))[1]['num_feat'] == 8
    assert not (toy_run / 'experiments').exists()
    assert f'{elsewhere}/toy: exists' in refusal(train_within, 'toy.yml', 5, [f'path:experiments_root={elsewhere}'])
