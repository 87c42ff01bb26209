"""The command ``info``."""
import sys
from os import path as osp


def info():
    """Versions, paths, attached folders, weights in the box and what is registered in BasicSR.

    Returns:
        dict[str, str | list[str] | None]: By their names, None for a package that is not installed.
    """
    import torch
    from importlib.metadata import PackageNotFoundError, version

    import lowlight_cyclegan
    from lowlight_cyclegan import __version__
    from lowlight_cyclegan.attach import attached_dirs, toolbox_dir
    from lowlight_cyclegan.config import options_dir
    from lowlight_cyclegan.registration import register
    register()
    from lowlight_cyclegan.enhance.pretrained import boxed
    from basicsr.utils import registry
    found = {
        'lowlight_cyclegan': f'{__version__} in {osp.dirname(osp.abspath(lowlight_cyclegan.__file__))}',
        'options': options_dir(),
        'weights': boxed(),
        'toolbox': toolbox_dir(),
        'attached': attached_dirs(),
        'python': sys.version.split()[0],
    }
    for name in ('basicsr', 'torch', 'torchvision', 'mmengine', 'lpips', 'opencv-python', 'pyiqa'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found['GPUs'] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    for kind in ('arch', 'dataset', 'loss', 'metric', 'model'):
        entries = getattr(registry, f'{kind.upper()}_REGISTRY')
        found[kind + ('es' if kind == 'loss' else 's')] = [
            name for name, obj in entries if obj.__module__.startswith('lowlight_cyclegan.')]
    return found
