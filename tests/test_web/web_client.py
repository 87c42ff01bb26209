"""A page that the tests serve, photos for it, and what a client needs of gradio's protocol."""
import httpx
import io
import json
import numpy as np
import re
import threading
import uvicorn
from concurrent.futures import ThreadPoolExecutor
from PIL import Image, ImageCms

from lowlight_cyclegan.web.limits import Limits
from lowlight_cyclegan.web.server import _listen, build_app

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


def photo_bytes(size=(90, 60), mode='RGB', kind='JPEG', seed=0, alpha=None):
    """A dark photo with EXIF data and a colour profile, as other software writes it."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(20, 70, (6, 9, 3), dtype=np.uint8)).resize(size).convert(mode)
    if alpha is not None:
        image.putalpha(alpha)
    exif = Image.Exif()
    exif[MAKER] = 'Maker'
    file = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes() if mode != 'L' else None
    image.save(file, kind, exif=exif, icc_profile=profile, quality=95)
    return file.getvalue()


class Page:
    """A page that is served by this process, and what a client needs of gradio's protocol."""

    def __init__(self, folder, models, root_path='', **limits):
        self.folder, self.models = folder, models
        listener = _listen('127.0.0.1', 0)
        self.url = f'http://127.0.0.1:{listener.getsockname()[1]}'
        # a model is an enhancer, or what gives one
        loaders = {name: model if callable(model) else lambda model=model: model for name, model in models.items()}
        app = build_app(loaders, ThreadPoolExecutor(1), folder, Limits(**limits), root_path)
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
