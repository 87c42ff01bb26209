"""Any metric of pyiqa by its name."""
import difflib
import torch

from lowlight_cyclegan.metrics.metric_util import default_device, to_rgb_tensor
from lowlight_cyclegan.registry import METRIC_REGISTRY

__all__ = ['build_pyiqa', 'calculate_pyiqa']

_networks = {}


def build_pyiqa(metric, device='cpu', **kwargs):
    """pyiqa metric, built once for each set of arguments.

    Args:
        metric (str): Name in ``pyiqa.list_models()``.
        device (str): Device of the metric.
        kwargs: pyiqa's own options of the metric.

    Raises:
        ValueError: One line: pyiqa is missing, the name is unknown or not for single images, weights are unavailable.
    """
    key = metric, device, repr(sorted(kwargs.items()))
    if key in _networks:
        return _networks[key]
    try:
        import pyiqa
    except ImportError as error:
        raise ValueError(f'calculate_pyiqa: the package pyiqa cannot be imported ({error}); '
                         'pip install "lowlight_cyclegan[pyiqa]" (its licence is for non-commercial use)') from None
    # these compare folders of images
    names = [name for name in pyiqa.list_models() if 'fid' not in name and name != 'inception_score']
    if metric not in names:
        near = difflib.get_close_matches(str(metric), names) or names
        raise ValueError(f"calculate_pyiqa: no metric '{metric}' for single images in pyiqa; "
                         f"nearest: {', '.join(near)}")
    try:
        _networks[key] = pyiqa.create_metric(metric, device=torch.device(device), **kwargs)
    except OSError as error:
        raise ValueError(f"calculate_pyiqa: the weights of '{metric}' could not be fetched ({error}); run once with "
                         "network access, or choose one without weights, such as 'psnr' or 'ssim'") from None
    return _networks[key]


@METRIC_REGISTRY.register()
def calculate_pyiqa(img, img2=None, crop_border=0, input_order='HWC', metric='psnr', **kwargs):
    """Calculate any metric of pyiqa by its name, with or without a reference; whether lower is better depends on it.

    pyiqa is given RGB in [0, 1]; it converts to what the metric uses. Runs on CUDA where there is one. pyiqa's licence
    is for non-commercial use, so it is an optional dependency.

    Args:
        img (ndarray): Image in [0, 255], BGR.
        img2 (ndarray): Reference in [0, 255], BGR. Only full-reference metrics use it. Default: None.
        crop_border (int): Cropped pixels in each edge of an image. Default: 0.
        input_order (str): 'HWC', 'CHW' or 'HW'. Default: 'HWC'.
        metric (str): Name of the metric, see ``pyiqa.list_models()``. Default: 'psnr'.
        kwargs: pyiqa's own options of the metric, such as test_y_channel for psnr.

    Returns:
        float: Value of the metric.
    """
    device = default_device()
    network = build_pyiqa(metric, device, **kwargs)
    images = [to_rgb_tensor(img, crop_border, input_order)]
    if network.metric_mode == 'FR':
        if img2 is None:
            raise ValueError(f"calculate_pyiqa: '{metric}' needs a reference image; give the dataset a dataroot_gt, "
                             'or choose a no-reference metric')
        images.append(to_rgb_tensor(img2, crop_border, input_order))
    with torch.inference_mode():
        return float(network(*images))
