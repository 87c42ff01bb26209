"""The web page: a photo in, before and after side by side, the full-size result out. No request leaves the machine.

A photo is a folder under a temporary one: the upload, the network's picture and the previews. Its name is a random
token. The strength slider and the download link blend from what lies there, so the network runs once for a photo.
"""
import argparse
import asyncio
import contextlib
import ctypes
import errno
import html
import ipaddress
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from lowlight_cyclegan.messages import fail, first_line

__all__ = ['Limits', 'Photos', 'TokenBucket', 'add_arguments', 'build_app', 'run']

PREVIEW = 1600  # pixels of a preview's longer side: sharp on a phone, small on the wire
ROWS = 256  # of a picture that are blended at a time: linear light takes floating point
FOLDER = 'lowlight_cyclegan_web_'  # of a running page, followed by its process and something random
LARGEST_CALL = 2**18  # bytes of a request that is no upload; those of the page have a few hundred
FORM_BYTES = 2**16  # of an upload that are not the photo
GONE = 'This photo is no longer kept here: drop it again.'
TOO_MANY = 'Too many photos in a short time: wait a minute.'


@dataclass(frozen=True)
class Limits:
    """What a page accepts: ``rate`` counts photos a minute and address, ``keep`` the minutes after their last use."""
    max_mb: float = 32
    max_megapixels: float = 64
    queue: int = 20
    rate: float = 20
    keep: float = 15


def add_arguments(parser):
    """Add the flags of ``lowlight-cyclegan web``."""
    known = Limits()
    parser.add_argument('--host', default='127.0.0.1',
                        help='address to listen on; 0.0.0.0 lets other machines in. Default: %(default)s')
    parser.add_argument('--port', type=_port, default=7860, help='0 takes a free one. Default: %(default)s')
    parser.add_argument('--model', nargs='+', default=['lite'], metavar='NAME',
                        help='weights: a name in the box, a file or a folder; with several, the page lets one choose. '
                        'Default: lite')
    parser.add_argument('--device', help='default: cuda where there is one, else cpu')
    limits = parser.add_argument_group('limits')
    for name, kind, metavar, text in (
        ('--max-mb', _positive, 'MB', 'size of an upload'),
        ('--max-megapixels', _positive, 'N', 'size of a photo'),
        ('--queue', _count, 'N', 'photos that may wait; one is worked on at a time'),
        ('--rate', _positive, 'N', 'photos a minute from one address'),
        ('--keep', _positive, 'MINUTES', 'time after its last use at which a photo is removed'),
    ):
        limits.add_argument(name, type=kind, default=getattr(known, name[2:].replace('-', '_')), metavar=metavar,
                            help=f'{text}. Default: %(default)s')


def _positive(text):
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float('inf'):
            return float(text)
    raise argparse.ArgumentTypeError(f'needs a number above 0, got {text}')


def _count(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'needs a whole number above 0, got {text}')
    return int(text)


def _port(text):
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'needs a port from 0 to 65535, got {text}')
    return int(text)


def run(args):
    """Serve the page until it is interrupted.

    Raises:
        SystemExit: One line, if gradio is missing, the address cannot be had or the weights cannot be loaded.
    """
    if find_spec('gradio') is None:
        fail("The page needs gradio: pip install 'lowlight_cyclegan[web]'")
    import uvicorn

    from lowlight_cyclegan.enhance.enhancer import Enhancer
    with contextlib.suppress(KeyboardInterrupt), _listen(args.host, args.port) as listener:
        models = {}
        for name in args.model:
            label = Path(name).name  # folders of this machine are nobody's business, unless they tell two files apart
            try:
                models[name if label in models else label] = Enhancer.from_pretrained(name, device=args.device)
            except ValueError as error:
                fail(str(error))
        _remove_leftovers()
        # uvicorn hands the signal on after its own shutdown: as an exception, it lets the folder be removed first.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with tempfile.TemporaryDirectory(prefix=f'{FOLDER}{os.getpid()}_', ignore_cleanup_errors=True) as folder:
            limits = Limits(args.max_mb, args.max_megapixels, args.queue, args.rate, args.keep)
            app = build_app(models, folder, limits)
            host, port = listener.getsockname()[:2]
            print(f'Open http://{f"[{host}]" if ":" in host else host}:{port} in a browser. Ctrl+C stops.', flush=True)
            if not ipaddress.ip_address(host).is_loopback:
                print('Every machine that reaches this address can use the page.', flush=True)
            # Open pages hold connections for good: they get no say in when the server ends.
            config = uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=1)
            uvicorn.Server(config).run(sockets=[listener])


def _listen(host, port):
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        advice = '; --port 0 finds a free one' if error.errno == errno.EADDRINUSE else ''
        fail(f'--host {host} --port {port}: {error.strerror}{advice}')


def _remove_leftovers():
    """Folders of pages that were killed: their photos are nobody's any more."""
    for folder in Path(tempfile.gettempdir()).glob(f'{FOLDER}*_*'):
        with contextlib.suppress(ValueError, PermissionError):
            try:
                os.kill(int(folder.name[len(FOLDER):].split('_')[0]), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)


class TokenBucket:
    """For every key, ``rate`` tokens a minute, and as many at once after a pause.

    Args:
        rate (float): Tokens a minute.
        clock (Callable[[], float]): Seconds that never go back.
    """

    def __init__(self, rate, clock=time.monotonic):
        self.rate, self.clock = rate, clock
        self.capacity = max(rate, 1)
        self._levels = OrderedDict()  # key -> (tokens, time); the least recently used first
        self._lock = threading.Lock()

    def take(self, key, tokens=1):
        """True and the tokens taken, or False where there are too few."""
        now = self.clock()
        with self._lock:
            level, then = self._levels.pop(key, (self.capacity, now))
            level = min(self.capacity, level + (now - then) * self.rate / 60)
            granted = level >= tokens
            self._levels[key] = (level - tokens if granted else level, now)
            while len(self._levels) > 1:  # a bucket that is full again need not be remembered
                oldest = next(iter(self._levels))
                level, then = self._levels[oldest]
                if level + (now - then) * self.rate / 60 < self.capacity:
                    break
                del self._levels[oldest]
        return granted


class Photos:
    """Photos on disk, a folder for each.

    Args:
        root (str | Path): Where the folders go.
        max_pixels (int): Of a photo.
    """

    def __init__(self, root, max_pixels):
        self.root, self.max_pixels = Path(root), max_pixels
        # Of all photos together; half of what is free stays free.
        self.max_bytes = min(8 * 2**30, shutil.disk_usage(root).free // 2)

    def add(self, upload, enhancer):
        """Read a photo, run the network on it and keep both.

        Returns:
            tuple[str, tuple[int, int]]: The token of its folder; width and height.

        Raises:
            ImageError: If the file holds no photo that can be read, or too large a one.
        """
        import numpy as np

        from lowlight_cyclegan.photos.formats import ImageError
        from lowlight_cyclegan.photos.read import decode_image
        upload = Path(upload)
        data = upload.read_bytes()
        if not data:
            raise ImageError(upload.name, 'is empty')
        photo = decode_image(data, upload.name, self.max_pixels)
        enhanced = enhancer.enhance(photo.pixels)
        token = secrets.token_hex(16)
        folder = self.root / token
        (folder / 'original').mkdir(parents=True)
        shutil.copyfile(upload, folder / 'original' / upload.name)
        np.save(folder / 'enhanced.npy', enhanced)
        np.savez(folder / 'preview.npz', low=_reduce(photo.pixels), enhanced=_reduce(enhanced),
                 icc=np.frombuffer(photo.icc, np.uint8))
        self.shrink()
        return token, photo.size

    def folder(self, token):
        """Folder of a token, which counts as a use.

        Raises:
            FileNotFoundError: If the photo is not kept any more.
        """
        if not re.fullmatch('[0-9a-f]{32}', token or ''):
            raise FileNotFoundError(token)
        os.utime(self.root / token)
        return self.root / token

    def remove(self, token):
        """Forget a photo, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder(token), ignore_errors=True)

    def sweep(self, age):
        """Remove all that was not used for this many seconds, uploads too."""
        for used, entry in self._entries():
            if time.time() - used > age:
                _delete(entry)

    def shrink(self):
        """Remove what was not used for longest, until the rest is within the space."""
        entries = [(entry, _size(entry)) for _, entry in self._entries()]
        excess = sum(size for _, size in entries) - self.max_bytes
        for entry, size in entries[:-1]:  # the newest is somebody's who waits for it
            if excess <= 0:
                break
            _delete(entry)
            excess -= size

    def _entries(self):
        """(time of last use, path) of all there is, the oldest first. Others come and go meanwhile."""
        entries = []
        for entry in self.root.iterdir():
            with contextlib.suppress(FileNotFoundError):
                entries.append((entry.stat().st_mtime, entry))
        return sorted(entries)

    def preview(self, token, strength):
        """Paths of the reduced pictures before and after, at a strength from 0 to 100 percent."""
        import numpy as np
        from PIL import Image
        folder = self.folder(token)
        paths = folder / 'before.webp', folder / f'after-{strength}.webp'
        with np.load(folder / 'preview.npz') as pictures:
            low, enhanced = pictures['low'], pictures['enhanced']
            icc = pictures['icc'].tobytes() or None
        for path, share in zip(paths, (0, strength / 100)):
            if not path.exists():
                Image.fromarray(_blend(low, enhanced, share)).save(path, quality=88, method=2, icc_profile=icc)
        return tuple(map(str, paths))

    def encode(self, token, strength):
        """Name and content of the file to download: full size, depth and metadata of the upload.

        Raises:
            FileNotFoundError: If the photo is not kept any more.
            ImageError: If its kind of file cannot hold it.
        """
        import numpy as np

        from lowlight_cyclegan.photos.formats import default_suffix
        from lowlight_cyclegan.photos.read import decode_image
        from lowlight_cyclegan.photos.write import encode_image
        folder = self.folder(token)
        original = next((folder / 'original').iterdir())
        photo = decode_image(original.read_bytes(), original.name, self.max_pixels)
        enhanced = np.load(folder / 'enhanced.npy', mmap_mode='r')
        name = f'{original.stem}_enhanced{default_suffix(original)}'
        return name, encode_image(photo.with_pixels(_blend(photo.pixels, enhanced, strength / 100)), name)


def _return_memory():
    """Give freed memory back to the system: glibc keeps some for every thread that worked, which adds up."""
    with contextlib.suppress(AttributeError, OSError):  # other C libraries
        ctypes.CDLL(None).malloc_trim(0)


def _size(entry):
    size = 0
    for path in [entry, *entry.rglob('*')]:
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _delete(entry):
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _reduce(pixels):
    """uint8 or uint16 -> uint8 with no side above ``PREVIEW``."""
    import cv2
    import numpy as np
    factor = PREVIEW / max(pixels.shape[:2])
    if factor < 1:
        size = [max(1, round(side * factor)) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)


def _blend(low, enhanced, strength):
    """Blend two pictures of one kind, a few rows at a time; alpha stays."""
    import numpy as np
    import torch

    from lowlight_cyclegan.enhance.enhancer import blend
    if strength in (0, 1):
        return np.array(enhanced if strength else low)
    result, white = np.array(low), np.iinfo(low.dtype).max
    colours = slice(-1) if low.ndim == 3 and low.shape[2] in (2, 4) else slice(None)
    for top in range(0, len(low), ROWS):
        rows = [torch.from_numpy(picture[top:top + ROWS].astype(np.float32) / white) for picture in (low, enhanced)]
        blended = (blend(*rows, strength).numpy() * white).round()
        result[top:top + ROWS, ..., colours] = blended[..., colours]
    return result


class Gate:
    """Turns down what the page never asks for before it costs anything: other routes, large bodies, remote files.

    Args:
        app (ASGI application): The page.
        limits (Limits): Of uploads.
    """
    # Of gradio's routes those that the page uses. Others call functions past the queue, or fetch from elsewhere.
    ROUTES = re.compile(
        r'/(?:|config|theme\.css|robots\.txt|favicon\.ico|manifest\.json|(?:assets|static|svelte|download)/.*|'
        r'gradio_api/(?:info|app_id|startup-events|upload|upload_progress|cancel|reset|file=/.*|'
        r'(?:queue|call|heartbeat)/.*))')

    def __init__(self, app, limits):
        self.app = app
        self.max_upload = int(limits.max_mb * 2**20)
        self.too_large = f'A photo may have up to {limits.max_mb:g} MB.'
        # The page counts photos itself and says so kindly: this is for those who skip it.
        self.uploads = TokenBucket(2 * limits.rate)

    async def __call__(self, scope, receive, send):
        from starlette.responses import PlainTextResponse
        refusal = None
        if scope['type'] == 'http':
            refusal = self._refuse(scope)
            if refusal is None and scope['method'] == 'POST' and not scope['path'].endswith('/upload'):
                body = await _read(receive)
                if _names_remote_file(body):
                    refusal = 400, 'Files are taken as uploads only.'
                receive = _replay(body, receive)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)

    def _refuse(self, scope):
        if not self.ROUTES.fullmatch(scope['path']):
            return 404, 'Nothing here.'
        if scope['method'] != 'POST':
            return None
        length = dict(scope['headers']).get(b'content-length', b'')
        if not length.isdigit():
            return 411, 'The request must say its length.'
        if scope['path'].endswith('/upload'):
            if int(length) > self.max_upload + FORM_BYTES:
                return 413, self.too_large
            if not self.uploads.take(scope['client'][0] if scope['client'] else None):
                return 429, TOO_MANY
        elif int(length) > LARGEST_CALL:
            return 413, 'The request is too large.'
        return None


async def _read(receive):
    body = b''
    while True:
        message = await receive()
        body += message.get('body', b'')
        if not message.get('more_body'):
            return body


def _replay(body, receive):
    messages = [{'type': 'http.request', 'body': body, 'more_body': False}]

    async def replay():
        return messages.pop() if messages else await receive()

    return replay


def _names_remote_file(body):
    """True if gradio would fetch a file for this call."""
    try:
        values = [json.loads(body or b'null')]
    except (ValueError, RecursionError):
        return False
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if re.match('https?:', str(value.get('path', '')).strip(), re.IGNORECASE):
                return True
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
    return False


def build_app(models, folder, limits=Limits()):
    """The page as an ASGI application.

    Args:
        models (dict[str, Enhancer]): By the name that the page shows.
        folder (str | Path): Temporary folder. Gradio keeps its files there too, as one process can have one page.
        limits (Limits): What the page accepts.
    """
    # Gradio reads these when it is imported or a page is built.
    os.environ.update(GRADIO_ANALYTICS_ENABLED='False', HF_HUB_DISABLE_TELEMETRY='1', GRADIO_TEMP_DIR=str(folder))
    import anyio
    import gradio
    from fastapi import FastAPI, Request
    from fastapi.responses import PlainTextResponse, Response

    photos = Photos(folder, int(limits.max_megapixels * 1e6))
    downloads, one = TokenBucket(2 * limits.rate), anyio.CapacityLimiter(1)

    @contextlib.asynccontextmanager
    async def sweeping(app):
        async def sweep():
            while True:
                await asyncio.sleep(min(60, limits.keep * 15))
                try:
                    await anyio.to_thread.run_sync(photos.sweep, limits.keep * 60)
                except OSError as error:  # of this round; the next one may do better
                    logging.getLogger('lowlight_cyclegan').warning('photos could not be removed: %s', error)

        task = asyncio.create_task(sweep())
        yield
        task.cancel()

    app = FastAPI(lifespan=sweeping, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate, limits=limits)

    @app.get('/download/{token}/{strength}')
    async def download(token: str, strength: int, request: Request):
        if not downloads.take(request.client.host):
            return PlainTextResponse(TOO_MANY, 429)
        try:
            name, data = await anyio.to_thread.run_sync(photos.encode, token, min(max(strength, 0), 100), limiter=one)
        except FileNotFoundError:
            return PlainTextResponse(GONE, 404)
        except ValueError as error:
            return PlainTextResponse(str(error), 422)
        finally:
            _return_memory()
        headers = {'Content-Disposition': f"attachment; filename*=UTF-8''{quote(name)}"}
        return Response(data, media_type='application/octet-stream', headers=headers)

    return gradio.mount_gradio_app(
        app, _build_page(models, photos, limits), '/', max_file_size=int(limits.max_mb * 2**20), show_error=False,
        footer_links=[], run_history=False, ssr_mode=False, pwa=False, enable_monitoring=False, css=CSS,
        theme=gradio.themes.Default(primary_hue='amber', font=FONTS, font_mono=['ui-monospace', 'monospace']))


def _build_page(models, photos, limits):
    import gradio
    bucket = TokenBucket(limits.rate)
    # Libraries keep scratch memory for every thread that computes: let it be one.
    network = ThreadPoolExecutor(1)
    names = list(models)

    def refuse(text):
        return [_say(text, bad=True), *[gradio.skip()] * 4]

    def work(path, model, strength, token, request):
        """Outputs of the page for a photo; where it cannot be had, only the line that says why."""
        if not bucket.take(request.client.host):
            return refuse(TOO_MANY)
        name, start = Path(path).name, time.monotonic()
        try:
            new, (width, height) = network.submit(photos.add, path, models[model]).result()
        except FileNotFoundError:
            return refuse(GONE)
        except ValueError as error:
            # flags are for who serves the page, not for who uses it
            return refuse(re.sub(r' \(--[^)]*\)', '', first_line(error)))
        except (MemoryError, RuntimeError, OSError) as error:  # torch has no narrower class for memory on the CPU
            logging.getLogger('lowlight_cyclegan').exception('%s: %s', name, error)
            return refuse(f'{name}: this machine could not work on it, perhaps for want of memory: try a smaller one.')
        finally:
            _return_memory()
        photos.remove(token)
        said = _say(f'{name} · {width} × {height} · {time.monotonic() - start:.1f} s')
        return [said, gradio.Column(visible=True), photos.preview(new, strength), _link(new, strength), new]

    def drop(path, model, strength, token, request: gradio.Request):
        # The place of the upload is free for the next photo at once.
        return [None, *(work(path, model, strength, token, request) if path else [gradio.skip()] * 5)]

    def again(model, strength, token, request: gradio.Request):
        try:
            path = next((photos.folder(token) / 'original').iterdir())
        except FileNotFoundError:
            return refuse(GONE)
        return work(path, model, strength, token, request)

    def change(strength, token):
        try:
            return [gradio.skip(), photos.preview(token, strength), _link(token, strength)]
        except FileNotFoundError:
            return [_say(GONE, bad=True), gradio.skip(), '']

    with gradio.Blocks(title='Light for dark photos', analytics_enabled=False,
                       delete_cache=(60, int(limits.keep * 60))) as page:
        gradio.HTML(HEADING, padding=False)
        upload = gradio.File(label='Photo', show_label=False, height=136, elem_id='upload')
        rules = (f'Up to {limits.max_mb:g} MB and {limits.max_megapixels:g} megapixels. '
                 f'Removed {limits.keep:g} minutes after its last use.')
        status = gradio.HTML(_say(rules), elem_id='status', padding=False)
        token = gradio.State()
        with gradio.Column(visible=False, elem_id='result') as result:
            slider = gradio.ImageSlider(label='Before and after', show_label=False, interactive=False,
                                        buttons=['fullscreen'], max_height=680, elem_id='compare')
            with gradio.Row():
                strength = gradio.Slider(0, 100, 100, step=5, precision=0, label='Strength, %', min_width=280,
                                         elem_id='strength')
                model = gradio.Radio(names, value=names[0], label='Model', visible=len(names) > 1, min_width=280,
                                     elem_id='model')
            link = gradio.HTML(elem_id='download', padding=False)

        shown = [status, result, slider, link, token]
        queue = {'concurrency_id': 'network', 'concurrency_limit': 1, 'show_progress_on': upload}
        upload.upload(drop, [upload, model, strength, token], [upload, *shown], api_name='enhance', **queue)
        model.input(again, [model, strength, token], shown, api_name=False, **queue)
        strength.change(change, [strength, token], [status, slider, link], api_name='strength', concurrency_id='blend',
                        concurrency_limit=1, show_progress='hidden', trigger_mode='always_last')
    return page.queue(max_size=limits.queue)


def _say(text, bad=False):
    return f'<p class="{"bad" if bad else "said"}" role="{"alert" if bad else "status"}">{html.escape(text)}</p>'


def _link(token, strength):
    return f'<a class="primary" href="download/{token}/{strength}">Download full size</a>'


FONTS = ['system-ui', 'sans-serif']
HEADING = ('<h1>Light for dark photos</h1><p>Drop one below. It is worked on by the machine that serves this page and '
           'goes nowhere else.</p>')
CSS = """
.gradio-container main { max-width: 56rem; margin: 0 auto !important; width: 100%; }
.gradio-container .app { padding: 1rem !important; }
.gradio-container .html-container { padding: 0; }
.gradio-container h1 { margin: 0 0 0.25rem; font-size: 1.6rem; }
#upload { min-height: 8.5rem; border: 2px dashed var(--primary-400); border-radius: 0.75rem; }
#upload:hover, #upload:focus-within { background: var(--primary-50); }
.dark #upload:hover, .dark #upload:focus-within { background: var(--neutral-800); }
/* The words of the file field are gradio's: not a file is wanted here but a photo, and a finger does not click. */
#upload [data-testid=upload-text] { font-size: 0; gap: 0; }
#upload [data-testid=upload-text] .or { display: none; }
#upload [data-testid=upload-text]::after {
  content: 'Drop a photo, or tap to choose one'; font-size: var(--text-lg); color: var(--body-text-color);
}
#status p { margin: 0; color: var(--neutral-500); overflow-wrap: anywhere; }
#status .bad { color: var(--error-text-color); font-weight: 500; }
.dark #status p:not(.bad) { color: var(--neutral-400); }
#compare, #compare .image-container { border: 0; background: none; }
#download a {
  display: block; padding: 0.8rem 1rem; border-radius: 0.75rem; text-align: center; text-decoration: none;
  font-size: var(--text-lg); font-weight: 600; background: var(--primary-400); color: #1c1917;
}
#download a:hover, #download a:focus-visible { background: var(--primary-300); }
"""
