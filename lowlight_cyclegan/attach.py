"""Attaching to a folder where BasicSR's own commands are run."""
from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from os import path as osp

from .config import options_dir, written_out
from .files import atomic_write

# One line of Python, run at every start; silent when the package is gone.
AUTOLOAD = (r'import sys; exec("try:\n from lowlight_cyclegan import autoload\n autoload.enable()\n'
            r'except ImportError: pass")')
ATTACHED = '# attached: '


def toolbox_dir() -> str:
    """Folder of the basicsr package that ``python basicsr/train.py`` imports, found without importing it.

    Raises:
        ValueError: BasicSR is not installed.
    """
    path = sys.path[:]
    if not getattr(sys.flags, 'safe_path', False):  # there from Python 3.11 on
        del sys.path[0]  # the script's own folder: DIR/basicsr there, something else here
    try:
        spec = importlib.util.find_spec('basicsr')
    finally:
        sys.path[:] = path
    if spec is None or spec.origin is None:
        raise ValueError('BasicSR is not installed in this environment: pip install basicsr')
    return osp.dirname(osp.realpath(spec.origin))


def autoload_file() -> str:
    """The .pth file of this environment that loads the plugin together with basicsr."""
    return osp.join(sysconfig.get_paths()['purelib'], 'lowlight_cyclegan_autoload.pth')


def attached_dirs() -> list[str]:
    """Folders attached in this environment that still exist."""
    if not osp.isfile(autoload_file()):
        return []
    with open(autoload_file(), encoding='ascii') as f:
        dirs = [json.loads(line[len(ATTACHED):]) for line in f if line.startswith(ATTACHED)]
    return [d for d in dirs if osp.isdir(d)]


def attach(directory: str = '.', force: bool = False) -> None:
    """Make BasicSR's own commands see the plugin in a folder: a BasicSR source tree, or any other.

    A folder without ``basicsr/`` gets a link to the installed toolbox. Our option files are written to ``options/``, in
    full: BasicSR knows no inheritance. The environment gets an autoload line. What is done is printed.

    Args:
        directory: The folder.
        force: Overwrite option files that differ from ours.

    Raises:
        ValueError: The folder does not suit.
        OSError: Something cannot be written.
    """
    root = _existing_dir(directory)
    toolbox = toolbox_dir()
    own = osp.join(root, 'basicsr')
    if not osp.lexists(own) or (osp.islink(own) and not osp.exists(own)):
        try:
            if osp.islink(own):
                os.remove(own)
            os.symlink(toolbox, own, target_is_directory=True)
        except OSError as error:
            raise ValueError(f'cannot link {own} to {toolbox}: {error.strerror}') from None
        print(f'linked   {own} -> {toolbox}')
    elif not osp.isfile(osp.join(own, 'train.py')):
        raise ValueError(f'{own} is there but holds no train.py: attach to a BasicSR source tree or to another folder')

    _copy_options(root, force)
    _write_autoload(sorted({*attached_dirs(), root}))
    print(f'autoload {autoload_file()}')

    print(f'basicsr  {toolbox} is the one imported')
    if osp.realpath(own) != toolbox:
        print(f'WARNING  that is not {own}: only the training script is taken from there. '
              'To run its own modules: PYTHONPATH=. python basicsr/train.py ...')
        if not osp.isfile(osp.join(own, 'version.py')):
            print(f'WARNING  {own} has no version.py and cannot be imported before: '
                  'pip install --no-build-isolation -e .')
    print(f'ready    cd {root} && python basicsr/train.py -opt options/train_lol.yml')


def detach(directory: str = '.') -> None:
    """Undo `attach`: the link, the option files that are still ours, the folder's record, at last the autoload line.

    Args:
        directory: The folder.

    Raises:
        ValueError: The folder does not exist.
        OSError: Something cannot be removed.
    """
    root = _existing_dir(directory)
    attached = attached_dirs()
    own = osp.join(root, 'basicsr')
    if osp.islink(own) and (not osp.exists(own) or osp.realpath(own) == toolbox_dir()):
        os.remove(own)
        print(f'removed  {own}')
    if root in attached:
        _remove_options(root)
    _write_autoload([d for d in attached if d != root])
    if osp.exists(autoload_file()):
        print(f'kept     {autoload_file()}, other folders are attached: {", ".join(attached_dirs())}')
    elif attached:
        print(f'removed  {autoload_file()}')
    print(f'detached {root}' if root in attached else f'{root} was not attached')


def _existing_dir(directory: str) -> str:
    root = osp.abspath(osp.expanduser(directory))
    if not osp.isdir(root):
        raise ValueError(f'{root} is not a folder')
    return root


def _options(root: str) -> Iterator[tuple[str, str]]:
    """(copy, what it should hold) of every option file; none in the tree our options live in."""
    source, target = options_dir(), osp.join(root, 'options')
    if osp.realpath(source) == osp.realpath(target):
        return
    for name in sorted(os.listdir(source)):
        if name.endswith(('.yml', '.txt')):
            yield osp.join(target, name), written_out(osp.join(source, name))


def _holds(path: str, text: str) -> bool:
    with open(path, 'rb') as f:
        return f.read() == text.encode()


def _copy_options(root: str, force: bool) -> None:
    for copy, text in _options(root):
        exists = osp.exists(copy)
        if exists and _holds(copy, text):
            continue
        if exists and not force:
            print(f'refused  {copy} is there and differs from ours (--force overwrites it)')
            continue
        try:
            os.makedirs(osp.dirname(copy), exist_ok=True)
            atomic_write(copy, text.encode())
        except OSError as error:
            raise ValueError(f'cannot write {copy}: {error.strerror}') from None
        print(f'copied   {copy}')


def _remove_options(root: str) -> None:
    for copy, text in _options(root):
        if not osp.exists(copy):
            continue
        if _holds(copy, text):
            os.remove(copy)
            print(f'removed  {copy}')
        else:
            print(f'kept     {copy}, it was changed')
    target = osp.join(root, 'options')
    if osp.isdir(target) and not os.listdir(target):
        os.rmdir(target)


def _write_autoload(dirs: list[str]) -> None:
    """Write the .pth file for these attached folders, or remove it when there is none; see that it works."""
    path = autoload_file()
    try:
        if not dirs:
            if osp.exists(path):
                os.remove(path)
            return
        lines = [f'{ATTACHED}{json.dumps(d)}\n' for d in dirs]
        atomic_write(path, ''.join([*lines, AUTOLOAD, '\n']).encode('ascii'))
    except OSError as error:
        raise ValueError(f'cannot write {path}: {error.strerror}; use an environment of your own (python -m venv)') \
            from None
    check = 'import sys; sys.exit("lowlight_cyclegan.autoload" not in sys.modules)'
    if subprocess.run([sys.executable, '-c', check], cwd=osp.dirname(path), check=False).returncode:
        os.remove(path)
        raise ValueError('lowlight_cyclegan is not installed in this environment: pip install it first')
