"""Put the toolbox half of this package into a BasicSR source tree, under BasicSR's own names.

    python scripts/contribute_upstream.py PATH_TO_BASICSR                  # writes into the tree
    python scripts/contribute_upstream.py PATH_TO_BASICSR --patch FOLDER   # writes a series for git am, leaves the tree

The changes to BasicSR's own files are the patches in scripts/upstream; what the tree has already is left out. Our
modules, tests and option files are copied, with their imports rewritten, and formatted by isort and yapf as the tree's
setup.cfg says. Everything starts from the tree's last commit, so that a second run changes nothing.
"""
import argparse
import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lowlight_cyclegan.config import written_out  # noqa: E402

PACKAGE = 'lowlight_cyclegan'
PARTS = ('archs', 'data', 'losses', 'metrics', 'models')
TREE = ('basicsr/train.py', 'basicsr/utils/registry.py', 'basicsr/models/base_model.py')
WITH_PATCH = {'0006': r'data/(test_)?epoch_sampler\.py', '0007': r'metrics/'}  # our files; the last one brings the rest

# What names the plugin outside of imports, and what a BasicSR tree says in its place.
REWRITES = (
    (rf'{PACKAGE}\.registry\b', 'basicsr.utils.registry'),
    (rf'{PACKAGE}\.({"|".join(PARTS)})\.', r'basicsr.\1.'),
    (rf'{PACKAGE}\.files\b', 'basicsr.utils.file_util'),
    (rf'pip install "{PACKAGE}\\?\[pyiqa\\?\]"', 'pip install pyiqa'),
    (rf'python -m {PACKAGE}\.(train|test) -opt options/(\w+\.yml)',
     r'python basicsr/\1.py -opt options/\1/LowLightCycleGAN/\2'),
    # num_gpu: auto without a launcher; the plugin takes one there
    ('one GPU if there is one, else the CPU; several GPUs: use torchrun',
     'the visible GPUs or the CPU; several GPUs: use torchrun'),
    (r'\boptions/(\w+\.txt)(?: +(?=  #))?', r'basicsr/data/meta_info/meta_info_\1'),
    # where the tests look for LOL
    (r"ROOT\.parent / 'shared' / 'data' / 'LOLv1'", "ROOT / 'datasets' / 'LOL'"),
    (r'\.\./shared/data/LOLv1', 'datasets/LOL'),
    (r"\.parents\[2\]\.parent / 'shared'", ".parents[2] / 'datasets'"),
    (r"SHARED / 'data' / 'LOLv1'", "SHARED / 'LOL'"),
    (r"SHARED / 'weights'", "SHARED.parent / 'experiments' / 'pretrained_models'"),
)
LEFTOVERS = re.compile(rf"{PACKAGE}(?!_model)|lowlight-cyclegan|LOLv1|'shared'")


class Refusal(Exception):
    """What is wrong, in one line."""


def git(folder, *args, check=True):
    """Output of a git command; None where it fails and may."""
    return run('git', '-C', folder, *args, check=check)


def run(*command, check=True, **kwargs):
    name = Path(command[0]).name
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, encoding='utf-8', **kwargs)
    except FileNotFoundError:
        raise Refusal(f'{name} is not installed') from None
    if done.returncode and check:
        raise Refusal(f'{name}: {" ".join((done.stderr or done.stdout).split())}')
    return None if done.returncode else done.stdout.rstrip('\n')


# ------------------------------------------------------------------- sources


def statements(text):
    """The imports of Python source, at any depth, and its calls of the plugin's register(), the last one first."""
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))
             or isinstance(node, ast.Expr) and ast.unparse(node) == f'{PACKAGE}.register()']
    return sorted(found, key=lambda node: -node.lineno)


@functools.cache
def exports(part):
    """name -> module of what ``lowlight_cyclegan.<part>`` offers; BasicSR's packages do not list their classes."""
    found = {}
    for path in (ROOT / PACKAGE / part).glob('[!_]*.py'):
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__':
                found.update(dict.fromkeys(ast.literal_eval(node.value), path.stem))
    return found


def upstream_import(node, alias):
    """One imported name as a statement of a BasicSR tree, None where there is nothing to import."""
    name = alias.name + (f' as {alias.asname}' if alias.asname else '')
    if isinstance(node, ast.Import):
        return None if alias.name == PACKAGE else f'import {name}'
    module = '.' * node.level + (node.module or '')
    if module.startswith(tuple(f'{PACKAGE}.{part}' for part in PARTS)):
        part = module.removeprefix(f'{PACKAGE}.')
        inner = exports(part).get(alias.name) if part in PARTS else None
        module = '.'.join(filter(None, ('basicsr', part, inner)))
    return f'from {module} import {name}'


def rewrite_imports(text, keep=lambda name: True):
    """Imports of a BasicSR tree, one name a line (isort joins them), of the names to `keep`."""
    lines = text.splitlines()
    for node in statements(text):
        names = getattr(node, 'names', ())
        new = [upstream_import(node, a) for a in names if keep(a.asname or a.name.split('.')[0])]
        lines[node.lineno - 1:node.end_lineno] = [' ' * node.col_offset + line for line in new if line]
    return '\n'.join(lines) + '\n'


def upstream_python(text):
    """One of our modules or tests as one of BasicSR's, not yet formatted."""
    text = rewrite_imports(rewrite(text))
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):  # tests that speak of the plugin's own half
        first = min([node, *getattr(node, 'decorator_list', ())], key=lambda n: n.lineno).lineno
        if isinstance(node, ast.FunctionDef) and LEFTOVERS.search('\n'.join(lines[first - 1:node.end_lineno])):
            del lines[first - 1:node.end_lineno]
    text = '\n'.join(lines)
    for node in statements(text):
        del lines[node.lineno - 1:node.end_lineno]
    used = set(re.findall(r'\w+', '\n'.join(lines)))
    return rewrite_imports(text, used.__contains__)


def rewrite(text):
    for pattern, replacement in REWRITES:
        text = re.sub(pattern, replacement, text)
    return text


def sources():
    """{path in the tree: text} of everything that is ours."""
    files = {'basicsr/utils/file_util.py': ROOT / PACKAGE / 'files.py',
             'tests/conftest.py': ROOT / 'tests' / 'conftest.py'}
    for part in PARTS:
        for folder, target in ((f'{PACKAGE}/{part}', f'basicsr/{part}'), (f'tests/test_{part}', f'tests/test_{part}')):
            files.update({f'{target}/{path.name}': path for path in sorted((ROOT / folder).glob('[!_]*.py'))})
    for kind in ('train', 'test'):
        files.update({f'options/{kind}/LowLightCycleGAN/{path.name}': path
                      for path in sorted(ROOT.glob(f'options/{kind}_*.yml'))})
    files.update({f'basicsr/data/meta_info/meta_info_{path.name}': path for path in ROOT.glob('options/*.txt')})
    texts = {}
    for target, path in files.items():
        text = written_out(str(path)) if path.suffix == '.yml' else path.read_text(encoding='utf-8')
        texts[target] = upstream_python(text) if path.suffix == '.py' else rewrite(text)
        left = next((line.strip() for line in texts[target].splitlines() if LEFTOVERS.search(line)), None)
        if left:
            raise Refusal(f'{path.relative_to(ROOT)}: cannot go upstream, it speaks of the plugin: {left}')
    return texts


def formatted(texts, settings):
    """The texts after isort and yapf with the tree's settings; prints what flake8 finds."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder, {**texts, 'setup.cfg': settings})
        python = [path for path in texts if path.endswith('.py')]
        for tool, flag in (('isort', '--quiet'), ('yapf', '--in-place'), ('flake8', '--exit-zero')):
            print(run(sys.executable, '-m', tool, flag, *python, cwd=folder), end='')
        return {path: Path(folder, path).read_text(encoding='utf-8') for path in texts}


def merge(theirs, ours, path):
    """Append our module to the tree's module of the same name; isort sorts the imports afterwards."""
    module = path.removesuffix('.py').replace('/', '.')
    lines, imports = ours.splitlines(), []
    for node in reversed(ast.parse(ours).body):
        source = '\n'.join(lines[node.lineno - 1:node.end_lineno])
        if re.match(r'from |import |\"{3}|__all__', source):  # a docstring too: the tree's module has its own
            if re.match(f'from (?!{module} )|import ', source):
                imports.append(source)
            del lines[node.lineno - 1:node.end_lineno]
    rest = re.sub(r'\n{4,}', '\n\n\n', '\n'.join(lines)).strip('\n') + '\n'
    if rest in theirs:
        return theirs
    for name in re.findall(r'^(?:def|class) (\w+)', rest, re.MULTILINE):
        if re.search(rf'^(?:def|class) {name}\b', theirs, re.MULTILINE):
            raise Refusal(f'{path}: has another {name} already')
    return '\n'.join(imports) + f'\n{theirs.rstrip()}\n\n\n{rest}'


# ------------------------------------------------------------------ the tree


def write(folder, texts):
    for path, text in texts.items():
        Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, path).write_bytes(text.encode())


def copy_tree(root, copy):
    """A repository of its own with the tree's last commit, or with its files where there is no git."""
    missing = next((name for name in TREE if not (root / name).is_file()), None)
    if missing:
        raise Refusal(f'{root}: is no BasicSR source tree, it has no {missing}')
    if (root / 'basicsr').is_symlink() or list(root.glob('basicsr-*.dist-info')):
        raise Refusal(f'{root}: holds an installed basicsr, give a source tree')
    if (root / '.git').exists():
        git(root, 'clone', '--quiet', root, copy)
    else:
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns('__pycache__', 'datasets', 'experiments', 'results'))
        git(copy, 'init', '--quiet')
        commit(copy, 'BasicSR')


def commit(copy, message):
    """Commit everything; nothing where nothing has changed."""
    git(copy, 'add', '--force', '--all')
    if git(copy, 'status', '--porcelain'):
        git(copy, 'commit', '--quiet', '--no-verify', '--no-gpg-sign', '-m', message)


def apply_patch(copy, patch):
    """Apply a patch to those of its files that are not yet as it leaves them."""
    for path in re.findall(r'^\+\+\+ b/(.*)', patch.read_text(encoding='utf-8'), re.MULTILINE):
        apply = ('apply', f'--include={path}', patch)
        if not (copy / path).is_file() and not path.startswith('basicsr/'):
            continue  # releases come without documentation
        if git(copy, *apply, check=False) is None and git(copy, *apply, '-R', '--check', check=False) is None:
            raise Refusal(f'{path}: cannot be repaired, it is not what {patch.name} expects')


def contribute(copy):
    """Commit the patches and our files to the copy of a tree."""
    texts, settings = sources(), copy / 'setup.cfg'
    if settings.is_file():
        texts = formatted(texts, settings.read_text())
    else:
        print('not formatted: the tree has no setup.cfg')
    patches = sorted((ROOT / 'scripts' / 'upstream').glob('*.patch'))
    for patch in patches:
        apply_patch(copy, patch)
        pattern = '' if patch == patches[-1] else WITH_PATCH.get(patch.name[:4], 'nothing')
        for path in [path for path in texts if re.search(pattern, path)]:
            text, file = texts.pop(path), copy / path
            if file.is_file() and file.read_text(encoding='utf-8') != text:
                if not path.startswith('basicsr/') or path.endswith('_arch.py'):
                    raise Refusal(f'{path}: is there already and differs from what would be written')
                write(copy, {path: merge(file.read_text(encoding='utf-8'), text, path)})
                run(sys.executable, '-m', 'isort', '--quiet', path, cwd=copy)
            else:
                write(copy, {path: text})
        commit(copy, patch.read_text(encoding='utf-8').split('\n---\n')[0].removeprefix('Subject: '))


def work(root, series):
    """Contribute to the tree ``root``, or write the patch series into the folder ``series``."""
    has_git = (root / '.git').exists()
    if series and not has_git:
        raise Refusal(f'{root}: is no git repository, so there is no patch series to make')
    if not series:  # nobody sees these commits
        os.environ.update({f'GIT_{role}_{key}': 'contribution' for role in ('AUTHOR', 'COMMITTER')
                           for key in ('NAME', 'EMAIL')})
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, 'tree')
        copy_tree(root, copy)
        base, date = git(copy, 'log', '-1', '--format=%H %cI').split()
        os.environ.update(GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)  # so that the series is the same every time
        contribute(copy)
        changed = git(copy, 'diff', '--name-only', base, 'HEAD').splitlines()
        texts = {path: (copy / path).read_text(encoding='utf-8') for path in changed}
        status = git(root, 'status', '--porcelain', '--no-renames', '--untracked-files=all') if has_git else ''
        for path in (line[3:] for line in status.splitlines()):
            if path not in texts or not (root / path).is_file() or (root / path).read_text() != texts[path]:
                raise Refusal(f'{root / path}: is not committed, commit or stash it first')
        if not changed:
            print(f'{root} has everything already')
        elif series:
            others = sorted(series.glob('*.patch'))
            if others:
                raise Refusal(f'{series}: holds patches, such as {others[0].name}; name another folder')
            print(git(copy, 'format-patch', '--no-signature', '-o', series, base))
        else:
            write(root, texts)
            print(*(f'wrote {path}' for path in changed), sep='\n')
            print(f'ready: cd {root} && pip install --no-build-isolation -e . && python basicsr/train.py '
                  '-opt options/train/LowLightCycleGAN/train_lol.yml')


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('tree', type=Path, help='BasicSR source tree')
    parser.add_argument('--patch', type=Path, metavar='FOLDER',
                        help='write a patch series for git am there, leave the tree alone')
    args = parser.parse_args(argv)
    try:
        work(args.tree.expanduser().resolve(), args.patch and args.patch.expanduser().resolve())
    except Refusal as refusal:
        raise SystemExit(str(refusal)) from None
    except OSError as error:
        raise SystemExit(f'{error.filename}: {error.strerror}') from None


if __name__ == '__main__':
    main()
