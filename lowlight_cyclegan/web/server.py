"""Serves the web page: a photo in, before and after side by side, the full-size result out.

No request leaves the machine, and nothing of a photo stays on it for long.
"""
import asyncio
import contextlib
import errno
import functools
import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .limits import Gate, Limits
from .store import GONE, Photos

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lowlight_cyclegan.enhance.enhancer import Enhancer

__all__ = ['build_app', 'serve']

FOLDER = 'lowlight_cyclegan_web_'  # of a running page, followed by its process and something random


def serve(models: Sequence[str], host: str, port: int, device: str | None, limits: Limits, root_path: str = '') -> None:
    """Serve the page until it is interrupted. It is there before the weights are loaded: a first photo waits for them.

    Args:
        models: Weights, see :meth:`Enhancer.from_pretrained`; with several, the page lets one choose.
        host: Address to listen on.
        port: 0 takes a free one.
        device: None takes cuda where there is one, else cpu.
        limits: What the page accepts.
        root_path: Prefix under which a reverse proxy serves the page, for example /light.

    Raises:
        ValueError: If gradio is missing, the address cannot be had or the weights cannot be loaded.
    """
    if find_spec('gradio') is None:
        raise ValueError("The page needs gradio: pip install 'lowlight_cyclegan[web]'")
    import uvicorn
    with contextlib.suppress(KeyboardInterrupt), _listen(host, port) as listener:
        _remove_leftovers()
        # uvicorn hands the signal on after its own shutdown: as an exception, it lets the folder be removed first.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with tempfile.TemporaryDirectory(prefix=f'{FOLDER}{os.getpid()}_', ignore_cleanup_errors=True) as folder:
            loaders, worker = _loaders(models, device), ThreadPoolExecutor(1)
            try:
                app = build_app(loaders, worker, folder, limits, root_path)
                host, port = listener.getsockname()[:2]
                address = f'[{host}]' if ':' in host else host
                print(f'Open http://{address}:{port} in a browser. Ctrl+C stops.', flush=True)
                if not ipaddress.ip_address(host).is_loopback:
                    print('Every machine that reaches this address can use the page.', flush=True)
                # Open pages hold connections for good: they get no say in when the server ends.
                server = uvicorn.Server(uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=1))

                def load() -> None:
                    try:
                        for loader in loaders.values():
                            loader()
                    except BaseException:
                        server.should_exit = True
                        raise

                loading = worker.submit(load)
                server.run(sockets=[listener])
                if loading.done():
                    loading.result()
            finally:  # Python forgets a thread whose start was interrupted, and would wait for it for ever
                worker.shutdown(cancel_futures=True)


def _listen(host: str, port: int) -> socket.socket:
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
        advice = '; port 0 finds a free one' if error.errno == errno.EADDRINUSE else ''
        raise ValueError(f'host {host}, port {port}: {error.strerror}{advice}') from error


def _loaders(models: Sequence[str], device: str | None) -> 'dict[str, Callable[[], Enhancer]]':
    """By the names that the page shows, functions that give an enhancer, which the first call loads."""

    def load(name: str) -> 'Enhancer':
        from lowlight_cyclegan.enhance.enhancer import Enhancer
        return Enhancer.from_pretrained(name, device=device)

    loaders: dict[str, Callable[[], Enhancer]] = {}
    for name in models:
        label = Path(name).name  # folders of this machine are nobody's business, unless they tell two files apart
        loaders[name if label in loaders else label] = functools.cache(functools.partial(load, name))
    return loaders


def _remove_leftovers() -> None:
    """Folders of pages that were killed: their photos are nobody's any more."""
    for folder in Path(tempfile.gettempdir()).glob(f'{FOLDER}*_*'):
        with contextlib.suppress(ValueError, PermissionError):
            try:
                os.kill(int(folder.name[len(FOLDER):].split('_')[0]), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)


def build_app(models: 'Mapping[str, Callable[[], Enhancer]]', worker: Executor, folder: str | Path, limits: Limits,
              root_path: str = '') -> 'FastAPI':
    """The page as an ASGI application.

    Args:
        models: By the name that the page shows, functions that give an enhancer; the worker calls them.
        worker: One thread, in which all networks run: libraries keep scratch memory for every thread that computes.
        folder: Temporary folder. Gradio keeps its files there too, as one process can have one page.
        limits: What the page accepts.
        root_path: Prefix under which a reverse proxy serves the page, whether or not it strips that from requests.
    """
    # Gradio reads these when it is imported or a page is built.
    os.environ.update(GRADIO_ANALYTICS_ENABLED='False', HF_HUB_DISABLE_TELEMETRY='1', GRADIO_TEMP_DIR=str(folder))
    import anyio
    import gradio
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse, Response

    from .page import CSS, FONTS, build_page
    photos = Photos(folder, int(limits.max_megapixels * 1e6))
    one_at_a_time = anyio.CapacityLimiter(1)

    @contextlib.asynccontextmanager
    async def sweeping(app: FastAPI) -> AsyncIterator[None]:
        async def sweep() -> None:
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
    app.add_middleware(Gate, limits=limits, root_path=root_path)

    @app.get('/download/{token}/{strength}')
    async def download(token: str, strength: int) -> Response:
        try:
            name, data = await anyio.to_thread.run_sync(photos.encode, token, min(max(strength, 0), 100),
                                                        limiter=one_at_a_time)
        except FileNotFoundError:
            return PlainTextResponse(GONE, 404)
        except ValueError as error:
            return PlainTextResponse(str(error), 422)
        headers = {'Content-Disposition': f"attachment; filename*=UTF-8''{quote(name)}"}
        return Response(data, media_type='application/octet-stream', headers=headers)

    return gradio.mount_gradio_app(
        app, build_page(models, worker, photos, limits, root_path), '/', root_path=root_path or None,
        max_file_size=limits.upload_bytes, show_error=False, footer_links=[], run_history=False, ssr_mode=False,
        pwa=False, enable_monitoring=False, css=CSS,
        theme=gradio.themes.Default(primary_hue='amber', font=FONTS, font_mono=['ui-monospace', 'monospace']))
