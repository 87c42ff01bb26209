import pytest
import subprocess
import sys
from pathlib import Path

from lowlight_cyclegan.enhance.pretrained import load_pretrained

ROOT = Path(__file__).resolve().parents[2]


def train_within(folder, minutes, *args):
    command = [sys.executable, str(ROOT / 'scripts' / 'train_within.py'), str(minutes), '-opt', 'toy.yml', *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.full
def test_ends_inside_the_budget_with_weights_that_load(toy_run):
    result = train_within(toy_run, 1.2, '--force_yml', 'name=short')
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [line for line in result.stdout.splitlines() if 'images a second' in line or '.safetensors' in line]
    assert len(lines) == 2 and float(lines[1].rsplit('after ', 1)[1].split()[0]) <= 1.2
    network, options, _ = load_pretrained(toy_run / 'experiments' / 'short' / 'short.safetensors')
    assert options['num_feat'] == 8 and not network.training


def test_refusals(toy_run):
    result = train_within(toy_run, 0.5)
    assert result.returncode == 1 and 'give more than 1' in result.stderr and 'Traceback' not in result.stderr
    (toy_run / 'experiments' / 'toy').mkdir(parents=True)
    result = train_within(toy_run, 5)
    assert result.returncode == 1 and 'experiments/toy: exists' in result.stderr and 'Traceback' not in result.stderr
