import os
import pytest
import re
import signal
import subprocess
import sys
import time
import torch
from concurrent.futures import ThreadPoolExecutor

from lowlight_cyclegan.archs.ema_resnet_arch import EMAResNetGenerator
from lowlight_cyclegan.web import server

pytest.importorskip('gradio')
from web_client import enhance, photo_bytes  # noqa: E402


def test_removes_folders_of_killed_pages_only(tmp_path, monkeypatch):
    monkeypatch.setattr(server.tempfile, 'gettempdir', lambda: str(tmp_path))
    gone = subprocess.Popen(['true'])
    gone.wait()
    kept = [f'{server.FOLDER}{os.getpid()}_x', f'{server.FOLDER}other_x', 'else']
    for name in [f'{server.FOLDER}{gone.pid}_x', *kept]:
        (tmp_path / name / 'inner').mkdir(parents=True)
    server._remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def resident(pid):
    """Memory of a process, MB."""
    with open(f'/proc/{pid}/status') as f:
        return int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1)) / 1024


@pytest.fixture
def served(tmp_path):
    """Function that starts the command: (process, URL, its folder for temporary files)."""
    torch.manual_seed(0)
    network = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4)
    torch.save({'params': network.state_dict()}, tmp_path / 'toy.pth')
    (tmp_path / 'tmp').mkdir()
    processes = []

    def start(*flags):
        command = [sys.executable, '-m', 'lowlight_cyclegan', 'web', '--port', '0', '--model',
                   str(tmp_path / 'toy.pth'), '--device', 'cpu', *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                   env={**os.environ, 'TMPDIR': str(tmp_path / 'tmp'), 'OMP_NUM_THREADS': '1'})
        processes.append(process)
        line = process.stdout.readline()
        return process, re.search(r'http://\S+', line).group(), tmp_path / 'tmp'

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_an_interruption_while_the_worker_starts_ends_the_page(tmp_path):
    """Python registers a pool's thread after its start: in between, nothing would wake it at the end."""
    code = (
        'import sys, threading, lowlight_cyclegan.web.server as server\n'
        'from lowlight_cyclegan.web.limits import Limits\n'
        'start = threading.Thread.start\n'
        'def interrupted(thread):\n'
        '    start(thread)\n'
        "    if 'ThreadPoolExecutor' in thread.name:\n"
        '        raise KeyboardInterrupt\n'
        'kept = []\n'  # as the page keeps its worker: one that nobody keeps would end by itself
        'server.build_app = lambda *args: kept.append(args)\n'
        'threading.Thread.start = interrupted\n'
        "server.serve(['lite'], '127.0.0.1', 0, 'cpu', Limits())\n")
    done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'TMPDIR': str(tmp_path)}, timeout=60,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '') and 'Open http' in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.full
@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='memory is read from /proc')
def test_twenty_uploads_at_once(served):
    import httpx
    process, url, folder = served('--queue', '40', '--keep', '0.4', '--max-mb', '4', '--max-megapixels', '3')
    bad = [b'', b'hello', photo_bytes((1500, 1000))[:5000], photo_bytes((1100, 1000), kind='PNG')[:-500],
           photo_bytes((2000, 1600))]

    def upload(i):
        with httpx.Client(base_url=url, timeout=150) as http:
            data = bad[i // 2 % len(bad)] if i % 2 else photo_bytes((1500 + i, 1000), seed=i)
            said, _ = enhance(http, f'{i}.jpg', data, 'toy.pth', session=f's{i}')
            return said

    def wait_until_empty():
        end = time.monotonic() + 60
        while [path for inner in folder.iterdir() for path in inner.iterdir()]:
            assert time.monotonic() < end, 'files stay'
            time.sleep(0.5)

    upload(0)
    wait_until_empty()
    start = resident(process.pid)
    with ThreadPoolExecutor(20) as pool:
        said = list(pool.map(upload, range(20)))
    peak = resident(process.pid)
    for i, line in enumerate(said):
        assert re.match(f'{i}.jpg · ' if i % 2 == 0 else f'{i}.jpg(:| is)', line), line
    wait_until_empty()
    end = resident(process.pid)
    print(f'memory: {start:.0f} MB before, {peak:.0f} MB after the last answer, {end:.0f} MB when all is removed')
    assert end < start + 100
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert not list(folder.iterdir())


@pytest.mark.full
def test_a_killed_page_leaves_nothing_for_long(served):
    process, url, folder = served()
    process.kill()
    process.wait()
    assert len(list(folder.iterdir())) == 1
    process, url, folder = served()
    left, = folder.iterdir()
    assert str(process.pid) in left.name
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
    assert not list(folder.iterdir())
