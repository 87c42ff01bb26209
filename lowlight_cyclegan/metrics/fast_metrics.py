"""PSNR, SSIM and NIQE in PyTorch: BasicSR's values, several times faster, for batches and on any device.

The functions ``psnr``, ``ssim`` and ``niqe`` take batches of tensors; ``calculate_*_fast`` are metrics of one image,
called as BasicSR's are. What makes them fast: separable windows, single precision where it does no harm, and, for
NIQE, all blocks at once with its parameter search replaced by a table.
"""
import cv2
import functools
import math
import numpy as np
import os.path as osp
import torch
from basicsr.metrics import niqe as basicsr_niqe
from basicsr.metrics.metric_util import reorder_image
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import METRIC_REGISTRY
from torch.nn import functional as F

from lowlight_cyclegan.metrics.metric_util import default_device
from lowlight_cyclegan.registry import register_once

__all__ = ['calculate_niqe_fast', 'calculate_psnr_fast', 'calculate_ssim_fast', 'niqe', 'psnr', 'ssim']

BLOCK_SIZE = 96  # of NIQE, at full scale
ORIENTATIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # NIQE's neighbours

# ----------------------------------------------------------------------- batches


def psnr(img, img2, crop_border=0, test_y_channel=False):
    """Peak signal-to-noise ratio of each image, 10 log10(255^2 / MSE); inf for equal images.

    Args:
        img (Tensor): (n, c, h, w) in [0, 255], uint8 or floating point; RGB or gray.
        img2 (Tensor): The same.
        crop_border (int): Pixels of each edge that do not count. Default: 0.
        test_y_channel (bool): On Y of (MATLAB) YCbCr. Default: False.

    Returns:
        Tensor: (n, ) in fp64.
    """
    img, img2 = (_prepare(i, crop_border, test_y_channel) for i in _same_shape(img, img2))
    # A few rows at a time stay in a CPU's cache, and fresh memory for whole pictures costs more than the arithmetic.
    strips = zip(img.split(64, dim=2), img2.split(64, dim=2))
    total = sum((_float(x) - _float(y)).square_().sum((1, 2, 3)).double() for x, y in strips)
    return 10 * torch.log10(255**2 * img[0].numel() / total)


def ssim(img, img2, crop_border=0, test_y_channel=False):
    """Structural similarity of each image: Gaussian window 11x11 with sigma 1.5, mean over valid pixels and channels.

    Args and returns as of :func:`psnr`.
    """
    img, img2 = (_prepare(i, crop_border, test_y_channel) for i in _same_shape(img, img2))
    planes = zip(*(i.flatten(0, 1).split(1 if i.device.type == 'cpu' else len(i)) for i in (img, img2)))
    similarity = torch.cat([_ssim(x, y) for x, y in planes])
    return similarity.view(img.shape[:2]).mean(1)


def niqe(img, crop_border=0, convert_to='y'):
    """Natural image quality evaluator of each image; lower is better; nan where it is undefined.

    It fits a Gaussian to features of 96x96 blocks and needs at least two that are not flat.

    Reference: Mittal et al., "Making a 'Completely Blind' Image Quality Analyzer", IEEE SPL 2013, with BasicSR's
    parameters and details.

    Args:
        img (Tensor): (n, 3, h, w) RGB or (n, 1, h, w) gray, in [0, 255], uint8 or floating point.
        crop_border (int): Pixels of each edge that do not count. Default: 0.
        convert_to (str): 'y' (of MATLAB YCbCr) or 'gray'. Default: 'y'.

    Returns:
        Tensor: (n, ) in fp64.
    """
    if convert_to not in ('y', 'gray'):
        raise ValueError(f"convert_to is 'y' or 'gray', got {convert_to!r}.")
    img = _crop(img, crop_border)
    img = (_y_channel(img) if convert_to == 'y' else _gray(img)).round()
    rows, columns = (size // BLOCK_SIZE for size in img.shape[2:])
    if not rows * columns:
        return torch.full((len(img), ), math.nan, dtype=torch.float64, device=img.device)
    img = img[..., :rows * BLOCK_SIZE, :columns * BLOCK_SIZE].float()
    # BasicSR's own: in flat regions, NIQE's features are those of its rounding errors.
    half = (imresize(img[:, 0].cpu() / 255, 0.5) * 255).unsqueeze(1).to(img.device)
    features = torch.cat([_niqe_features(i, rows, columns) for i in (img, half)], dim=2)  # (n, blocks, 36)
    return _niqe_distance(features)


# ------------------------------------------------------------- metrics of one image


@register_once(METRIC_REGISTRY)
def calculate_psnr_fast(img, img2, crop_border, input_order='HWC', test_y_channel=False, **kwargs):
    """Calculate PSNR as BasicSR's calculate_psnr does; see :func:`psnr`.

    Args:
        img (ndarray): Image in [0, 255], BGR.
        img2 (ndarray): Image in [0, 255], BGR, of the same shape.
        crop_border (int): Cropped pixels in each edge of an image.
        input_order (str): 'HWC' or 'CHW'. Default: 'HWC'.
        test_y_channel (bool): Test on Y of (MATLAB) YCbCr. Default: False.

    Returns:
        float: PSNR.
    """
    img, img2 = (_batch(i, input_order, test_y_channel) for i in (img, img2))
    return psnr(img, img2, crop_border, test_y_channel).item()


@register_once(METRIC_REGISTRY)
def calculate_ssim_fast(img, img2, crop_border, input_order='HWC', test_y_channel=False, **kwargs):
    """Calculate SSIM as BasicSR's calculate_ssim does; see :func:`ssim`. Arguments as of calculate_psnr_fast.

    Returns:
        float: SSIM.
    """
    img, img2 = (_batch(i, input_order, test_y_channel) for i in (img, img2))
    return ssim(img, img2, crop_border, test_y_channel).item()


@register_once(METRIC_REGISTRY)
def calculate_niqe_fast(img, crop_border, input_order='HWC', convert_to='y', **kwargs):
    """Calculate NIQE as BasicSR's calculate_niqe does, but nan where that raises; see :func:`niqe`.

    Args:
        img (ndarray): Image in [0, 255], BGR.
        crop_border (int): Cropped pixels in each edge of an image.
        input_order (str): 'HW', 'HWC' or 'CHW'. Default: 'HWC'.
        convert_to (str): 'y' (of MATLAB YCbCr) or 'gray'. Default: 'y'.

    Returns:
        float: NIQE, or nan.
    """
    return niqe(_batch(img, 'HWC' if input_order == 'HW' else input_order, True), crop_border, convert_to).item()


def _batch(img, input_order, rgb):
    """Gray or BGR array -> (1, c, h, w) tensor of the same type, on the GPU if there is one; RGB where it matters."""
    img = reorder_image(img, input_order=input_order)
    if rgb:
        img = img[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(img)).to(default_device()).permute(2, 0, 1).unsqueeze(0)


# ------------------------------------------------------------------------- parts


def _same_shape(img, img2):
    assert img.shape == img2.shape, f'Image shapes are different: {tuple(img.shape)}, {tuple(img2.shape)}.'
    return img, img2


def _crop(img, border):
    return img[..., border:-border, border:-border] if border else img


def _prepare(img, crop_border, test_y_channel):
    img = _crop(img, crop_border)
    return _y_channel(img) if test_y_channel else img


def _float(img):
    return img if img.dtype == torch.float64 else img.float()


def _ssim(x, y):
    """SSIM of planes (n, h, w) -> (n, ) in fp64. On a CPU, one plane at a time stays in its cache."""
    c1, c2 = (0.01 * 255)**2, (0.03 * 255)**2
    # Variances do not depend on where zero is; in the middle of the range they lose the fewest digits.
    x, y = _float(x) - 127.5, _float(y) - 127.5
    taps = _gaussian(11, 1.5)
    mu_x, mu_y = _filter(x, taps), _filter(y, taps)
    covariance = _filter(x * y, taps).addcmul_(mu_x, mu_y, value=-1)
    variances = _filter((x * x).addcmul_(y, y), taps).addcmul_(mu_x, mu_x, value=-1).addcmul_(mu_y, mu_y, value=-1)
    mu_x, mu_y = mu_x.add_(127.5), mu_y.add_(127.5)
    similarity = (mu_x * mu_y).mul_(2).add_(c1).mul_(covariance.mul_(2).add_(c2))
    similarity /= mu_x.square_().addcmul_(mu_y, mu_y).add_(c1).mul_(variances.add_(c2))
    return similarity.flatten(1).mean(1).double()


def _y_channel(img):
    """Y of (MATLAB) YCbCr in [16, 235], by BasicSR's steps: it is rounded later. One channel is taken for Y."""
    img = img.float() / 255
    if img.shape[1] == 1:
        return img * 255
    red, green, blue = img.double().split(1, dim=1)
    return ((24.966 * blue + 128.553 * green + 65.481 * red + 16) / 255).float() * 255


def _gray(img):
    """Gray by OpenCV as in BasicSR: a pixel in a thousand lies between two levels and goes where OpenCV rounds it."""
    if img.shape[1] == 1:
        return img.float()
    images = (img.float() / 255).flip(1).permute(0, 2, 3, 1).cpu().contiguous().numpy()
    gray = np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images])
    return torch.from_numpy(gray * 255).unsqueeze(1).to(img.device)


@functools.cache
def _gaussian(size, sigma):
    window = np.exp(-(np.arange(size) - size // 2)**2 / (2 * sigma**2))
    return (window / window.sum()).tolist()


def _filter(x, taps):
    """Separable symmetric filter: (..., h, w) and k weights -> (..., h - k + 1, w - k + 1)."""
    for dim in (-2, -1):
        size = x.shape[dim] - len(taps) + 1
        out = x.narrow(dim, 0, size) * taps[0]
        for i, tap in enumerate(taps[1:], 1):
            out.add_(x.narrow(dim, i, size), alpha=tap)
        x = out
    return x


@functools.cache
def _niqe_parameters():
    """Mean (36, ) and covariance (36, 36) of pristine images, and the 7 taps of the window, of BasicSR."""
    file = np.load(osp.join(osp.dirname(basicsr_niqe.__file__), 'niqe_pris_params.npz'))
    return (torch.from_numpy(file['mu_pris_param']).double().flatten(),
            torch.from_numpy(file['cov_pris_param']).double(), file['gaussian_window'].sum(0).tolist())


@functools.cache
def _aggd_table():
    """For every shape alpha = 0.2, 0.201 ... 10: where the search for it changes over, and its gamma ratios."""
    alpha = torch.arange(9801, dtype=torch.float64) / 1000 + 0.2
    log1, log2, log3 = (torch.lgamma(k / alpha) for k in (1, 2, 3))
    ratio = (2 * log2 - log1 - log3).exp()  # rises with alpha, so that the nearest one is found by bisection
    return alpha, (ratio[1:] + ratio[:-1]) / 2, ((log1 - log3) / 2).exp(), (log2 - log1).exp()


def _aggd(samples):
    """Asymmetric generalized Gaussian fit (eq. 7): (..., m) -> alpha, left and right beta, eq. 8's mean, each (...)."""
    sign = samples.sign()
    more, either = sign.sum(-1).double(), sign.abs_().sum(-1).double()  # positive ones - or + negative ones
    left_sum, right_sum = (samples.clamp(*side).square_().sum(-1).double() for side in ((None, 0), (0, None)))
    left, right = (left_sum / ((either - more) / 2)).sqrt(), (right_sum / ((either + more) / 2)).sqrt()
    gamma = left / right
    r = samples.abs().mean(-1).double()**2 / (left_sum + right_sum) * samples.shape[-1]
    r = r * (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1)**2
    alphas, borders, scale, spread = (table.to(samples.device) for table in _aggd_table())
    index = torch.searchsorted(borders, r.nan_to_num(0, 0))
    left, right = left * scale[index], right * scale[index]
    return alphas[index], left, right, (right - left) * spread[index]


def _niqe_features(img, rows, columns):
    """(n, 1, h, w), h and w multiples of the numbers of blocks -> features (n, rows * columns, 18) in fp64."""
    taps = _niqe_parameters()[2]
    padded = F.pad(img, (3, 3, 3, 3), mode='replicate')
    # Rounded where BasicSR rounds: in smooth regions the difference of the squares is hardly more than that.
    mean, square = (_filter(i.double(), taps).float() for i in (padded, padded.square()))
    normalized = (img - mean) / ((square - mean.square()).abs().sqrt() + 1)  # eq. 1
    h, w = (size // count for size, count in zip(img.shape[2:], (rows, columns)))
    blocks = normalized.view(-1, rows, h, columns, w).transpose(2, 3).flatten(1, 2)  # (n, rows * columns, h, w)
    alpha, left, right, _ = _aggd(blocks.flatten(2))  # each (n, rows * columns)
    features = [alpha, (left + right) / 2]
    for shift in ORIENTATIONS:
        alpha, left, right, mean = _aggd((blocks * blocks.roll(shift, (2, 3))).flatten(2))
        features += [alpha, mean, left, right]
    return torch.stack(features, dim=-1)


def _niqe_distance(features):
    """Distance to pristine images (eq. 10): (n, blocks, 36) -> (n, ), nan for fewer than two complete blocks."""
    mu_pristine, cov_pristine = (p.to(features.device) for p in _niqe_parameters()[:2])
    difference = mu_pristine - features.nanmean(1)
    complete = features.isfinite().all(2, keepdim=True)
    count = complete.sum(1, keepdim=True)
    features = features.where(complete, torch.zeros((), dtype=features.dtype, device=features.device))
    centred = (features - features.sum(1, keepdim=True) / count) * complete
    cov = centred.transpose(1, 2) @ centred / (count - 1)
    usable = (count.flatten() > 1) & difference.isfinite().all(1)
    cov = torch.where(usable.view(-1, 1, 1), cov, cov_pristine)
    inverse = torch.linalg.pinv((cov_pristine + cov) / 2, rtol=1e-15)
    distance = (difference.unsqueeze(1) @ inverse @ difference.unsqueeze(2)).flatten().sqrt()
    return distance.where(usable, math.nan)
