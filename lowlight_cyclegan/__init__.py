"""Low-light image enhancement with an attention CycleGAN, as a BasicSR plugin.

Importing this package loads neither torch nor basicsr; ``register()`` puts its classes into BasicSR's registries.
"""
from . import autoload

__version__ = '0.1.0'
__all__ = ['register']

autoload.install()


def register():
    """Repair BasicSR where it needs it and register our archs, datasets, losses, metrics and models. Repeatable."""
    from . import plugin
    plugin.register()
