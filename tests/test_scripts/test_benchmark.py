"""scripts/benchmark.py: what it compares is the same training. Its timings are not tested."""
import importlib.util
import json
import pytest
import torch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location('benchmark', ROOT / 'scripts' / 'benchmark.py')
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)
TOY = ('--width', '8', '--blocks', '1', '--size', '32', '--batch', '2', '--device', 'cpu', '--repeats', '2')


def run(*arguments):
    return benchmark.run(benchmark.parse().parse_args(arguments))


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', torch.backends.cudnn.benchmark)


@pytest.fixture
def model(tmp_path):
    args = benchmark.parse().parse_args(['step', *TOY])
    return benchmark.step_model(args, str(tmp_path), amp=None)


def gradients(nets):
    return [p.grad for net in nets for p in net.parameters()]


def assert_close(values, expected):
    for value, wanted in zip(values, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-5)


def test_the_textbook_step_is_ours(model):
    """Gradients of a step, those of the discriminators before the generators have moved far."""
    batch = benchmark.random_batch(2, 32)
    for optimizer in model.optimizers:
        optimizer.param_groups[0]['lr'] = 0.0
    for key in ('optim_g', 'optim_d'):
        model.opt['train'][key]['lr'] = 0.0
    textbook = benchmark.TextbookStep(model)
    expected_losses = textbook(batch)
    benchmark.our_step(model)(batch)
    assert model.get_current_log() == pytest.approx(expected_losses, rel=1e-4)
    assert_close(gradients(model.networks.values()), gradients(textbook.nets))


def test_the_textbook_step_is_textbook(tmp_path):
    """Six generator calls in fp32 by PyTorch's own convolutions, an optimizer that is not fused."""
    args = benchmark.parse().parse_args(['step', *TOY, '--width', '64'])
    model = benchmark.step_model(args, str(tmp_path), amp='bf16', winograd=True, channels_last=True)
    step, calls = benchmark.TextbookStep(model), []
    for net in step.nets:
        net.register_forward_hook(lambda net, _, output: calls.append((net, output.dtype)))
    step(benchmark.random_batch(2, 32))
    assert [sum(net is called for called, _ in calls) for net in step.nets] == [3, 3, 3, 3]
    assert {dtype for _, dtype in calls} == {torch.float32}
    assert not any(optimizer.param_groups[0]['fused'] for optimizer in step.optimizers)
    convolutions = [module for net in step.nets for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    assert {type(module) for module in convolutions} == {torch.nn.Conv2d}
    assert all(module.weight.is_contiguous() for module in convolutions)


def test_discriminators_learn_from_their_own_loss_alone(model):
    step = benchmark.TextbookStep(model)
    seen = []
    step.optimizers[0].step = lambda: seen.extend(p.grad is None for net in step.nets[2:] for p in net.parameters())
    step(benchmark.random_batch(2, 32))
    assert set(seen) == {True}


def test_step_prints_ratio_rates_and_the_length_of_the_papers_run(capsys):
    target, bound = run('step', *TOY)
    assert len(target.values) == 2 and target.wanted == 2
    assert bound.wanted is None and len(bound.values) == 2 and min(bound.values) > 1
    out = capsys.readouterr().out
    assert all(f'\n{row}' in out for row in ('textbook / ours', 'ours: achieved (GFLOP/s)', 'peak of convolution, bf'))


def test_levers(capsys, monkeypatch):
    built, build = [], benchmark.step_model
    monkeypatch.setattr(benchmark, 'step_model', lambda *args, **given: built.append(given) or build(*args, **given))
    measured = run('levers', *TOY, '--repeats', '1')
    assert len(measured) == len(benchmark.LEVERS) - 1 and all(target.wanted is None for target in measured)
    assert built == [options for title, both in benchmark.LEVERS.items() if 'compile' not in title for options in both]
    out = capsys.readouterr().out
    assert all(f'\n{title} ' in out for title in ('amp: bf16', 'winograd: true', 'train: merge_g_calls: true'))


def test_curve(capsys):
    target, = run('curve', *TOY, '--iterations', '5', '--seeds', '2')
    assert 0 <= target.values[0] <= 1
    assert 'l_cycle ours' in capsys.readouterr().out


def test_data(capsys, tmp_path, write_images):
    for name in ('low', 'high'):
        write_images(tmp_path / name)
    target, = run('data', '--data', str(tmp_path), '--size', '32', '--repeats', '2')
    assert target.wanted == 2000 and len(target.values) == 2
    assert '4 low and 4 normal images' in capsys.readouterr().out


def test_report(tmp_path, capsys):
    targets = [benchmark.Target('beside', None, [1.5]), benchmark.Target('fast', 2, [1.0, 2.5, 3.0]),
               benchmark.Target('slow', 2, [1.0])]
    benchmark.report(targets, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[-3:-1]] == ['yes', 'NO']
    assert lines[-1].split() == ['beside', '1.5', '1.5', '1.5']
    written = json.loads((tmp_path / 'benchmark.json').read_text())
    assert [row['title'] for row in written['beside']] == ['beside']
    written = written['targets']
    assert [row['met'] for row in written] == [True, False] and written[0]['values'] == [1.0, 2.5, 3.0]
    assert (tmp_path / 'benchmark.png').stat().st_size > 1000


def test_all_ends_in_one_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, 'SHORT', (f"step {' '.join(TOY)}", 'data --size 32 --repeats 2'))
    monkeypatch.setattr(benchmark, 'enhance_targets', lambda output: [])
    run('all', '--device', 'cpu', '--output', str(tmp_path))
    table = capsys.readouterr().out.split('target')[-1]
    assert 'training step, cpu, 1 blocks' in table and 'crops per second' in table
    assert len(json.loads((tmp_path / 'benchmark.json').read_text())['targets']) == 2


def test_targets_of_inference_come_from_its_files(monkeypatch, tmp_path):
    """Times are to stay below what is wanted, ratios above."""
    results = {'inference': {'targets': {'full': {'seconds': [[3, 1], [4, 1]], 'agreement_db': 50.0}}},
               'large': [['guided: 4000x3000 (s)', [2.0]], ['guided: peak of the process (GB)', [1.6]]]}
    for name, result in results.items():
        (tmp_path / f'{name}.json').write_text(json.dumps({name: result}))
    monkeypatch.setattr(benchmark, 'run', lambda args: None)
    targets = benchmark.enhance_targets(str(tmp_path))
    benchmark.report(targets, tmp_path)
    assert [row['met'] for row in json.loads((tmp_path / 'benchmark.json').read_text())['targets']] == [
        True, True, True, False]


@pytest.mark.full
def test_loss_curves_are_those_of_the_textbook():
    target, = run('curve', '--device', 'cpu')
    assert target.values[0] >= target.wanted
