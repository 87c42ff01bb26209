"""NIQE that gives nan where it is undefined."""
import functools
import math
import numpy as np
import warnings
from basicsr.metrics.niqe import calculate_niqe
from basicsr.utils import get_root_logger

from lowlight_cyclegan.registry import METRIC_REGISTRY

__all__ = ['calculate_niqe_tolerant']

_BLOCK_SIZE = 96


@functools.cache
def _warn_once():
    get_root_logger().warning(f'NIQE is undefined for flat images and for images below two {_BLOCK_SIZE}x{_BLOCK_SIZE} '
                              'blocks: such an image counts as nan. Further ones are not reported.')


@METRIC_REGISTRY.register()
def calculate_niqe_tolerant(img, crop_border=0, input_order='HWC', convert_to='y', **kwargs):
    """Calculate NIQE as BasicSR does, but give nan where it is undefined; lower is better.

    NIQE fits a Gaussian to features of 96x96 blocks, so it needs at least two blocks that are not flat. A dark or
    diverged network can give such pictures, and BasicSR's calculate_niqe raises on them.

    Computed on Y of (MATLAB) YCbCr, or gray, in [0, 255].

    Args:
        img (ndarray): Image in [0, 255], BGR.
        crop_border (int): Cropped pixels in each edge of an image. Default: 0.
        input_order (str): 'HWC', 'CHW' or 'HW'. Default: 'HWC'.
        convert_to (str): 'y' (of MATLAB YCbCr) or 'gray'. Default: 'y'.

    Returns:
        float: NIQE, or nan (with a warning, once per process).
    """
    h, w = img.shape[1:3] if input_order == 'CHW' else img.shape[:2]
    value = math.nan
    if min(h, w) - 2 * crop_border >= _BLOCK_SIZE:
        with warnings.catch_warnings(), np.errstate(all='ignore'):
            warnings.simplefilter('ignore', RuntimeWarning)
            try:
                value = calculate_niqe(img, crop_border, input_order=input_order, convert_to=convert_to)
            except np.linalg.LinAlgError:
                pass
    if not math.isfinite(value):
        _warn_once()
        return math.nan
    return value
