import chromium
import io
import json
import numpy as np
import os
import pytest
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from PIL import Image

from lowlight_cyclegan.photos.read import read_image
from lowlight_cyclegan.web.store import GONE

pytest.importorskip('gradio')
from web_client import Brightening, Page, call, enhance, photo_bytes, put  # noqa: E402


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    environment = dict(os.environ)
    page = Page(tmp_path_factory.mktemp('page'), {'first': Brightening(), 'second': Brightening(2)},
                max_mb=1, max_megapixels=1)
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
        from lowlight_cyclegan.web.page import _status  # once gradio's environment is set
        said = _status('<img src=x onerror=alert(1)>.jpg')
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
        assert page.http.get(f'/download/{"a" * 32}/100').text == GONE


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


@pytest.fixture
def gradio_environment(monkeypatch):
    """What a page sets in the environment is taken back afterwards."""
    for name in ('GRADIO_ANALYTICS_ENABLED', 'HF_HUB_DISABLE_TELEMETRY', 'GRADIO_TEMP_DIR'):
        monkeypatch.setenv(name, os.environ.get(name, ''))


def test_the_page_is_there_before_the_model(tmp_path, gradio_environment):
    loaded, enhancer = threading.Event(), Brightening()

    def load():
        assert loaded.wait(60)
        return enhancer

    page = Page(tmp_path, {'first': load})
    try:
        with ThreadPoolExecutor(1) as pool:
            photo = pool.submit(enhance, page.http, 'night.jpg', photo_bytes())
            assert page.http.get('/').status_code == page.http.get('/config').status_code == 200
            assert not photo.done() and not enhancer.calls
            loaded.set()
            assert photo.result()[0].startswith('night.jpg · 90 × 60') and enhancer.calls == 1
    finally:
        page.close()


def test_a_page_without_photos_loads_no_torch(tmp_path):
    script = """
import sys
from concurrent.futures import ThreadPoolExecutor
from lowlight_cyclegan.web.limits import Limits
from lowlight_cyclegan.web.server import build_app
build_app({'lite': None}, ThreadPoolExecutor(1), sys.argv[1], Limits())
print(sorted({'torch', 'basicsr', 'torchvision', 'cv2', 'lowlight_cyclegan.enhance.enhancer'} & {*sys.modules}))
"""
    result = subprocess.run([sys.executable, '-c', script, tmp_path], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, '[]\n'), result.stderr


@pytest.mark.parametrize('stripped', [True, False])
def test_behind_a_reverse_proxy(stripped, tmp_path, gradio_environment):
    page = Page(tmp_path, {'first': Brightening()}, root_path='/light')

    def at(path):
        return path.removeprefix('/light') if stripped else path

    def rewrite(request):
        request.url = request.url.copy_with(path=at(request.url.path))

    page.http.event_hooks['request'].append(rewrite)
    page.http.headers['x-forwarded-host'] = 'example.com'
    page.http.headers['x-forwarded-proto'] = 'https'
    try:
        page.http.base_url = page.url + '/light'
        html = page.http.get('/').text
        assert 'https://example.com/light' in html and page.http.get('/config').json()['root'].endswith('/light')
        said, others = enhance(page.http, 'night.jpg', photo_bytes((300, 200)))
        assert said.startswith('night.jpg · 300 × 200')
        link = re.search(r'href=\\"(.*?)\\"', json.dumps(others)).group(1)
        assert link.startswith('/light/download/')
        assert page.http.get(page.url + link).status_code == 200
        pictures = re.findall(r'https://example.com(/light/gradio_api/file=.*?)"', json.dumps(others))
        assert len(pictures) == 2
        assert all(page.http.get(page.url + path).headers['content-type'] == 'image/webp' for path in pictures)
        assert page.http.get('/docs').status_code == 404
    finally:
        page.close()
