"""The package as a wheel, without the repository."""
import cv2
import numpy as np
import os
import pytest
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.full


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Function that runs ``python -m MODULE ...`` where only the wheel is there; its folder is ``installed.folder``."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split('\0')):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, source], check=True)
    wheel, = folder.glob('*.whl')
    subprocess.run([*pip, 'install', '-q', '--no-deps', '--target', folder / 'site', wheel], check=True)

    def run(*args):
        env = {**os.environ, 'PYTHONPATH': str(folder / 'site'), 'OMP_NUM_THREADS': '1'}
        done = subprocess.run([sys.executable, '-m', *args], cwd=folder, env=env, text=True, capture_output=True,
                              timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = folder
    return run


def test_info(installed):
    text = installed('lowlight_cyclegan', 'info')
    assert f'{installed.folder / "site" / "lowlight_cyclegan"}' in text and 'EMAResNetGenerator' in text
    assert (installed.folder / 'site' / 'lowlight_cyclegan' / 'web' / 'page.css').is_file()


def test_enhance(installed):
    picture = np.random.default_rng(0).integers(0, 40, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(installed.folder / 'dark.png'), picture)
    installed('lowlight_cyclegan', 'enhance', 'dark.png', '-o', 'bright.png')
    assert cv2.imread(str(installed.folder / 'bright.png')).shape == picture.shape


def test_train_on_an_option_file_of_the_package(installed, write_images):
    for kind in ('low', 'high'):
        write_images(installed.folder / kind, 4, size=(40, 40))
    installed(
        'lowlight_cyclegan.train', '-opt', 'train_lol_lite.yml', '--force_yml', 'train:total_iter=1', 'num_gpu=0',
        'datasets:train:dataroot_lq=low', 'datasets:train:dataroot_gt=high', 'datasets:train:exclude_names=~',
        'datasets:train:gt_size=32', 'datasets:train:resize=~', 'datasets:val:dataroot_lq=low',
        'datasets:val:dataroot_gt=high', 'datasets:val:names=~', 'val:metrics={}', 'logger:keep_best=~',
        'logger:use_tb_logger=false')
    assert (installed.folder / 'experiments' / 'train_lol_lite' / 'models' / 'net_g_latest.pth').is_file()


def test_options_that_attach_copies_are_there(installed):
    code = 'from lowlight_cyclegan.attach import _options; print(*[path for path, _ in _options(".")], sep="\\n")'
    (installed.folder / 'options_of.py').write_text(code)
    names = [Path(line).name for line in installed('options_of').splitlines()]
    assert 'train_lol.yml' in names and 'train_lol_lite.yml' in names and 'lol_val40.txt' in names
