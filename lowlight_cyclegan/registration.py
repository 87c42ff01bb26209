"""Registration in BasicSR."""
from __future__ import annotations

from importlib import import_module

from . import archs, data, repairs
from .registry import hand_over

__all__ = ['TOOLBOX_HALF', 'register']

TOOLBOX_HALF = tuple(f'{__package__}.{part}' for part in ('archs', 'data', 'losses', 'metrics', 'models'))


def register() -> None:
    """Repair BasicSR and register our classes (see `lowlight_cyclegan.register`)."""
    repairs.apply(register)
    for name in TOOLBOX_HALF:
        import_module(name)
    for package in (archs, data):  # which import their modules by need
        for name in package.__all__:
            getattr(package, name)
    hand_over()
