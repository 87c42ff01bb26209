"""Low-light image enhancement with an attention CycleGAN, as a BasicSR plugin.

Importing this package loads neither torch nor basicsr; ``register()`` puts its classes into BasicSR's registries.
"""
from . import autoload

__version__ = '0.1.0'
__all__ = ['Enhancer', 'register']

autoload.install()


def register() -> None:
    """Repair BasicSR where it needs it and register our archs, datasets, losses, metrics and models. Repeatable."""
    from . import registration
    registration.register()


def __getattr__(name: str) -> object:
    if name == 'Enhancer':  # loads torch
        from .enhance.enhancer import Enhancer
        return Enhancer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
