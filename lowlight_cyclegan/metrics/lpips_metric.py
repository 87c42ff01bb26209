"""LPIPS, with weights that are given or fetched."""
import functools
import os
import pickle
import torch
import warnings

from lowlight_cyclegan.metrics.metric_util import default_device, to_rgb_tensor
from lowlight_cyclegan.registry import METRIC_REGISTRY

__all__ = ['build_lpips', 'calculate_lpips']

# trunk -> torchvision's weights
_TRUNKS = {
    'alex': 'AlexNet_Weights.IMAGENET1K_V1',
    'vgg': 'VGG16_Weights.IMAGENET1K_V1',
    'squeeze': 'SqueezeNet1_1_Weights.IMAGENET1K_V1',
}


def _load_trunk(net, trunk):
    """State dict of the trunk in torchvision's layout."""
    from torchvision.models import get_weight
    if trunk is not None:
        try:
            return torch.load(trunk, map_location='cpu', weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            reason = str(error).split('\n')[0]
            raise ValueError(f"LPIPS: trunk '{trunk}' cannot be loaded ({reason}); "
                             f'give a weights file of torchvision for {net}') from None
    weights = get_weight(_TRUNKS[net])
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        path = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(weights.url))
        reason = str(error).split('\n')[0]
        raise ValueError(f'LPIPS: the {net} trunk could not be fetched ({reason}); put {weights.url} '
                         f"at '{path}', or give the file's path as option trunk") from None


@functools.cache
def build_lpips(net='alex', trunk=None, device='cpu'):
    """LPIPS network (version 0.1), built once for each set of arguments.

    Args:
        net (str): 'alex', 'vgg' or 'squeeze'.
        trunk (str): File of the trunk's weights in torchvision's layout ('features.0.weight' ...; other keys of a full
            classifier are ignored). Default: None, which uses torchvision's own download.
        device (str): Device of the network.

    Raises:
        ValueError: One line, for an unknown net and for weights that are missing, unreadable or of another net.
    """
    if net not in _TRUNKS:
        raise ValueError(f"LPIPS: net '{net}' is unknown; use one of {', '.join(_TRUNKS)}")
    import lpips
    weights = _load_trunk(net, trunk)
    # the random trunk that is replaced below must not disturb the run's random numbers
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings('ignore', module='torchvision')
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # lpips names a layer 'slice2.3.weight' that torchvision names 'features.3.weight'
    try:
        state = {name: weights['features.' + name.split('.', 1)[1]] for name in model.net.state_dict()}
        model.net.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = ' '.join(str(error).split('\n')[:2])
        raise ValueError(f"LPIPS: '{trunk}' does not hold the {net} trunk ({reason}); "
                         f"give torchvision's weights for {net}") from None
    return model.requires_grad_(False).to(device)


@METRIC_REGISTRY.register()
def calculate_lpips(img, img2, crop_border=0, input_order='HWC', net='alex', trunk=None, **kwargs):
    """Calculate LPIPS (Learned Perceptual Image Patch Similarity), version 0.1; lower is better, 0 for equal images.

    Compared in RGB, scaled to [-1, 1]. Runs on CUDA where there is one.

    Reference: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.

    Args:
        img (ndarray): Image in [0, 255], BGR.
        img2 (ndarray): Image in [0, 255], BGR, of the same shape.
        crop_border (int): Cropped pixels in each edge of an image. Default: 0.
        input_order (str): 'HWC', 'CHW' or 'HW'. Default: 'HWC'.
        net (str): Trunk: 'alex', 'vgg' or 'squeeze'. Default: 'alex'.
        trunk (str): File of the trunk's weights. Default: None. See build_lpips.

    Returns:
        float: LPIPS.
    """
    assert img.shape == img2.shape, f'Image shapes are different: {img.shape}, {img2.shape}.'
    device = default_device()
    model = build_lpips(net, trunk, device)
    with torch.inference_mode():
        images = [to_rgb_tensor(image, crop_border, input_order).to(device) for image in (img, img2)]
        return model(*images, normalize=True).item()
