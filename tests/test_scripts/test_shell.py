import os
import pytest
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ['scripts/env.sh', 'scripts/quickstart.sh', 'scripts/test.sh', '.ci/run']


def bash(*arguments, **kwargs):
    return subprocess.run(['bash', *map(str, arguments)], capture_output=True, text=True, timeout=60, **kwargs)


@pytest.mark.parametrize('script', SCRIPTS)
def test_syntax(script):
    assert bash('-n', ROOT / script).returncode == 0


@pytest.mark.parametrize('script', ['quickstart.sh', 'test.sh'])
@pytest.mark.parametrize('flag', ['-h', '--help'])
def test_help_comes_at_once(script, flag, tmp_path):
    result = bash(ROOT / 'scripts' / script, flag, cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.startswith('Usage:') and not list(tmp_path.iterdir())


def test_quickstart_refuses_arguments():
    result = bash(ROOT / 'scripts' / 'quickstart.sh', '--fast')
    assert result.returncode == 2 and 'Usage' in result.stdout


@pytest.fixture
def checkout(tmp_path):
    """A copy of env.sh in a repository whose pythons are stand-ins that write down what pip is asked to install."""
    (tmp_path / 'repo' / 'scripts').mkdir(parents=True)
    (tmp_path / 'repo' / 'setup.py').write_text('')
    (tmp_path / 'repo' / 'scripts' / 'env.sh').write_text((ROOT / 'scripts' / 'env.sh').read_text())
    (tmp_path / 'bin').mkdir()
    python = tmp_path / 'bin' / 'python3.11'
    python.write_text("""#!/bin/bash
case "$*" in
  --version) echo Python 3.11.0 ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip install "*)
    echo "Looking in indexes: https://packages.example/simple"
    [ ! -e "$0.broken" ] || exit 1
    echo "$*" >> "$PIP_CALLS" ;;
esac
""")
    python.chmod(0o755)
    # like a version manager's shims without their Python
    for name in ('python3.13', 'python3.12', 'python3.10', 'python3', 'python'):
        (tmp_path / 'bin' / name).write_text('#!/bin/bash\nexit 127\n')
        (tmp_path / 'bin' / name).chmod(0o755)

    def enter():
        env = {'PATH': f"{tmp_path / 'bin'}:/usr/bin:/bin", 'PIP_CALLS': str(tmp_path / 'calls')}
        return bash('-c', 'set -euo pipefail; source repo/scripts/env.sh; enter_environment', cwd=tmp_path, env=env)

    return tmp_path, enter


def test_environment_is_made_once(checkout):
    folder, enter = checkout
    result = enter()
    assert result.returncode == 0, result.stderr
    calls = (folder / 'calls').read_text().splitlines()
    assert 'torch' in calls[1] and '--no-build-isolation' in calls[2] and '[all]' in calls[2]
    result = enter()
    assert result.returncode == 0 and result.stdout == ''
    assert (folder / 'calls').read_text().splitlines() == calls


def test_changed_setup_is_installed(checkout):
    folder, enter = checkout
    enter()
    (folder / 'repo' / 'setup.py').write_text('changed')
    assert enter().returncode == 0
    assert len((folder / 'calls').read_text().splitlines()) == 6


def test_failed_installation_says_why_and_is_taken_up_again(checkout):
    folder, enter = checkout
    broken = folder / 'repo' / '.venv' / 'bin' / 'python.broken'
    broken.parent.mkdir(parents=True)
    broken.touch()
    result = enter()
    assert result.returncode == 1 and 'installation failed' in result.stderr
    assert 'packages.example' not in result.stdout + result.stderr
    broken.unlink()
    assert enter().returncode == 0
    assert len((folder / 'calls').read_text().splitlines()) == 3


def test_no_python_is_one_line(checkout):
    folder, enter = checkout
    (folder / 'bin' / 'python3.11').write_text('#!/bin/bash\nexit 127\n')
    result = enter()
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1 and 'No Python from 3.10 on' in result.stderr
    assert not (folder / 'repo' / '.venv').exists()


def test_setup_py_of_basicsr_finds_its_version(tmp_path):
    """The lines of its setup.py that fail from Python 3.13 on."""
    (tmp_path / 'setup.py').write_text("""
def get_version():
    exec(compile("__version__ = '1.4.2'", 'version.py', 'exec'))
    return locals()['__version__']

print(get_version())
exec('x = 1', {})
exec('y = 1')
print(y)
""")
    found = subprocess.run([sys.executable, 'setup.py'], cwd=tmp_path, capture_output=True, text=True,
                           env={**os.environ, 'PYTHONPATH': str(ROOT / 'scripts' / 'python313')})
    assert found.stdout.split() == ['1.4.2', '1'], found.stderr


@pytest.mark.parametrize('readme', ['README.md', 'scripts/README.md'])
def test_readme_names_that_folder_wherever_pip_builds(readme, tmp_path):
    """pip runs a setup.py in the folder of its sources."""
    line, = (line for line in (ROOT / readme).read_text().splitlines() if line.startswith('PYTHONPATH='))
    (tmp_path / 'pip').write_text(f"""#!/bin/bash
[ "$1" = install ] && cd {tmp_path} && {sys.executable} -c 'import sitecustomize; print(sitecustomize.__file__)'
""")
    (tmp_path / 'pip').chmod(0o755)
    found = bash('-c', line, cwd=ROOT, env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'})
    assert Path(found.stdout.strip()) == ROOT / 'scripts' / 'python313' / 'sitecustomize.py', found.stderr
