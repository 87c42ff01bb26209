"""Measuring one image, a set of them, and remembering what was measured."""
import cv2
import hashlib
import inspect
import json
import math
import numpy as np
import os
import platform
import torch
from basicsr.metrics.metric_util import to_y_channel
from basicsr.utils.registry import METRIC_REGISTRY
from dataclasses import asdict, dataclass
from os import path as osp

from lowlight_cyclegan import __version__
from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS, decode_image
from lowlight_cyclegan.messages import fail
from lowlight_cyclegan.models.checkpoint import file_sha256
from lowlight_cyclegan.prepare.layouts import write_atomically
from .methods import enhance

__all__ = ['HEADINGS', 'METRICS', 'Cache', 'Pair', 'Protocol', 'device_name', 'find_pairs', 'gt_mean', 'measure',
           'measure_pair', 'round_output', 'ssim_uniform']

# how they are written: heading, decimals; and which way is better
HEADINGS = {'psnr': ('PSNR', 3), 'psnr_gt_mean': ('GT-mean PSNR', 3), 'ssim': ('SSIM', 4), 'lpips': ('LPIPS', 4),
            'niqe': ('NIQE', 3)}
METRICS = {'psnr': 'higher', 'psnr_gt_mean': 'higher', 'ssim': 'higher', 'lpips': 'lower', 'niqe': 'lower'}
FUNCTIONS = {
    'basicsr': dict(psnr='calculate_psnr', ssim='calculate_ssim', niqe='calculate_niqe_tolerant'),
    'fast': dict(psnr='calculate_psnr_fast', ssim='calculate_ssim_fast', niqe='calculate_niqe_fast'),
}


@dataclass(frozen=True)
class Protocol:
    """What a figure depends on besides method and image.

    Attributes:
        color (str): 'rgb', or 'y' of MATLAB YCbCr, for PSNR and SSIM. LPIPS is always RGB, NIQE always Y.
        border (int): Pixels left out at each edge by all metrics.
        rounding (str): Of the output to 8 bits: 'nearest' (as saved by BasicSR), 'floor' (as saved by many others) or
            'none'.
        resize (tuple[int, int] | None): (width, height) of input and reference; None leaves them alone.
        metrics (str): 'basicsr' or 'fast'.
        ssim (str): Window: 'gaussian' (11x11, sigma 1.5: BasicSR's) or 'uniform' (7x7: scikit-image's default).
        lpips (str): Trunk of LPIPS: 'alex', 'vgg' or 'squeeze'; 'none' leaves the metric out.
        lpips_trunk (str | None): File of its weights.
    """
    color: str = 'rgb'
    border: int = 0
    rounding: str = 'nearest'
    resize: tuple = None
    metrics: str = 'basicsr'
    ssim: str = 'gaussian'
    lpips: str = 'alex'
    lpips_trunk: str = None

    def describe(self):
        """The line that is printed with every table."""
        window = 'Gaussian 11x11 (sigma 1.5)' if self.ssim == 'gaussian' else 'uniform 7x7'
        resize = 'off' if self.resize is None else '{}x{}'.format(*self.resize)
        return (f'PSNR and SSIM on {self.color.upper()}, border {self.border}, rounding to 8 bits: {self.rounding}, '
                f'resize: {resize}; SSIM window: {window}; LPIPS: {self.lpips}, RGB; NIQE: Y; '
                "GT-mean PSNR: output scaled to the reference's gray mean, clipped, not rounded; "
                f'metrics: {self.metrics}')

    def fingerprint(self):
        """SHA-256 of the settings, of the trunk's file, and of the code that measures."""
        settings = asdict(self)
        if self.lpips_trunk:
            settings['lpips_trunk'] = file_sha256(self.lpips_trunk)
        digest = hashlib.sha256(json.dumps([settings, __version__]).encode())
        for name in (*FUNCTIONS[self.metrics].values(), 'calculate_lpips'):
            with open(inspect.getsourcefile(METRIC_REGISTRY.get(name)), 'rb') as f:
                digest.update(f.read())
        for function in (enhance, round_output, measure_pair, gt_mean, ssim_uniform):
            digest.update(inspect.getsource(function).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Pair:
    """A test image: its name, and the files of the low image and of its reference."""
    name: str
    low: str
    high: str


def find_pairs(text):
    """``NAME=LOW:HIGH`` -> (name, [Pair, ...]), the folders' images paired by name without extension.

    Raises:
        SystemExit: One line: another form, no folder, no images, or names that do not pair.
    """
    name, _, folders = text.partition('=')
    folders = [osp.expanduser(folder) for folder in folders.split(':')]
    if not name or len(folders) != 2 or not all(folders):
        fail(f'--data {text}: write it as NAME=LOW_FOLDER:HIGH_FOLDER')
    if osp.basename(name) != name:
        fail(f'--data {text}: the name goes into file names, {name!r} does not')
    files = []
    for folder in folders:
        if not osp.isdir(folder):
            fail(f'--data {text}: no such folder: {folder}')
        names = [n for n in os.listdir(folder) if n.lower().endswith(IMAGE_EXTENSIONS) and not n.startswith('.')]
        files.append({osp.splitext(n)[0]: osp.join(folder, n) for n in names})
        if not names:
            fail(f'--data {text}: no images in {folder}')
        if len(files[-1]) < len(names):
            fail(f'--data {text}: {folder} holds images whose names differ by the extension alone')
    single = sorted(files[0].keys() ^ files[1].keys())
    if single:
        fail(f'--data {text}: {len(single)} images are in one of the folders alone, such as {single[0]}')
    return name, [Pair(stem, files[0][stem], files[1][stem]) for stem in sorted(files[0], key=_natural)]


def _natural(name):
    return (len(name), name) if name.isdigit() else (1 << 20, name)


def _read(path):
    try:
        with open(path, 'rb') as f:
            content = f.read()
        return decode_image(content), hashlib.sha256(content).hexdigest()
    except (OSError, ValueError) as error:
        raise SystemExit(f'{path}: cannot be read: {error}') from None  # fail() speaks on rank 0 alone


def gt_mean(output, reference):
    """Output scaled to the mean of the reference, both of their gray images, and clipped.

    Args:
        output (ndarray): (h, w, 3) in [0, 255], BGR.
        reference (ndarray): The same shape.

    Returns:
        ndarray: (h, w, 3) float64 in [0, 255].
    """
    means = [cv2.cvtColor(img.astype(np.float32), cv2.COLOR_BGR2GRAY).mean(dtype=np.float64)
             for img in (output, reference)]
    return (output * (means[1] / max(means[0], 1e-6))).clip(0, 255)


def ssim_uniform(img, img2, crop_border=0, test_y_channel=False):
    """SSIM with a uniform 7x7 window and sample covariances, as scikit-image has it, mean over channels.

    Reference: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, eq. 13.

    Args:
        img (ndarray): (h, w, 3) in [0, 255], BGR.
        img2 (ndarray): The same shape.
        crop_border (int): Pixels left out at each edge. Default: 0.
        test_y_channel (bool): On Y of (MATLAB) YCbCr. Default: False.
    """
    x, y = (img[crop_border:img.shape[0] - crop_border, crop_border:img.shape[1] - crop_border] for img in (img, img2))
    if test_y_channel:
        x, y = to_y_channel(x), to_y_channel(y)
    x, y = x.astype(np.float64), y.astype(np.float64)

    def mean(z):
        return cv2.blur(z, (7, 7)).reshape(z.shape)[3:-3, 3:-3]

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y, cov = (49 / 48 * (mean(a * b) - mean_a * mean_b)
                         for a, b, mean_a, mean_b in ((x, x, mean_x, mean_x), (y, y, mean_y, mean_y),
                                                      (x, y, mean_x, mean_y)))
    c1, c2 = (0.01 * 255)**2, (0.03 * 255)**2
    ssim = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(ssim.mean())


def round_output(output, rounding):
    """(h, w, 3) float in [0, 255] -> uint8, or unchanged for 'none'."""
    if rounding == 'none':
        return output
    return (np.floor(output) if rounding == 'floor' else output.round()).astype(np.uint8)


def measure_pair(output, reference, protocol):
    """All metrics of an output against its reference.

    Args:
        output (ndarray): (h, w, 3) in [0, 255], BGR, rounded as the protocol says.
        reference (ndarray): (h, w, 3) uint8, BGR.
        protocol (Protocol): How.

    Returns:
        dict[str, float]: Of each of `METRICS`.
    """
    functions = {key: METRIC_REGISTRY.get(name) for key, name in FUNCTIONS[protocol.metrics].items()}
    if protocol.ssim == 'uniform':
        functions['ssim'] = ssim_uniform
    options = dict(crop_border=protocol.border, test_y_channel=protocol.color == 'y')
    return {
        'psnr': float(functions['psnr'](output, reference, **options)),
        'psnr_gt_mean': float(functions['psnr'](gt_mean(output, reference), reference, **options)),
        'ssim': float(functions['ssim'](output, reference, **options)),
        'lpips': math.nan if protocol.lpips == 'none' else float(METRIC_REGISTRY.get('calculate_lpips')(
            output, reference, crop_border=protocol.border, net=protocol.lpips, trunk=protocol.lpips_trunk)),
        'niqe': float(functions['niqe'](output, crop_border=protocol.border)),
    }


class Cache:
    """Metrics and pictures by content: ``<key>.json`` beside ``<key>.png``, the key being a SHA-256.

    Args:
        folder (str): Where they lie; made when needed.
    """

    def __init__(self, folder):
        self.folder = folder

    def picture(self, key):
        return osp.join(self.folder, f'{key}.png')

    def read(self, key):
        """What was written under the key, or None where that is missing or broken."""
        try:
            with open(osp.join(self.folder, f'{key}.json'), encoding='utf-8') as f:
                return json.load(f)
        except (OSError, ValueError):
            return None

    def write(self, key, value):
        write_atomically(osp.join(self.folder, f'{key}.json'), json.dumps(value).encode())

    def get(self, key):
        """The record of an image, or None where it or its picture is missing or broken."""
        record = self.read(key)
        whole = isinstance(record, dict) and {'ms', 'machine', *METRICS} <= record.keys()
        return record if whole and osp.isfile(self.picture(key)) else None

    def put(self, key, record, img):
        """The picture first: with the record, an entry is complete."""
        write_atomically(self.picture(key), cv2.imencode('.png', img)[1].tobytes())
        self.write(key, record)


def device_name(device):
    """Where milliseconds were measured, for the table's notes."""
    if torch.device(device).type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()} CPU, {torch.get_num_threads()} threads'


def measure(method, pair, protocol, protocol_fingerprint, cache, device):
    """Metrics of a method on a pair, from the cache where they are there.

    Args:
        method (Method): What is measured.
        pair (Pair): On what.
        protocol (Protocol): How.
        protocol_fingerprint (str): Its ``fingerprint()``, taken once.
        cache (Cache): Asked first, and told.
        device (str): Where the method is.

    Returns:
        dict: Metrics, ``ms`` of the method on ``machine``, ``picture`` (its file) and ``cached`` (bool).

    Raises:
        SystemExit: A file cannot be read, or the sizes of a pair differ.
    """
    (low, low_sha), (high, high_sha) = _read(pair.low), _read(pair.high)
    if low.shape != high.shape:
        sizes = ['x'.join(map(str, img.shape[1::-1])) for img in (low, high)]
        raise SystemExit(f'{pair.low}: is {sizes[0]}, its reference {pair.high} is {sizes[1]}')
    if min(high.shape[:2]) <= 2 * protocol.border + 10 and protocol.resize is None:
        raise SystemExit(f'{pair.low}: is too small to be measured with --border {protocol.border}')
    key = hashlib.sha256('/'.join(
        [method.fingerprint, low_sha, high_sha, protocol_fingerprint, torch.device(device).type]).encode()).hexdigest()
    record, cached = cache.get(key), True
    if record is None:
        if protocol.resize is not None:
            low, high = (cv2.resize(img, protocol.resize, interpolation=cv2.INTER_AREA) for img in (low, high))
        output, ms = enhance(method.net, low)
        output = round_output(output, protocol.rounding)
        record, cached = {**measure_pair(output, high, protocol), 'ms': ms, 'machine': device_name(device)}, False
        cache.put(key, record, round_output(output, 'nearest'))
    return {**record, 'picture': cache.picture(key), 'cached': cached}
