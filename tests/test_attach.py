import importlib.util
import os
import pytest
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

from lowlight_cyclegan.config import options_dir

ROOT = Path(__file__).resolve().parents[1]
OPTION_FILES = sorted(path.name for path in Path(options_dir()).iterdir() if path.suffix in ('.yml', '.txt'))


class Environment:
    """A throwaway virtual environment that sees this one's packages, and the project unless `remove_project`."""

    def __init__(self, folder):
        venv.create(folder, symlinks=True)
        self.python = folder / 'bin' / 'python'
        self.site = Path(self.run('-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])').stdout.strip())
        packages = dict.fromkeys([sysconfig.get_paths()['purelib'], sysconfig.get_paths()['platlib']])
        (self.site / 'packages.pth').write_text('\n'.join(packages))
        self.project = self.site / 'a_project.pth'
        self.project.write_text(str(ROOT))
        self.autoload = self.site / 'lowlight_cyclegan_autoload.pth'

    def run(self, *args, cwd=None, **env):
        env = {**os.environ, 'OMP_NUM_THREADS': '1', **env}
        env = {k: v for k, v in env.items() if k != 'PYTHONPATH' or v == '.'}
        return subprocess.run([self.python, *args], cwd=cwd, env=env, text=True, capture_output=True, timeout=300)

    def command(self, *args, cwd=None):
        return self.run('-m', 'lowlight_cyclegan', *args, cwd=cwd)

    def remove_project(self):
        self.project.unlink()


@pytest.fixture
def environment(tmp_path_factory):
    if os.name == 'nt':
        pytest.skip('links need privileges on Windows')
    return Environment(tmp_path_factory.mktemp('environment'))


def toolbox():
    return Path(importlib.util.find_spec('basicsr').origin).parent


def tree(folder):
    """What is in a folder: paths, with what links point to and what files hold."""
    return {str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and
            path.read_bytes() for path in sorted(folder.rglob('*'))}


@pytest.fixture
def plain(tmp_path):
    folder = tmp_path / 'a plain folder, ümlaut'
    folder.mkdir()
    (folder / 'mine.txt').write_text('mine')
    return folder


@pytest.fixture
def source_tree(tmp_path):
    """An unpacked source release of BasicSR, as far as its scripts need it."""
    folder = tmp_path / 'BasicSR'
    shutil.copytree(toolbox(), folder / 'basicsr', ignore=shutil.ignore_patterns('__pycache__', 'ops'))
    (folder / 'options').mkdir()
    (folder / 'options' / 'train_other.yml').write_text('name: other')
    return folder


# ------------------------------------------------------------- attach, detach


def test_plain_folder_round_trip(environment, plain):
    before, site = tree(plain), tree(environment.site)
    result = environment.command('attach', str(plain))
    assert result.returncode == 0, result.stderr
    assert os.path.samefile(plain / 'basicsr', toolbox()) and f'basicsr  {toolbox()} is the one' in result.stdout
    assert 'WARNING' not in result.stdout
    assert sorted(os.listdir(plain / 'options')) == OPTION_FILES
    attached = tree(plain)

    again = environment.command('attach', cwd=plain)
    assert again.returncode == 0 and 'copied' not in again.stdout and 'linked' not in again.stdout
    assert tree(plain) == attached
    assert environment.autoload.read_text().count('attached') == 1

    result = environment.command('detach', cwd=plain)
    assert result.returncode == 0 and f'detached {plain}' in result.stdout
    assert tree(plain) == before and tree(environment.site) == site
    assert 'was not attached' in environment.command('detach', str(plain)).stdout
    assert tree(plain) == before


def test_source_tree_round_trip(environment, source_tree):
    before = tree(source_tree)
    result = environment.command('attach', str(source_tree))
    assert result.returncode == 0 and not (source_tree / 'basicsr').is_symlink()
    assert 'WARNING' in result.stdout and 'PYTHONPATH=.' in result.stdout
    assert environment.command('detach', str(source_tree)).returncode == 0
    assert tree(source_tree) == before


def test_source_tree_without_version_is_told(environment, source_tree):
    (source_tree / 'basicsr' / 'version.py').unlink()  # a git checkout that was never installed
    assert 'has no version.py' in environment.command('attach', str(source_tree)).stdout


def test_own_root_gets_the_link_alone(environment, tmp_path):
    root = tmp_path / 'checkout'
    for name in ('lowlight_cyclegan', 'options'):
        shutil.copytree(ROOT / name, root / name)
    environment.project.write_text(str(root))
    before = tree(root)
    result = environment.command('attach', cwd=root)
    assert result.returncode == 0 and 'copied' not in result.stdout, result.stderr
    assert tree(root) == {**before, 'basicsr': str(toolbox())}
    environment.command('detach', cwd=root)
    assert tree(root) == before


def test_changed_options_are_never_lost(environment, plain):
    (plain / 'options').mkdir()
    mine = plain / 'options' / 'train_lol.yml'
    mine.write_text('name: mine')
    result = environment.command('attach', str(plain))
    assert result.returncode == 0 and f'refused  {mine}' in result.stdout and mine.read_text() == 'name: mine'
    assert sorted(os.listdir(plain / 'options')) == OPTION_FILES
    result = environment.command('detach', str(plain))
    assert f'kept     {mine}' in result.stdout and os.listdir(plain / 'options') == ['train_lol.yml']
    environment.command('attach', '--force', str(plain))
    assert mine.read_bytes() == Path(options_dir(), 'train_lol.yml').read_bytes()


def test_autoload_stays_as_long_as_a_folder_is_attached(environment, plain, source_tree):
    environment.command('attach', str(plain))
    environment.command('attach', str(source_tree))
    result = environment.command('detach', str(plain))
    assert environment.autoload.exists() and str(source_tree) in result.stdout
    environment.command('attach', str(plain))
    shutil.rmtree(source_tree)  # gone without detach
    environment.command('detach', str(plain))
    assert not environment.autoload.exists()


@pytest.mark.parametrize(('make', 'said'), [
    (lambda folder: folder.rmdir(), 'is not a folder'),
    (lambda folder: (folder / 'basicsr').mkdir(), 'holds no train.py'),
])
def test_unsuitable_folder_is_one_line(environment, tmp_path, make, said):
    folder = tmp_path / 'folder'
    folder.mkdir()
    make(folder)
    result = environment.command('attach', str(folder))
    assert result.returncode == 1 and said in result.stderr and result.stderr.count('\n') == 1
    assert not environment.autoload.exists()


def test_package_that_is_not_installed_cannot_attach(environment, plain):
    environment.remove_project()  # python -m finds it in the current folder, a script in another would not
    result = environment.command('attach', str(plain), cwd=ROOT)
    assert result.returncode == 1 and 'is not installed' in result.stderr
    assert not environment.autoload.exists()


# -------------------------------------------------------------------- autoload


def test_autoload_is_light_and_silent(environment, plain):
    modules = ('-c', 'import sys; print(*sys.modules)')
    before = set(environment.run(*modules).stdout.split())
    environment.command('attach', str(plain))
    after = set(environment.run(*modules).stdout.split())
    assert after - before == {'lowlight_cyclegan', 'lowlight_cyclegan.autoload'}
    environment.remove_project()
    result = environment.run(*modules)
    assert set(result.stdout.split()) == before and result.stderr == ''


FIRST_IMPORTS = {
    'basicsr alone': 'import basicsr',
    'register': 'import lowlight_cyclegan; lowlight_cyclegan.register()',
    'one of our modules': 'from lowlight_cyclegan.archs import PatchGANDiscriminator',
    'the script': 'import lowlight_cyclegan.train; from basicsr.train import train_pipeline',
}


def test_autoload_registers_whatever_is_imported_first(environment, plain):
    """Each order in a fork of one process that has imported torch; warnings are errors."""
    environment.command('attach', str(plain))
    code = f"""
import os, torch, torchvision.transforms.functional, warnings
for name, statement in {FIRST_IMPORTS!r}.items():
    if os.fork() == 0:
        warnings.filterwarnings('error', message='lowlight_cyclegan')
        exec(statement)
        from basicsr.utils import options, registry
        from lowlight_cyclegan import repairs
        assert options.parse_options is repairs.parse_options
        assert name == 'one of our modules' or 'LowLightCycleGANModel' in registry.MODEL_REGISTRY
        print(name, flush=True)
        os._exit(0)
    os.wait()
"""
    result = environment.run('-c', code)
    assert result.stdout.splitlines() == list(FIRST_IMPORTS), result.stderr


# ------------------------------------------------------------- exact commands


def test_toolbox_command_in_a_plain_folder(environment, toy_run):
    environment.command('attach', str(toy_run))
    shutil.copy(toy_run / 'toy.yml', toy_run / 'options' / 'toy.yml')
    result = environment.run('basicsr/train.py', '-opt', 'options/toy.yml', '--force_yml', 'train:total_iter=1',
                             'logger:save_checkpoint_freq=1', cwd=toy_run)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'Model [LowLightCycleGANModel] is created.' in result.stderr
    assert (toy_run / 'experiments' / 'toy' / 'training_states' / '1.state').is_file()
    result = environment.run('basicsr/train.py', '-opt', 'options/toy.yml', '--auto_resume', cwd=toy_run)
    assert result.returncode == 0 and 'Resuming training from epoch: 0, iter: 1.' in result.stderr
    assert '# psnr' in result.stderr


def test_toolbox_command_under_torchrun_in_a_source_tree(environment, source_tree, toy_run):
    environment.command('attach', str(source_tree))
    for name in ('toy.yml', 'held_out.txt', 'data'):
        shutil.move(toy_run / name, source_tree / name)
    result = environment.run('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'basicsr/train.py',
                             '-opt', 'toy.yml', '--launcher', 'pytorch', cwd=source_tree)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'World size (gpu number): 2' in result.stderr and '# psnr' in result.stderr
    assert (source_tree / 'experiments' / 'toy' / 'models' / 'net_g_latest.pth').is_file()
