"""Registration in BasicSR."""
import importlib

from .autoload import TOOLBOX_HALF

__all__ = ['register']


def register():
    """Repair BasicSR and register our classes (see `lowlight_cyclegan.register`)."""
    from . import repairs
    repairs.apply()
    for name in TOOLBOX_HALF:
        importlib.import_module(name)
