import cv2
import logging
import numpy as np
import os
import pytest
import sys
import traceback
from pathlib import Path

# Toy tensors gain nothing from threads, and a forked process cannot use those of its parent.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import lowlight_cyclegan  # noqa: E402, F401  (BasicSR cannot be imported before: it needs mending)

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption('--full', action='store_true', help='run the long suites as a whole')


def pytest_configure(config):
    config.addinivalue_line('markers', 'full: part of a long suite that runs with --full alone')


def pytest_collection_modifyitems(config, items):
    if not config.getoption('--full'):
        skip = pytest.mark.skip(reason='a long suite: --full runs it')
        for item in items:
            if 'full' in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def one_thread():
    """Whatever an earlier test left: forks compute with one thread, and pictures are compared to the bit."""
    if 'torch' in sys.modules:
        sys.modules['torch'].set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_logger():
    """BasicSR's logger keeps the first output it saw, which is gone after the test, and in forks."""
    yield
    if 'basicsr.utils.logger' in sys.modules:
        sys.modules['basicsr.utils.logger'].initialized_logger.clear()
        logging.getLogger('basicsr').handlers.clear()


@pytest.fixture(scope='session')
def lol_root():
    """LOL v1 beside the repository; tests that need it are skipped without."""
    folder = ROOT.parent / 'shared' / 'data' / 'LOLv1'
    if not folder.is_dir():
        pytest.skip('LOL v1 is not at ../shared/data/LOLv1')
    return folder


@pytest.fixture
def write_images():
    """Function that fills a folder with small random PNGs 0.png, 1.png, ... and returns it."""

    def write(folder, count=4, size=(48, 40), brightness=255, seed=0):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        for i in range(count):
            coarse = rng.integers(0, brightness + 1, (6, 6, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f'{i}.png'), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR))
        return folder

    return write


TOY_OPTIONS = """
name: toy
model_type: LowLightCycleGANModel
scale: 1
num_gpu: 0
manual_seed: 0
datasets:
  train:
    name: toy
    type: UnpairedImageDataset
    dataroot_lq: data/low
    dataroot_gt: data/high
    exclude_names: held_out.txt
    io_backend: {type: disk}
    gt_size: 32
    use_hflip: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 4
  val:
    name: toy_val
    type: PairedNameListDataset
    dataroot_lq: data/low
    dataroot_gt: data/high
    names: held_out.txt
    io_backend: {type: disk}
network_g: {type: EMAResNetGenerator, num_feat: 8, num_block: 1, ema_factor: 4}
network_f: {type: EMAResNetGenerator, num_feat: 8, num_block: 1, ema_factor: 4}
network_d_a: {type: PatchGANDiscriminator, num_feat: 4, num_layer: 2}
network_d_b: {type: PatchGANDiscriminator, num_feat: 4, num_layer: 2}
path: {pretrain_network_g: ~, resume_state: ~}
train:
  optim_g: {type: Adam, lr: 1e-3, betas: [0.5, 0.999]}
  optim_d: {type: Adam, lr: 1e-3, betas: [0.5, 0.999]}
  scheduler: {type: LinearDecayLR}
  total_iter: 5
  ema_decay: 0.9
  gan_opt: {type: GANLoss, gan_type: vanilla, loss_weight: 1}
  cycle_opt: {type: L1Loss, loss_weight: 10}
  identity_opt: {type: L1Loss, loss_weight: 5}
val:
  val_freq: 5
  save_img: false
  metrics:
    psnr: {type: calculate_psnr, crop_border: 0}
logger: {print_freq: 1, save_checkpoint_freq: 2, use_tb_logger: false}
"""


@pytest.fixture
def toy_run(tmp_path, write_images):
    """Folder with toy.yml and its data: 9 training pictures of each domain in batches of 4, 2 held-out pairs."""
    write_images(tmp_path / 'data' / 'low', 11, brightness=60)
    write_images(tmp_path / 'data' / 'high', 11)
    (tmp_path / 'held_out.txt').write_text('0\n1\n')
    (tmp_path / 'toy.yml').write_text(TOY_OPTIONS)
    return tmp_path


@pytest.fixture
def forked(tmp_path):
    """Function that calls another in a fork of this process, which spares it the imports: (exit code, output)."""

    def run(function):
        output = tmp_path / 'output.txt'
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            _, status = os.waitpid(pid, 0)
            return os.waitstatus_to_exitcode(status), output.read_text()
        code = 1
        try:
            fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            sys.stdout = sys.stderr = open(2, 'w', buffering=1, closefd=False)  # in the place of pytest's capture
            logging.root.handlers.clear()
            import torch
            torch.set_num_threads(1)  # the threads of the parent are not here
            function()
            code = 0
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code)
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    return run


@pytest.fixture
def write_pairs(write_images):
    """Function that fills folder/low and folder/high with pictures of the same views, the low ones at a tenth."""

    def write(folder, count=4, low='low', high='high', seed=0):
        write_images(folder / high, count, seed=seed)
        (folder / low).mkdir()
        for path in (folder / high).iterdir():
            img = cv2.imread(str(path))
            cv2.imwrite(str(folder / low / path.name), np.round(img * 0.1).astype(np.uint8))
        return folder

    return write


@pytest.fixture
def refusal():
    """Function that calls another and returns the line with which it ends, or which it raises."""

    def call(function, *args, **kwargs):
        with pytest.raises((SystemExit, ValueError, OSError)) as stop:
            function(*args, **kwargs)
        line = getattr(stop.value, 'code', str(stop.value))
        assert isinstance(line, str) and '\n' not in line, line
        return line

    return call
