"""TIFF and RAW are decoded beside this process: nothing is muted, readers stay parallel, crashes stay there."""
import io
import numpy as np
import os
import pytest
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from PIL import Image

from lowlight_cyclegan.photos import apart, read
from lowlight_cyclegan.photos.formats import ImageError
from lowlight_cyclegan.photos.read import decode_image


def tiff(seed=0, compression='tiff_lzw', size=(300, 400)):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, 'TIFF', compression=compression)
    return pixels, file.getvalue()


def test_standard_error_is_never_taken_away(capfd, monkeypatch):
    """While a reader decodes a broken TIFF, what this process writes to standard error arrives, and libtiff's remarks
    do not."""
    _, data = tiff()
    broken = data[:len(data) // 2] + b'\xff' * 400 + data[len(data) // 2 + 400:]
    stop = threading.Event()

    def decode():
        while not stop.is_set():
            with pytest.raises(ImageError):
                decode_image(broken, 'a.tif')

    with ThreadPoolExecutor(2) as readers:
        running = [readers.submit(decode) for _ in range(2)]
        written = 0
        end = time.monotonic() + 1
        while time.monotonic() < end:
            os.write(2, b'line\n')
            written += 1
            time.sleep(0.001)
        stop.set()
        for future in running:
            future.result()
    assert capfd.readouterr().err == 'line\n' * written


def test_readers_are_parallel():
    """Two threads ask two processes, each for its own picture."""
    pictures = [tiff(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as readers:
        found = list(readers.map(lambda picture: decode_image(picture[1], 'a.tif').pixels, pictures))
    assert all(np.array_equal(pixels, picture[0]) for pixels, picture in zip(found, pictures))
    assert len(apart._idle) <= 4


def test_two_threads_hold_two_processes_at_once(monkeypatch):
    pixels, data = tiff(size=(64, 64))
    decode_image(data, 'a.tif')
    both, real = threading.Barrier(2, timeout=30), apart._Decoder.decode
    monkeypatch.setattr(apart._Decoder, 'decode', lambda *arguments: (both.wait(), real(*arguments))[1])
    with ThreadPoolExecutor(2) as readers:
        for found in readers.map(lambda _: decode_image(data, 'a.tif').pixels, range(2)):
            assert np.array_equal(found, pixels)


def test_a_crash_is_one_photos(monkeypatch):
    pixels, data = tiff(size=(64, 64))
    decode_image(data, 'a.tif')
    real = apart._Decoder.decode

    def crash(self, *arguments):
        os.kill(self._process.pid, signal.SIGKILL)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(apart._Decoder, 'decode', crash)
        with pytest.raises(ImageError, match=r'^a\.tif: is broken \(its decoder crashed\)$'):
            decode_image(data, 'a.tif')
    assert np.array_equal(decode_image(data, 'a.tif').pixels, pixels)


def test_the_working_folder_holds_no_modules_of_ours(tmp_path, monkeypatch):
    """A folder of photos may also hold somebody's numpy.py."""
    (tmp_path / 'numpy.py').write_text('raise SystemExit("not this one")')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(apart, '_idle', [])
    pixels, data = tiff(size=(64, 64))
    assert np.array_equal(decode_image(data, 'a.tif').pixels, pixels)


def test_a_fork_has_processes_of_its_own(forked):
    pixels, data = tiff(size=(64, 64))
    decode_image(data, 'a.tif')

    def decode():
        assert np.array_equal(decode_image(data, 'a.tif').pixels, pixels)

    assert forked(decode) == (0, '')
    assert np.array_equal(decode_image(data, 'a.tif').pixels, pixels)


def test_others_are_decoded_here(monkeypatch):
    monkeypatch.setattr(read, 'decode_apart', lambda *_: pytest.fail('asked another process'))
    file = io.BytesIO()
    Image.new('RGB', (8, 8)).save(file, 'PNG')
    assert decode_image(file.getvalue(), 'a.png').size == (8, 8)
