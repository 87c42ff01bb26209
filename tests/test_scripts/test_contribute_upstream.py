"""scripts/contribute_upstream.py, on a tree made of the installed BasicSR, which is the released source."""
import ast
import importlib.util
import os
import pytest
import re
import shutil
import subprocess
import sys
import torch
import yaml
from pathlib import Path

from lowlight_cyclegan.config import OptionLoader

ROOT = Path(__file__).resolve().parents[2]
SETUP_CFG = """
[flake8]
ignore = W503, W504
max-line-length = 120

[yapf]
based_on_style = pep8
column_limit = 120
blank_line_before_nested_class_or_def = true
split_before_expression_after_opening_paren = true

[isort]
line_length = 120
multi_line_output = 0
known_standard_library = pkg_resources,setuptools
known_first_party = basicsr
no_lines_before = STDLIB,LOCALFOLDER
default_section = THIRDPARTY
"""
NAMES = ('g', 'f', 'd_a', 'd_b')


def contribute(*args, **env):
    """Exit code and output of the script."""
    done = subprocess.run([sys.executable, ROOT / 'scripts' / 'contribute_upstream.py', *args], cwd=ROOT.anchor,
                          env={**os.environ, **env}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def git(folder, *args):
    who = {f'GIT_{role}_{key}': 'someone@example.org' for role in ('AUTHOR', 'COMMITTER') for key in ('NAME', 'EMAIL')}
    done = subprocess.run(['git', '-C', folder, *args], env={**os.environ, **who}, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder):
    """{path: bytes} of a folder, without what Python and git leave there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob('*'))
            if path.is_file() and not {'__pycache__', '.git'} & set(path.parts)}


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """The released source of BasicSR, or another one: BASICSR_TREE=PATH pytest ..."""
    folder = tmp_path_factory.mktemp('released') / 'BasicSR'
    installed = Path(importlib.util.find_spec('basicsr').origin).parent
    if (installed / 'models' / 'lowlight_cyclegan_model.py').exists():
        pytest.skip('the installed BasicSR has the model already')
    source = Path(os.environ['BASICSR_TREE'], 'basicsr') if 'BASICSR_TREE' in os.environ else installed
    shutil.copytree(source, folder / 'basicsr', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(installed / 'version.py', folder / 'basicsr')
    return folder


@pytest.fixture(scope='module')
def adopted(released):
    """The released source with our contribution."""
    folder = released.parent / 'adopted'
    shutil.copytree(released, folder)
    code, output = contribute(folder)
    assert code == 0, output
    return folder


@pytest.fixture
def repository(released, tmp_path):
    """The released source as a git repository."""
    folder = tmp_path / 'repository'
    shutil.copytree(released, folder)
    git(folder, 'init', '--quiet')
    git(folder, 'add', '--force', '.')
    git(folder, 'commit', '--quiet', '-m', 'v1.4.2')
    return folder


# -------------------------------------------------------------------- the tree


def test_files_are_where_basicsr_has_them(released, adopted):
    before, after = files(released), files(adopted)
    assert before.keys() < after.keys()
    changed = {path for path in before if after[path] != before[path]}
    assert changed == {f'basicsr/{path}.py' for path in (
        'data/__init__', 'data/data_util', 'data/degradations', 'metrics/__init__',
        'metrics/metric_util', 'metrics/niqe', 'models/base_model', 'models/lr_scheduler', 'train', 'utils/dist_util',
        'utils/options')}
    added = after.keys() - before.keys()
    assert {'basicsr/archs/ema_resnet_arch.py', 'basicsr/data/unpaired_image_dataset.py',
            'basicsr/metrics/lpips_metric.py', 'basicsr/models/lowlight_cyclegan_model.py',
            'options/train/LowLightCycleGAN/train_lol.yml', 'options/test/LowLightCycleGAN/test_lol.yml',
            'tests/test_archs/test_ema_resnet_arch.py', 'tests/test_models/test_lowlight_cyclegan_model.py'} <= added
    for path in added | changed:
        text = after[path].decode()
        assert not re.search('lowlight_cyclegan(?!_model)|register_once', text), path
        if path.endswith('.py'):
            compile(text, path, 'exec')


def test_imports_name_what_the_tree_has(released, adopted):
    """BasicSR's packages hand nothing on that they do not import, unlike ours."""

    def offered(path):
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
        return found

    looked_at = 0
    for path in files(adopted).keys() - files(released).keys():
        if not path.endswith('.py'):
            continue
        for node in ast.walk(ast.parse((adopted / path).read_text(encoding='utf-8'))):
            if not isinstance(node, ast.ImportFrom) or not (node.level or (node.module or '').startswith('basicsr')):
                continue
            above = Path(path).parents[node.level - 1].parts if node.level else ()
            module = adopted.joinpath(*above, *(node.module or '').split('.'))
            for alias in node.names:
                looked_at += 1
                file = module / '__init__.py' if module.is_dir() else module.with_suffix('.py')
                assert ((module / f'{alias.name}.py').is_file() or (module / alias.name).is_dir()
                        or alias.name in offered(file)), f'{path}: {ast.unparse(node)}'
    assert looked_at > 100


def test_the_contribution_requires_the_torch_that_we_do():
    """What a device says of bf16, fused Adam on CPUs and how compilation is switched off for validation need it."""
    ours, = re.findall(r"^        '(torch>=[\d.]+)'", (ROOT / 'setup.py').read_text(), re.MULTILINE)
    theirs = [line for path in ROOT.glob('scripts/upstream/*.patch') for line in path.read_text().splitlines()
              if re.match(r'\+torch\b', line)]
    assert theirs == [f'+{ours}']


def test_second_run_changes_nothing(adopted):
    before = files(adopted)
    code, output = contribute(adopted)
    assert code == 0 and 'has everything already' in output and files(adopted) == before


def test_options_mean_the_same_to_basicsr(adopted):
    paths = sorted(adopted.glob('options/*/LowLightCycleGAN/*.yml'))
    assert len(paths) == len([*ROOT.glob('options/train_*.yml'), *ROOT.glob('options/test_*.yml')])
    for path in paths:
        text = path.read_text()
        assert yaml.load(text, yaml.FullLoader) == yaml.load(text, OptionLoader)  # 1e-4 without !!float would differ
        for listed in re.findall(r'names: (\S+)', text):
            assert (adopted / listed).is_file()


@pytest.mark.parametrize(('make', 'said'), [
    (lambda tree: shutil.rmtree(tree / 'basicsr'), 'is no BasicSR source tree'),
    (lambda tree: (tree / 'basicsr' / 'train.py').write_text('pass\n'), 'basicsr/train.py: cannot be repaired'),
    (lambda tree: (tree / 'basicsr' / 'archs' / 'aspp_arch.py').write_text('pass\n'), 'aspp_arch.py: is there already'),
    (lambda tree: (tree / 'basicsr' / 'data' / 'data_util.py').write_text('def scan_images():\n    pass\n'),
     'data_util.py: has another scan_images already'),
    (lambda tree: (tree / 'basicsr-1.4.2.dist-info').mkdir(), 'installed basicsr'),
])
def test_unsuitable_tree_is_one_line_and_stays(released, tmp_path, make, said):
    tree = tmp_path / 'tree'
    shutil.copytree(released, tree)
    make(tree)
    before = files(tree)
    code, output = contribute(tree)
    assert code == 1 and said in output.splitlines()[-1] and 'Traceback' not in output
    assert files(tree) == before


def test_uncommitted_changes_are_refused(repository):
    mine, series = repository / 'basicsr' / 'train.py', repository.parent / 'series'
    text = mine.read_text()
    for path, args in ((mine, ()), (repository / 'new.txt', ('--patch', series))):
        path.write_text(text + '\n')
        before = files(repository)
        code, output = contribute(repository, *args)
        assert code == 1 and f'{path}: is not committed' in output.splitlines()[-1]
        assert files(repository) == before and not series.exists()
        mine.write_text(text)


# -------------------------------------------------------------- patch series


def test_patch_series(repository, adopted, tmp_path):
    clean = files(repository)
    series = tmp_path / 'series'
    who = dict(GIT_AUTHOR_NAME='A', GIT_AUTHOR_EMAIL='a@example.org', GIT_COMMITTER_NAME='A',
               GIT_COMMITTER_EMAIL='a@example.org')
    code, output = contribute(repository, '--patch', series, **who)
    assert code == 0, output
    assert files(repository) == clean and git(repository, 'status', '--porcelain') == ''

    patches = sorted(series.iterdir())
    subject = re.compile(r'^Subject: \[PATCH[^]]*\] (.*(?:\n .*)*)', re.MULTILINE)
    subjects = [subject.search(patch.read_text())[1] for patch in patches]
    words = ('torchvision', 'Resume', 'gloo', 'persistent_workers', 'Seed', 'LPIPS', 'LowLightCycleGANModel')
    assert len(subjects) == len(words)
    for subject, word in zip(subjects, words):
        assert word in subject

    code, output = contribute(repository, '--patch', tmp_path / 'again', **who)
    assert code == 0 and files(tmp_path / 'again') == files(series)

    git(repository, 'am', '--quiet', *patches)
    assert files(repository) == files(adopted)
    code, output = contribute(repository)
    assert code == 0 and 'has everything already' in output and git(repository, 'status', '--porcelain') == ''

    git(repository, 'reset', '--quiet', '--hard', f'HEAD~{len(patches)}')
    for _ in range(2):  # into the tree itself, and again on top of what is not committed yet
        assert contribute(repository)[0] == 0
        assert files(repository) == files(adopted)
    code, output = contribute(repository, '--patch', series, **who)
    assert code == 1 and 'holds patches, such as 0001-' in output


def test_series_needs_git(released, tmp_path):
    code, output = contribute(released, '--patch', tmp_path / 'series')
    assert code == 1 and 'is no git repository' in output.splitlines()[-1]


# ------------------------------------------------------------------ the same run

# Runs basicsr/train.py of a tree in forks of one process that has the imports behind it.
RUNS = """
import os, runpy, shutil, sys, traceback
import basicsr, torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY
torch.set_num_threads(1)
tree, plugin, folder = sys.argv[1:]
assert os.path.dirname(os.path.dirname(basicsr.__file__)) == tree, basicsr.__file__

def run(name, cwd, *args, beside=False):
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0, name
        return
    try:
        os.chdir(cwd)
        sys.argv = [f'{tree}/basicsr/train.py', '-opt', f'{folder}/toy.yml', *args, '--force_yml', f'name={name}']
        sys.orig_argv = ['python', *sys.argv]
        if beside:
            sys.path.append(plugin)
            import lowlight_cyclegan
            lowlight_cyclegan.register()
            import lowlight_cyclegan.preflight
            from lowlight_cyclegan.models import LowLightCycleGANModel
        for registry in (ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY):
            assert not any(obj.__module__.startswith('lowlight_cyclegan') for _, obj in registry)
        runpy.run_path(sys.argv[0], run_name='__main__')
        assert beside or 'lowlight_cyclegan.repairs' not in sys.modules
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

run('adopted', tree)
for experiment in ('resumed', 'beside'):
    for folder_name, pattern in (('models', 'net_{}_14.pth'), ('training_states', '14.state')):
        os.makedirs(f'{tree}/experiments/{experiment}/{folder_name}')
        for name in ('g', 'f', 'd_a', 'd_b'):
            file = f'{folder_name}/{pattern.format(name)}'
            shutil.copy(f'{tree}/experiments/adopted/{file}', f'{tree}/experiments/{experiment}/{file}')
run('resumed', folder, '--auto_resume')
run('beside', folder, '--auto_resume', beside=True)
"""


def losses(experiment):
    """{iteration: what the log says of it}; of a validation, its metrics."""
    log = '\n'.join(path.read_text() for path in sorted(experiment.glob('train_*.log')))
    found = re.findall(r'\[epoch: *(\d+), iter: *(\d+), lr:\(([^)]*)\)\].*?(l_gan_g: .*)', log)
    result = {int(iteration): (epoch, lr, values.strip()) for epoch, iteration, lr, values in found}
    result['validation'] = re.findall(r'# psnr: \S+', log)[-1]
    return result


def weights(experiment):
    states = {name: torch.load(experiment / 'models' / f'net_{name}_latest.pth') for name in NAMES}
    return {(name, kind, key): value for name, state in states.items() for kind, tensors in state.items()
            for key, value in tensors.items()}


def test_run_is_the_plugins_to_the_bit(adopted, toy_run, forked, monkeypatch):
    options = (toy_run / 'toy.yml').read_text()
    for old, new in (('1e-3', '!!float 1e-3'), ('data/', f'{toy_run}/data/'), ('held_out', f'{toy_run}/held_out'),
                     ('total_iter: 5', 'total_iter: 20'), ('val_freq: 5', 'val_freq: 10'), ('_freq: 2', '_freq: 7'),
                     ('seed: 0', 'seed: 3'), ('    gt_size', '    persistent_workers: true\n    gt_size')):
        assert old in options
        options = options.replace(old, new)
    (toy_run / 'toy.yml').write_text(options)

    done = subprocess.run([sys.executable, '-c', RUNS, adopted, ROOT, toy_run], text=True, capture_output=True,
                          env={**os.environ, 'PYTHONPATH': str(adopted), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr[-4000:]

    monkeypatch.chdir(toy_run)
    monkeypatch.setattr(sys, 'argv', ['train.py', '-opt', 'toy.yml'])

    def train():
        from lowlight_cyclegan import train
        train.main()

    code, output = forked(train)
    assert code == 0, output[-4000:]

    expected = toy_run / 'experiments' / 'toy'
    assert losses(expected).keys() == {*range(1, 21), 'validation'}
    for name, first in (('adopted', 1), ('resumed', 15), ('beside', 15)):
        experiment = adopted / 'experiments' / name
        wanted = {k: v for k, v in losses(expected).items() if k == 'validation' or k >= first}
        assert losses(experiment) == wanted, name
        found, wanted = weights(experiment), weights(expected)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), name


# ------------------------------------------------------------------ long checks


@pytest.mark.full
def test_tree_passes_its_linters_and_our_tests(released, tmp_path):
    tools = {name: shutil.which(name, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ['PATH'])))
             for name in ('yapf', 'isort', 'flake8')}
    if None in tools.values():
        pytest.skip(f"not installed: {', '.join(name for name, path in tools.items() if path is None)}")
    tree = tmp_path / 'tree'
    shutil.copytree(released, tree)
    (tree / 'setup.cfg').write_text(SETUP_CFG)
    code, output = contribute(tree)
    assert code == 0 and 'not ' not in output, output
    written = re.findall(r'wrote (\S+\.py)', output)
    for command in ([tools['flake8']], [tools['isort'], '--check'], [tools['yapf'], '--diff']):
        done = subprocess.run([*command, *written], cwd=tree, text=True, capture_output=True)
        assert done.returncode == 0 and done.stdout == '', done.stdout + done.stderr
    done = subprocess.run([sys.executable, '-m', 'pytest', '-q', 'tests'], cwd=tree, text=True, capture_output=True,
                          env={**os.environ, 'PYTHONPATH': str(tree), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.full
def test_two_processes_without_gpus(adopted, toy_run):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    options = (toy_run / 'toy.yml').read_text().replace('1e-3', '!!float 1e-3')
    (toy_run / 'toy.yml').write_text(options.replace('name: toy\nmodel', 'name: two\nmodel'))
    done = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
                           adopted / 'basicsr' / 'train.py', '-opt', 'toy.yml', '--launcher', 'pytorch'],
                          cwd=toy_run, text=True, capture_output=True,
                          env={**os.environ, 'PYTHONPATH': str(adopted), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr[-4000:]
    assert 'World size (gpu number): 2' in done.stderr and losses(adopted / 'experiments' / 'two').keys() >= {1, 5}
