"""Registration that tolerates a toolbox which already has our names."""


def register_once(registry):
    """Class or function decorator: put the object into a BasicSR registry under its own name.

    A name that is already there (a BasicSR tree that adopted the class) is left alone, where
    ``registry.register()`` would raise.

    Args:
        registry (basicsr.utils.registry.Registry): For example ``ARCH_REGISTRY``.
    """

    def decorate(obj):
        if obj.__name__ not in registry:
            registry.register(obj)
        return obj

    return decorate
