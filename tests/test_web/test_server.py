import argparse
import chromium
import io
import json
import numpy as np
import os
import pytest
import re
import signal
import subprocess
import sys
import threading
import time
import torch
from concurrent.futures import ThreadPoolExecutor
from PIL import Image, ImageCms

from lowlight_cyclegan.web import server as web
from lowlight_cyclegan.archs.ema_resnet_arch import EMAResNetGenerator
from lowlight_cyclegan.enhance.enhancer import Enhancer
from lowlight_cyclegan.photos.formats import ImageError
from lowlight_cyclegan.photos.read import read_image

MAKER = 0x10F


class Brightening:
    """Enhancer without a network that counts its pictures."""

    def __init__(self, factor=3):
        self.factor, self.calls = factor, 0

    def enhance(self, image):
        self.calls += 1
        white = np.iinfo(image.dtype).max
        result = np.minimum(image.astype(np.float64) * self.factor, white).astype(image.dtype)
        if image.ndim == 3 and image.shape[2] in (2, 4):
            result[..., -1] = image[..., -1]
        return result


def photo_bytes(size=(90, 60), mode='RGB', kind='JPEG', seed=0):
    """A dark photo with EXIF data and a colour profile, as other software writes it."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(20, 70, (6, 9, 3), dtype=np.uint8)).resize(size).convert(mode)
    exif = Image.Exif()
    exif[MAKER] = 'Maker'
    file = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes() if mode != 'L' else None
    image.save(file, kind, exif=exif, icc_profile=profile, quality=95)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path):
    return web.Photos(tmp_path, max_pixels=10**6)


@pytest.fixture
def upload(tmp_path_factory):

    def write(name='night.jpg', **kwargs):
        path = tmp_path_factory.mktemp('upload') / name
        path.write_bytes(photo_bytes(**kwargs))
        return path

    return write


class TestTokenBucket:

    def test_a_burst_then_the_rate(self):
        now = [0.0]
        bucket = web.TokenBucket(rate=6, clock=lambda: now[0])
        assert [bucket.take('a') for _ in range(7)] == [True] * 6 + [False]
        assert bucket.take('b')
        now[0] = 9.9
        assert not bucket.take('a')
        now[0] = 10
        assert bucket.take('a') and not bucket.take('a')

    def test_rates_below_one_grant_one_photo(self):
        now = [0.0]
        bucket = web.TokenBucket(rate=0.5, clock=lambda: now[0])
        assert bucket.take('a') and not bucket.take('a')
        now[0] = 120
        assert bucket.take('a')

    def test_forgets_addresses_that_have_paused(self):
        now = [0.0]
        bucket = web.TokenBucket(rate=6, clock=lambda: now[0])
        for i in range(1000):
            bucket.take(i)
        now[0] = 60
        bucket.take('last')
        assert len(bucket._levels) == 1


class TestPhotos:

    @pytest.mark.parametrize('name, mode, kind', [
        ('night.jpg', 'RGB', 'JPEG'), ('night.jpg', 'L', 'JPEG'), ('night.png', 'RGBA', 'PNG'),
        ('night.png', 'LA', 'PNG'), ('night.webp', 'RGB', 'WEBP')])
    def test_downloads_full_size_with_metadata(self, photos, upload, name, mode, kind):
        path = upload(name, size=(1700, 500), mode=mode, kind=kind)
        enhancer = Brightening()
        token, size = photos.add(path, enhancer)
        before = read_image(path)
        result_name, data = photos.encode(token, 100)
        (photos.root / result_name).write_bytes(data)
        after = read_image(photos.root / result_name)
        assert size == before.size
        assert result_name == name.replace('.', '_enhanced.')
        assert after.pixels.shape == before.pixels.shape
        expected = enhancer.enhance(before.pixels)
        assert abs(after.pixels.astype(int) - expected).mean() < (0.1 if kind == 'PNG' else 4)
        assert (after.exif, after.icc) == (before.exif, before.icc)
        assert Image.open(io.BytesIO(data)).getexif()[MAKER] == 'Maker'

    def test_16_bits_stay(self, photos, tmp_path):
        path = tmp_path / 'deep.png'
        pixels = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) * 5
        Image.fromarray(pixels).save(path)
        token, _ = photos.add(path, Brightening(2))
        (tmp_path / 'out.png').write_bytes(photos.encode(token, 100)[1])
        assert np.array_equal(read_image(tmp_path / 'out.png').pixels, pixels * 2)
        assert Image.open(photos.preview(token, 50)[1]).size == (40, 48)

    def test_previews_are_reduced_and_differ_in_strength(self, photos, upload):
        token, _ = photos.add(upload(size=(3200, 40)), Brightening())
        means = []
        for strength in (0, 40, 100):
            before, after = map(Image.open, photos.preview(token, strength))
            assert before.size == after.size == (1600, 20)
            assert before.info['icc_profile'] == after.info['icc_profile']
            means.append(np.asarray(after).mean())
        assert means[0] == np.asarray(before).mean() < means[1] - 5 < means[2] - 10

    @pytest.mark.parametrize('shape', [(300, 7), (5, 6, 3), (600, 5, 4), (9, 8, 2)])
    @pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
    def test_blends_as_the_enhancer_does(self, shape, dtype):
        rng = np.random.default_rng(0)
        low = rng.integers(0, np.iinfo(dtype).max // 4, shape, dtype=dtype)
        enhancer = Enhancer(torch.nn.Tanh(), device='cpu', mode='direct')  # any function
        expected = enhancer.enhance(low, strength=0.35)
        assert np.abs(web._blend(low, enhancer.enhance(low), 0.35).astype(int) - expected).max() <= 1

    def test_refuses_with_one_line(self, photos, upload, tmp_path):
        for name, data, words in (('a.jpg', b'', 'a.jpg: is empty'), ('b.jpg', b'hello', 'b.jpg: holds no image'),
                                  ('c.jpg', photo_bytes()[:900], 'c.jpg: '),
                                  ('d.jpg', photo_bytes((1001, 1000)), 'd.jpg: 1001x1000')):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(ImageError, match=f'^{words}.*$'):
                photos.add(tmp_path / name, Brightening())
        assert not [path for path in photos.root.iterdir() if path.is_dir()]

    def test_removes_what_is_not_used(self, photos, upload):
        tokens = [photos.add(upload(), Brightening())[0] for _ in range(3)]
        (photos.root / 'tmp_of_gradio').touch()
        for entry in photos.root.iterdir():
            os.utime(entry, (0, time.time() - 100))
        photos.preview(tokens[1], 100)
        photos.sweep(age=50)
        assert [path.name for path in photos.root.iterdir()] == [tokens[1]]
        photos.remove(tokens[1])
        photos.remove(tokens[1])
        assert not list(photos.root.iterdir())

    def test_removes_the_oldest_when_space_is_short(self, photos, upload):
        tokens = []
        for i in range(4):
            tokens.append(photos.add(upload(), Brightening())[0])
            os.utime(photos.root / tokens[-1], (0, i))
        photos.max_bytes = 2.5 * web._size(photos.root / tokens[0])
        photos.shrink()
        assert {path.name for path in photos.root.iterdir()} == set(tokens[2:])

    @pytest.mark.parametrize('token', [None, '', '..', '../..', 'a' * 32, 'original'])
    def test_knows_only_its_tokens(self, photos, token):
        with pytest.raises(FileNotFoundError):
            photos.encode(token, 100)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    web.add_arguments(parser)
    return parser.parse_args(arguments)


class TestFlags:

    def test_defaults_are_private(self):
        args = parse()
        assert (args.host, args.port, args.model) == ('127.0.0.1', 7860, ['lite'])
        assert web.Limits(args.max_mb, args.max_megapixels, args.queue, args.rate, args.keep) == web.Limits()

    @pytest.mark.parametrize('flag, value', [
        ('--port', '70000'), ('--port', 'x'), ('--max-mb', '0'), ('--max-megapixels', 'nan'), ('--queue', '0'),
        ('--queue', '1.5'), ('--rate', '-1'), ('--keep', 'inf')])
    def test_refuses_numbers_that_make_no_sense(self, flag, value, capsys):
        with pytest.raises(SystemExit):
            parse(f'{flag}={value}')
        assert f'argument {flag}: needs' in capsys.readouterr().err

    def test_without_gradio_names_the_extra(self, monkeypatch):
        monkeypatch.setattr(web, 'find_spec', lambda name: None)
        with pytest.raises(SystemExit, match=r"^The page needs gradio: pip install 'lowlight_cyclegan\[web\]'$"):
            web.run(parse())

    def test_port_taken_is_one_line(self):
        with web._listen('127.0.0.1', 0) as taken:
            port = taken.getsockname()[1]
            words = f'^--host 127.0.0.1 --port {port}: Address already in use; --port 0 .*$'
            with pytest.raises(SystemExit, match=words):
                web.run(parse('--port', str(port)))

    def test_unknown_host_model_or_device_is_one_line(self):
        with pytest.raises(SystemExit, match='^--host nowhere.invalid --port 0: .*$'):
            web.run(parse('--host', 'nowhere.invalid', '--port', '0'))
        with pytest.raises(SystemExit, match='^./no.pth: .*$'):
            web.run(parse('--port', '0', '--model', './no.pth'))
        with pytest.raises(SystemExit, match='^device abacus: .*$'):
            web.run(parse('--port', '0', '--device', 'abacus'))


def test_removes_folders_of_killed_pages_only(tmp_path, monkeypatch):
    monkeypatch.setattr(web.tempfile, 'gettempdir', lambda: str(tmp_path))
    gone = subprocess.Popen(['true'])
    gone.wait()
    kept = [f'{web.FOLDER}{os.getpid()}_x', f'{web.FOLDER}other_x', 'else']
    for name in [f'{web.FOLDER}{gone.pid}_x', *kept]:
        (tmp_path / name / 'inner').mkdir(parents=True)
    web._remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


class Page:
    """A page that is served by this process, and what a client needs of gradio's protocol."""

    def __init__(self, folder, models, **limits):
        import httpx
        import uvicorn
        self.folder, self.models = folder, models
        listener = web._listen('127.0.0.1', 0)
        self.url = f'http://127.0.0.1:{listener.getsockname()[1]}'
        app = web.build_app(models, folder, web.Limits(**limits))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, kwargs={'sockets': [listener]}, daemon=True)
        self._thread.start()
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def close(self):
        self.http.close()
        self._server.should_exit = True
        self._thread.join()


def put(http, name, data):
    return http.post('/gradio_api/upload', files={'files': (name, data)})


def call(http, function, *values, session='session'):
    """Outputs of a function of the page, as a browser's session gets them."""
    values = {'data': values, 'session_hash': session}
    answer = http.post(f'/gradio_api/call/{function}', json=values)
    answer.raise_for_status()
    text = http.get(f'/gradio_api/call/{function}/{answer.json()["event_id"]}').text
    kind, data = re.fullmatch(r'(?s).*event: (\w+)\ndata: (.*?)\s*', text).groups()
    assert kind == 'complete', text
    return json.loads(data)


def enhance(http, name, data, model='first', strength=100, session='session'):
    """(line of the page, its other outputs) after a photo was dropped."""
    path, = put(http, name, data).json()
    file = {'path': path, 'orig_name': name, 'meta': {'_type': 'gradio.FileData'}}
    _, said, *others = call(http, 'enhance', file, model, strength, None, session=session)
    return re.sub('<.*?>', '', said), others


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    pytest.importorskip('gradio')
    environment = dict(os.environ)
    page = Page(tmp_path_factory.mktemp('page'), {'first': Brightening(), 'second': Brightening(2)},
                rate=1000, max_mb=1, max_megapixels=1)
    yield page
    page.close()
    os.environ.clear()
    os.environ.update(environment)


class TestPage:

    def test_loads_nothing_from_elsewhere(self, page):
        for path in ('/', '/theme.css', '/config'):
            text = page.http.get(path).text
            loaded = re.findall(r'(?:src|srcset|action|poster)=["\']?([^"\'\s>]+)|<link[^>]*href="([^"]+)'
                                r'|url\(["\']?([^)]+)|@import\s+["\']?([^"\';]+)', text)
            outside = [url for urls in loaded for url in urls if re.match('(https?:)?//', url)]
            assert not [url for url in outside if not url.startswith(page.url)]
        fonts = re.findall('--font(?:-mono)?: (.*?);', page.http.get('/theme.css').text)
        assert set(fonts) == {'system-ui, sans-serif', 'ui-monospace, monospace'}
        config = page.http.get('/config').json()
        assert not config['analytics_enabled'] and not config.get('enable_monitoring')

    def test_strength_and_download_do_not_run_the_network(self, page):
        calls = page.models['first'].calls
        said, others = enhance(page.http, 'night.jpg', photo_bytes((300, 200)))
        assert re.fullmatch(r'night.jpg · 300 × 200 · \d+\.\d s', said)
        link = re.search('href="(.*?)"', json.dumps(others).replace('\\\\', '').replace('\\"', '"')).group(1)
        full = page.http.get(link)
        assert full.headers['content-disposition'] == "attachment; filename*=UTF-8''night_enhanced.jpg"
        half = page.http.get(link.replace('/100', '/50'))
        assert page.models['first'].calls == calls + 1
        means = [np.asarray(Image.open(io.BytesIO(data))).mean()
                 for data in (photo_bytes((300, 200)), half.content, full.content)]
        assert means[0] + 10 < means[1] < means[2] - 10

    def test_the_slider_blends_previews(self, page):
        data = photo_bytes((300, 200))
        enhance(page.http, 'night.jpg', data, session='slider')
        calls, pictures = page.models['first'].calls, []
        for strength in (40, 100):
            _, slider, link = call(page.http, 'strength', strength, None, session='slider')
            urls = [picture['url'] for picture in slider]
            pictures += [np.asarray(Image.open(io.BytesIO(page.http.get(url).content))).mean() for url in urls]
            assert f'/{strength}"' in link
        assert pictures[0] == pictures[2] < pictures[1] - 10 < pictures[3] - 20
        assert page.models['first'].calls == calls

    def test_bad_files_get_one_line(self, page):
        calls = page.models['first'].calls
        for name, data, words in (('notes.txt', b'hello', 'notes.txt: holds no image'),
                                  ('broken.jpg', photo_bytes()[:700], 'broken.jpg: '),
                                  ('huge.png', photo_bytes((1100, 1000), kind='PNG'),
                                   'huge.png: 1100x1000 is 1.1 megapixels, more than the limit of 1$')):
            said, _ = enhance(page.http, name, data)
            assert re.match(words, said) and '\n' not in said and str(page.folder) not in said
        assert page.models['first'].calls == calls

    def test_a_name_is_no_markup(self, page):
        said = web._say('<img src=x onerror=alert(1)>.jpg')
        assert '<img' not in said and '&lt;img' in said

    def test_a_fault_gets_one_line_and_the_page_goes_on(self, page, monkeypatch):
        def fault(self, image):
            raise RuntimeError('no memory')

        with monkeypatch.context() as patch:
            patch.setattr(Brightening, 'enhance', fault)
            assert enhance(page.http, 'a.jpg', photo_bytes())[0].startswith('a.jpg: this machine could not')
        assert enhance(page.http, 'a.jpg', photo_bytes())[0].startswith('a.jpg · 90 × 60')

    def test_upload_is_limited_in_size(self, page):
        assert put(page.http, 'fits.bmp', bytes(2**20 - 1000)).status_code == 200
        answer = put(page.http, 'large.bmp', bytes(2**21))
        assert (answer.status_code, answer.text) == (413, 'A photo may have up to 1 MB.')

        def pieces():
            yield b'x'

        assert page.http.post('/gradio_api/upload', content=pieces()).status_code == 411

    @pytest.mark.parametrize('method, path', [
        ('GET', '/gradio_api/file=https://example.com/a.png'), ('GET', '/gradio_api/proxy=https://example.com/'),
        ('POST', '/gradio_api/run/enhance'), ('POST', '/gradio_api/api/enhance'), ('GET', '/monitoring'),
        ('GET', '/docs'), ('GET', '/gradio_api/deep_link')])
    def test_other_routes_are_closed(self, page, method, path):
        assert page.http.request(method, path).status_code == 404

    def test_other_files_are_closed(self, page):
        assert page.http.get(f'/gradio_api/file={os.path.abspath(__file__)}').status_code == 403
        assert page.http.get('/gradio_api/file=/etc/passwd').status_code == 403

    def test_fetches_no_remote_file(self, page):
        for path in ('https://example.com/a.png', ' HTTP://example.com/a.png'):
            body = json.dumps({'data': [{'path': path}, 'first', 100, None]}).replace('h', '\\u0068')
            answer = page.http.post('/gradio_api/call/enhance', content=body,
                                    headers={'content-type': 'application/json'})
            assert (answer.status_code, answer.text) == (400, 'Files are taken as uploads only.')
        assert page.http.post('/gradio_api/call/enhance', content=b'[' * 2**18 + b'[').status_code == 413

    def test_unknown_photo_is_gone(self, page):
        for token in ('a' * 32, '..%2f..', 'x'):
            answer = page.http.get(f'/download/{token}/100')
            assert answer.status_code == 404 and str(page.folder) not in answer.text
        assert page.http.get(f'/download/{"a" * 32}/100').text == web.GONE


FIELD = "document.querySelector('#upload input[type=file]')"
OVERFLOWING = ('[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1)'
               '.map(e => e.outerHTML.slice(0, 100))')
STRENGTH = """(value => {
    const range = document.querySelector('#strength input[type=range]');
    range.value = value;
    for (const kind of ['input', 'change']) range.dispatchEvent(new Event(kind, {bubbles: true}));
})"""


@pytest.mark.skipif(chromium.find() is None, reason='needs Chromium')
def test_from_upload_to_download_on_a_phone(page, tmp_path):
    (tmp_path / 'night walk.jpg').write_bytes(photo_bytes((1800, 500)))
    (tmp_path / '<b>bad.jpg').write_bytes(b'hello')
    calls = page.models['first'].calls
    with chromium.Chromium(tmp_path, size=(390, 844), phone=True) as browser:
        browser.open(page.url)
        browser.wait(FIELD)
        assert not browser.evaluate(OVERFLOWING)
        browser.put_file('#upload input[type=file]', tmp_path / 'night walk.jpg')
        browser.wait("document.querySelectorAll('#compare img').length == 2")
        browser.wait("[...document.querySelectorAll('#compare img')].every(i => i.naturalWidth == 1600)")
        status = "document.querySelector('#status').innerText"
        assert browser.evaluate(status).startswith('night walk.jpg · 1800 × 500')
        assert not browser.evaluate(OVERFLOWING)
        assert browser.evaluate('document.documentElement.scrollWidth') == 390
        browser.evaluate(f'{STRENGTH}(40)')
        browser.wait("document.querySelector('#download a').href.endsWith('/40')")
        browser.wait("document.querySelector('#compare').innerHTML.includes('after-40.webp')")
        browser.wait(FIELD)
        browser.put_file('#upload input[type=file]', tmp_path / '<b>bad.jpg')
        browser.wait("document.querySelector('#status [role=alert]')")
        assert 'holds no image' in browser.evaluate(status) and not browser.evaluate(
            "document.querySelector('#status b')")
        browser.evaluate("document.querySelector('#download a').click()")
        assert browser.wait_for_download() == 'night walk_enhanced.jpg'
        again = page.models['second'].calls
        browser.evaluate("document.querySelector('#model input[value=second]').click()")
        browser.wait("document.querySelector('#status [role=status]')")
        assert page.models['second'].calls == again + 1
        assert not browser.evaluate(OVERFLOWING)
        outside = [url for url in browser.requests if not url.startswith((page.url, 'about:', 'data:', 'blob:'))]
        assert not outside and len(browser.requests) > 20
        assert not browser.evaluate("document.querySelector('.toast-wrap').innerText")
    result = read_image(tmp_path / 'night walk_enhanced.jpg')
    original = read_image(tmp_path / 'night walk.jpg')
    assert result.size == original.size and (result.exif, result.icc) == (original.exif, original.icc)
    assert result.pixels.mean() > original.pixels.mean() + 10
    assert page.models['first'].calls == calls + 1


def test_rate_is_limited(tmp_path, monkeypatch):
    pytest.importorskip('gradio')
    for name in ('GRADIO_ANALYTICS_ENABLED', 'HF_HUB_DISABLE_TELEMETRY', 'GRADIO_TEMP_DIR'):
        monkeypatch.setenv(name, os.environ.get(name, ''))
    page = Page(tmp_path, {'first': Brightening()}, rate=3)
    try:
        said = [enhance(page.http, 'a.jpg', photo_bytes())[0] for _ in range(5)]
        assert [line.startswith('a.jpg') for line in said] == [True] * 3 + [False] * 2
        assert said[-1] == web.TOO_MANY
        put(page.http, 'a.jpg', b'')
        assert (put(page.http, 'a.jpg', b'').status_code, put(page.http, 'a.jpg', b'').text) == (429, web.TOO_MANY)
    finally:
        page.close()


def resident(pid):
    """Memory of a process, MB."""
    with open(f'/proc/{pid}/status') as f:
        return int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1)) / 1024


@pytest.fixture
def served(tmp_path):
    """Function that starts the command: (process, URL, its folder for temporary files)."""
    pytest.importorskip('gradio')
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


@pytest.mark.full
@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='memory is read from /proc')
def test_twenty_uploads_at_once(served):
    import httpx
    process, url, folder = served('--rate', '1000', '--queue', '40', '--keep', '0.4', '--max-mb', '4',
                                  '--max-megapixels', '3')
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
