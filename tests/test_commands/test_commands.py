import json
import os
import pytest
import subprocess
import sys
import torch
from pathlib import Path
from PIL import Image

from lowlight_cyclegan import __version__
from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.prepare import layouts

ROOT = Path(__file__).resolve().parents[2]


def python(*args):
    """Run Python with the package importable; returns the finished process with its output as text."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run([sys.executable, *args], env=env, text=True, capture_output=True, timeout=300)


def test_package_and_cli_are_light():
    code = 'import sys; import lowlight_cyclegan.commands, lowlight_cyclegan.train, lowlight_cyclegan.test; ' \
           'print([m for m in ("torch", "basicsr", "numpy", "cv2", "mmengine") if m in sys.modules])'
    assert python('-c', code).stdout.strip() == '[]'


def test_submodules_import_without_register():
    """BasicSR 1.4.2 cannot be imported with torchvision >= 0.17: importing the package mends that."""
    result = python('-c', 'from lowlight_cyclegan.archs import EMAResNetGenerator; print(EMAResNetGenerator.__name__)')
    assert result.stdout.strip() == 'EMAResNetGenerator', result.stderr


def test_missing_basicsr_is_one_line():
    """On Python 3.13 and later, a plain installation comes without it."""
    result = python('-c', """
import sys
sys.modules['basicsr'] = None  # as if it were not installed
from lowlight_cyclegan.commands import main
main(['train', '-opt', 'train_lol.yml'])
""")
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    assert 'needs BasicSR' in result.stderr


def test_help_names_all_commands(capsys):
    cli.main([])
    text = capsys.readouterr().out
    assert all(name in text for name in ('train', 'test', 'attach', 'detach', 'info'))
    cli.main(['--version'])
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize('command', [
    *cli.COMMANDS, 'data lol', 'data lolv2', 'data lsrw', 'data folder', 'data overlap'])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), '--help'])
    assert stop.value.code == 0 and f'usage: lowlight-cyclegan {command}' in capsys.readouterr().out


def test_unknown_command_names_all(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(['enhanse'])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "'enhanse'" in error and all(f"{name}'" in error for name in cli.COMMANDS)


def test_data_needs_a_name(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(['data'])
    assert stop.value.code == 2 and 'required: NAME' in capsys.readouterr().err


def test_interrupt_of_a_command_is_one_line(tmp_path, monkeypatch, capsys):

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(layouts, 'prepare', interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(['data', 'lol', str(tmp_path)])
    assert stop.value.code == 130 and capsys.readouterr().err == 'Interrupted; the same command continues.\n'


def test_module_help_names_the_module():
    assert 'usage: python -m lowlight_cyclegan.train' in python('-m', 'lowlight_cyclegan.train', '--help').stdout


def test_info(capsys):
    cli.main(['info'])
    text = capsys.readouterr().out
    assert 'EMAResNetGenerator' in text and 'LowLightCycleGANModel' in text and torch.__version__.split('+')[0] in text


def test_info_for_programs(capsys):
    cli.main(['info', '--json'])
    found = json.loads(capsys.readouterr().out)
    assert 'lite' in found['weights'] and 'EMAResNetGenerator' in found['archs']


def test_info_prints_model_cards(capsys):
    cli.main(['info', 'lite'])
    assert capsys.readouterr().out.startswith('# lite')
    with pytest.raises(SystemExit, match='did you mean lite'):
        cli.main(['info', 'lit'])


def test_info_names_what_is_registered(capsys):
    """Its names are read from the sources: they must be those that registration gives."""
    import lowlight_cyclegan
    lowlight_cyclegan.register()
    from basicsr.utils import registry
    cli.main(['info', '--json'])
    found = json.loads(capsys.readouterr().out)
    for kind, key in (('ARCH', 'archs'), ('DATASET', 'datasets'), ('LOSS', 'losses'), ('METRIC', 'metrics'),
                      ('MODEL', 'models')):
        ours = [name for name, obj in getattr(registry, f'{kind}_REGISTRY')
                if obj.__module__.startswith('lowlight_cyclegan.')]
        assert sorted(found[key]) == sorted(ours)


@pytest.mark.parametrize('command', [
    'info', 'info lite', '--help', '--version', 'data --help', 'data lol --help', 'enhance --help', 'train --help',
    'video --help', 'web --help', 'export --help', 'evaluate --help'])
def test_commands_without_a_network_load_no_torch(command):
    code = f'import sys; sys.argv = ["x", *{command.split()!r}]\ntry:\n from lowlight_cyclegan.commands import main; ' \
           'main()\nfinally: print([m for m in ("torch", "basicsr", "cv2") if m in sys.modules], file=sys.stderr)'
    assert python('-c', code).stderr.strip().endswith('[]')


QUICK_END = """
import atexit, sys, threading, time, types
from lowlight_cyclegan import commands


class Library:
    def __del__(self):
        print('unloaded')


def stand_in(argv=None):
    library = sys.modules['torch'] = types.ModuleType('torch')
    library.held = Library()
    atexit.register(print, 'handler')
    threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()
    print('done', end=' ')
    if 'fail' in sys.argv:
        raise SystemExit('why')


commands.main = stand_in
commands.console()
"""


@pytest.mark.parametrize('arguments, output', [
    (['enhance'], 'done thread handler'), (['train'], 'done thread handler unloaded'),
    (['enhance', 'fail'], 'done thread handler unloaded')])
def test_a_command_that_did_its_work_leaves_torch_to_the_system(arguments, output):
    """Its threads, exit handlers and buffered lines come first."""
    run = python('-c', QUICK_END, *arguments)
    failed = 'fail' in arguments
    assert run.stdout.split() == output.split() and (run.returncode, run.stderr) == (failed, 'why\n' if failed else '')


PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != 'linux', reason='in KiB there')
def test_enhance_takes_little_more_memory_than_torch(tmp_path):
    """Its peak, which was once where torch was unloaded."""
    source = tmp_path / 'dark.png'
    Image.new('RGB', (50, 40), (20, 20, 20)).save(source)
    torch_alone, enhance = (float(python('-c', PEAK, *command).stdout) for command in (
        ['-c', 'import os, torch; os._exit(0)'],
        ['-m', 'lowlight_cyclegan', 'enhance', source, '-o', tmp_path / 'bright.png']))
    assert enhance < torch_alone + 110 and (tmp_path / 'bright.png').exists()


@pytest.mark.parametrize('arguments, code', [
    ('lol LOL', 0), ('folder low high --name x', 0), ('overlap low high', 0), ('lsrw absent', 1), ('fuse low high', 0),
    ('darken absent', 1), ('darken high --stops', 1)])
def test_data_loads_torch_only_to_compute(arguments, code, tmp_path, monkeypatch, write_pairs):
    """Laying out, checking and comparing pictures is done without it."""
    monkeypatch.chdir(tmp_path)
    for split, count in (('LOL/our485', 2), ('LOL/eval15', 1)):
        write_pairs(tmp_path / split, count)
    write_pairs(tmp_path, 2)
    partial = ['--partial'] if arguments.startswith('lol ') else []
    run = python('-c', 'import sys\ntry:\n from lowlight_cyclegan.commands import main\n main(sys.argv[1:])\nfinally: '
                 'print([m for m in ("torch", "basicsr") if m in sys.modules])', 'data', *arguments.split(), *partial)
    assert run.returncode == code and run.stdout.endswith('[]\n'), run.stdout + run.stderr


@pytest.fixture
def command(forked, toy_run, monkeypatch):
    """Function that runs a command line of ours in the folder of the toy run."""
    import lowlight_cyclegan
    lowlight_cyclegan.register()
    monkeypatch.chdir(toy_run)

    def run(*args):
        return forked(lambda: cli.main(list(args)))

    return run


def test_mistake_is_one_line(command, toy_run):
    code, output = command('train', '-opt', 'toy.yml', '--force_yml', 'train:totl_iter=1')
    assert code == 1 and output == 'train:totl_iter: unknown key, did you mean total_iter?\n'
    assert not (toy_run / 'experiments').exists()


def test_flags_come_from_the_arguments_given(toy_run, monkeypatch, refusal):
    """Not from this process's command line, which is another program's where the commands are called as functions."""
    from lowlight_cyclegan import test, train
    monkeypatch.chdir(toy_run)
    monkeypatch.setattr(sys, 'argv', ['program', '-opt', 'other.yml', '--minutes', '3'])
    flags = ['-opt', 'toy.yml', '--force_yml', 'train:totl_iter=1']
    for call in (lambda: cli.main(['train', *flags]), lambda: train.main(flags)):
        assert refusal(call) == 'train:totl_iter: unknown key, did you mean total_iter?'
    for call in (lambda: cli.main(['test', '-opt', 'none.yml']), lambda: test.main(['-opt', 'none.yml'])):
        assert 'none.yml' in refusal(call)
    assert sys.argv[0] == 'program'


def test_unreadable_pictures_are_named(command, toy_run):
    (toy_run / 'data' / 'low' / '5.png').write_bytes((toy_run / 'data' / 'low' / '5.png').read_bytes()[:99])
    code, output = command('train', '-opt', 'toy.yml', '--force_yml', 'train:total_iter=1')
    assert code == 0 and '5.png' in output and '8 low images' in output


def test_interrupt_is_one_line(toy_run, monkeypatch, capsys):
    """Before the run listens itself, and as shells expect it."""
    from lowlight_cyclegan import register, train
    register()
    from basicsr import test as test_script
    from basicsr import train as train_script

    def interrupted(root):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_script, 'train_pipeline', interrupted)
    monkeypatch.setattr(test_script, 'test_pipeline', interrupted)
    monkeypatch.chdir(toy_run)
    for call in (lambda: train.main(['-opt', 'toy.yml']), lambda: cli.main(['train', '-opt', 'toy.yml']),
                 lambda: cli.main(['test', '-opt', 'toy.yml'])):
        with pytest.raises(SystemExit) as stop:
            call()
        assert stop.value.code == 130 and capsys.readouterr().err == 'Interrupted.\n'


def test_interrupt_while_a_run_is_prepared(toy_run):
    """A process that gets the signal while it loads and checks ends by it, without a traceback."""
    code = ('import os, signal, sys; from lowlight_cyclegan import preflight, train\n'
            'signal.signal(signal.SIGINT, signal.default_int_handler)\n'  # which the background of a shell lacks
            'preflight.check = lambda *a: os.kill(os.getpid(), signal.SIGINT)\n'
            "train.main(['-opt', 'toy.yml'])")
    run = subprocess.run([sys.executable, '-c', code], cwd=toy_run, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                         capture_output=True, text=True)
    assert run.returncode == 130 and run.stderr.endswith('Interrupted.\n') and 'Traceback' not in run.stderr
    assert not (toy_run / 'experiments').exists()


def test_whole_numbers_may_be_written_as_powers_of_ten(command, toy_run):
    """As 1e0, which YAML reads as a float: each is taken for the number that it is."""
    code, output = command('train', '-opt', 'toy.yml', '--force_yml', 'logger:keep_last=1e0', 'train:total_iter=0.6e1',
                           'logger:save_checkpoint_freq=2e0', 'manual_seed=1e1')
    assert code == 0, output[-2000:]
    assert os.listdir(toy_run / 'experiments' / 'toy' / 'training_states') == ['6.state']


def test_train_resumes_inside_an_epoch_and_tests(command, toy_run):
    """Started again after 4 of 5 iterations, inside the second epoch, a run ends as the uninterrupted one."""
    def train(*args):
        code, output = command('train', '-opt', 'toy.yml', *args)
        assert code == 0, output[-2000:]
        models = toy_run / 'experiments' / 'toy' / 'models'
        nets = {name: torch.load(models / f'net_{name}_latest.pth') for name in ('g', 'f', 'd_a', 'd_b')}
        (models / 'net_g_latest.pth').unlink()
        return nets, output

    whole, _ = train()
    states = toy_run / 'experiments' / 'toy' / 'training_states'
    assert sorted(os.listdir(states)) == ['2.state', '4.state']
    resumed, output = train('--auto_resume')
    assert 'Resuming training from epoch: 1, iter: 4.' in output and 'iter:       5' in output
    for name, net in whole.items():
        for key, weights in net.items():
            for parameter, value in weights.items():
                assert torch.equal(value, resumed[name][key][parameter]), f'{name} {key} {parameter}'

    (toy_run / 'test.yml').write_text("""
name: toy_test
model_type: LowLightCycleGANModel
num_gpu: auto
datasets:
  test:
    {name: t, type: PairedImageDataset, dataroot_lq: data/low, dataroot_gt: data/high, io_backend: {type: disk}}
network_g: {type: EMAResNetGenerator, num_feat: 8, num_block: 1, ema_factor: 4}
path: {pretrain_network_g: experiments/toy/models/net_g_4.pth}
val: {save_img: true, metrics: {psnr: {type: calculate_psnr, crop_border: 0}}}
""")
    code, output = command('test', '-opt', 'test.yml')
    assert code == 0 and '# psnr' in output, output[-2000:]
    assert len(list((toy_run / 'results' / 'toy_test' / 'visualization' / 't').iterdir())) == 11


def test_training_within_minutes(monkeypatch):
    from lowlight_cyclegan.training import budget
    calls = []
    monkeypatch.setattr(budget, 'train_within', lambda *args: calls.append(args) or 3)
    with pytest.raises(SystemExit) as stop:
        cli.main(['train', '-opt', 'x.yml', '--minutes', '25', '--force_yml', 'a=1'])
    assert stop.value.code == 3 and calls == [('x.yml', 25.0, ['a=1'])]
    with pytest.raises(SystemExit, match='--minutes: a budget is for one process'):
        cli.main(['train', '-opt', 'x.yml', '--minutes', '25', '--auto_resume'])
