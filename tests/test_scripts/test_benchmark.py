"""scripts/benchmark.py: what it compares is the same work. Its timings are not tested."""
import importlib.util
import json
import pytest
import sys
import torch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location('benchmark', ROOT / 'scripts' / 'benchmark.py')
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)
TOY = ['step', '--width', '8', '--blocks', '1', '--size', '32', '--batch', '2', '--device', 'cpu', '--repeats', '2']


@pytest.fixture(autouse=True)
def unchanged_cudnn(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', torch.backends.cudnn.benchmark)


@pytest.fixture
def model(tmp_path):
    model = benchmark.step_model(benchmark.parse(TOY), str(tmp_path))
    model.amp_dtype = None
    return model


def batch():
    return {key: torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8) for key in ('lq', 'gt')}


def gradients(nets):
    return [p.grad for net in nets for p in net.parameters()]


def test_the_textbook_step_is_ours(model):
    """Losses and gradients of a step, those of the discriminators before the generators have moved far."""
    for optimizer in model.optimizers:
        optimizer.param_groups[0]['lr'] = 0.0
    for key in ('optim_g', 'optim_d'):
        model.opt['train'][key]['lr'] = 0.0
    textbook, images = benchmark.TextbookStep(model), batch()
    expected = textbook(images)
    model.feed_data(images)
    model.optimize_parameters(1)
    assert model.get_current_log() == pytest.approx(expected, rel=1e-4)
    for value, wanted in zip(gradients(model.networks.values()), gradients(textbook.nets), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-5)


def test_the_textbook_step_is_textbook(model):
    """Six generator calls in fp32 on the usual layout, an optimizer that is not fused."""
    model.networks['g'].to(memory_format=torch.channels_last)
    step, calls = benchmark.TextbookStep(model), []
    for net in step.nets:
        net.register_forward_hook(lambda net, _, output: calls.append((net, output.dtype)))
    step(batch())
    assert [sum(net is called for called, _ in calls) for net in step.nets] == [3, 3, 3, 3]
    assert {dtype for _, dtype in calls} == {torch.float32}
    assert not any(optimizer.param_groups[0]['fused'] for optimizer in step.optimizers)
    convolutions = [module for net in step.nets for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    assert convolutions and all(module.weight.is_contiguous() for module in convolutions)


def test_discriminators_learn_from_their_own_loss_alone(model):
    step = benchmark.TextbookStep(model)
    seen = []
    step.optimizers[0].step = lambda: seen.extend(p.grad is None for net in step.nets[2:] for p in net.parameters())
    step(batch())
    assert set(seen) == {True}


def test_step_is_a_table_of_paired_values(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *TOY, '--json', str(tmp_path / 'step.json')])
    benchmark.main()
    rows = dict(json.loads((tmp_path / 'step.json').read_text())['step'])
    textbook, ours, ratio = rows.values()
    assert ratio == [a / b for a, b in zip(textbook, ours, strict=True)] and len(ratio) == 2
    assert 'textbook / ours' in capsys.readouterr().out


def test_functions_run_in_turns_after_a_round_that_is_not_counted():
    calls = []
    found = benchmark.alternate({name: lambda name=name: calls.append(name) or len(calls) for name in 'ab'}, 2)
    assert ''.join(calls) == 'ababab' and found == {'a': [3, 5], 'b': [4, 6]}


def test_a_process_is_measured_by_itself(tmp_path):
    seconds, memory = benchmark.process(
        [sys.executable, '-c', 'import time; x = bytes(100) * 1_000_000; time.sleep(0.5)'])
    assert 0.5 < seconds < 30 and 100 < memory < 150
    done = tmp_path / 'done'
    seconds, _ = benchmark.process([sys.executable, '-c', f'open({str(done)!r}, "w"); import time; time.sleep(60)'],
                                   until=done.exists)
    assert seconds < 30
    with pytest.raises(SystemExit, match='no good'):
        benchmark.process([sys.executable, '-c', 'raise SystemExit("no good")'])


def test_memory_is_of_the_process_that_takes_most(tmp_path):
    child = 'import time; x = bytes(100) * 1_000_000; time.sleep(1)'
    _, memory = benchmark.process([sys.executable, '-c', 'import subprocess, sys; '
                                   f'subprocess.run([sys.executable, "-c", {child!r}])'])
    assert 100 < memory < 150


def test_the_command_of_another_checkout_is_its_own(tmp_path):
    (tmp_path / 'old' / 'lowlight_cyclegan').mkdir(parents=True)
    (tmp_path / 'old' / 'setup.py').write_text("['lowlight-cyclegan=lowlight_cyclegan.cli:main']")
    (tmp_path / 'old' / 'lowlight_cyclegan' / 'cli.py').write_text(
        "import sys\ndef main(): open(sys.argv[1], 'w').write(__file__)")
    args = benchmark.parse(['start', '--before', str(tmp_path / 'old')])
    roots = benchmark.checkouts(args)
    assert list(roots.values()) == [tmp_path / 'old', ROOT]
    benchmark.process([sys.executable, '-c', benchmark.cli(roots[', before']), tmp_path / 'seen'], cwd=tmp_path,
                      root=roots[', before'])
    assert (tmp_path / 'seen').read_text() == str(tmp_path / 'old' / 'lowlight_cyclegan' / 'cli.py')
    assert 'lowlight_cyclegan.commands' in benchmark.cli(ROOT)
    assert benchmark.checkouts(benchmark.parse(['start'])) == {'': ROOT}


def test_each_further_item_is_what_two_counts_differ_by(capsys):
    found = benchmark.further({'a': lambda count: (10 + 3 * count, 5), 'b': lambda count: (count, count)}, 2, 6, 2)
    assert found == {'a': ([3, 3], [5, 5]), 'b': ([1, 1], [6, 6])}
    rows = dict(benchmark.rates(found, 'frames', 'b'))
    assert rows['a / b, time'] == [3, 3] and rows['b (frames a second)'] == [1, 1] and rows['b (MB)'] == [6, 6]
    assert 'b / b, time' not in rows and 'median' in capsys.readouterr().out


@pytest.mark.full
@pytest.mark.parametrize('arguments', [
    ['pictures', '--models', 'lite', '--sizes', '64x48'], ['folder', '--photos', '3'], ['video', '--frames', '14'],
    ['start']], ids=lambda arguments: arguments[0])
def test_every_benchmark_runs(arguments, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *arguments, '--repeats', '1', '--threads', '2'])
    if arguments[0] in ('start', 'folder', 'video'):
        sys.argv += ['--before', str(ROOT)]
    benchmark.main()
