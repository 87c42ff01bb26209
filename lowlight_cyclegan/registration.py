"""Registration in BasicSR."""
from __future__ import annotations

from importlib import import_module

from . import archs, repairs
from .registry import hand_over

__all__ = ['TOOLBOX_HALF', 'register']

TOOLBOX_HALF = tuple(f'{__package__}.{part}' for part in ('archs', 'data', 'losses', 'metrics', 'models'))


def register() -> None:
    """Repair BasicSR and register our classes (see `lowlight_cyclegan.register`)."""
    repairs.apply(register)
    for name in TOOLBOX_HALF:
        import_module(name)
    for name in archs.__all__:
        getattr(archs, name)
    hand_over()
