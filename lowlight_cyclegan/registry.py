"""BasicSR's registries as our classes see them: they are filled without BasicSR and handed over when it is wanted.

A network can so be built, and photos enhanced, without importing BasicSR. Upstream, this module is
``basicsr.utils.registry``.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .messages import warn

__all__ = ['ARCH_REGISTRY', 'DATASET_REGISTRY', 'LOSS_REGISTRY', 'METRIC_REGISTRY', 'MODEL_REGISTRY', 'hand_over']

T = TypeVar('T')


class Registry:
    """Our classes and functions of one kind, by name.

    Args:
        name: Of BasicSR's registry in ``basicsr.utils.registry``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: dict[str, Any] = {}

    def register(self) -> Callable[[T], T]:
        """Decorator that enters a class or function under its own name."""

        def decorate(obj: T) -> T:
            self.objects[obj.__name__] = obj  # type: ignore[attr-defined]
            return obj

        return decorate

    def __contains__(self, name: object) -> bool:
        return name in self.objects

    def get(self, name: str) -> Any:
        """The class or function of this name.

        Raises:
            KeyError: There is none.
        """
        return self.objects[name]

    def hand_over(self) -> None:
        """Enter everything into BasicSR's registry. Repeatable.

        A name that is there already is left alone, with a warning unless it is BasicSR's own: a tree that has adopted
        the class.
        """
        from basicsr.utils import registry
        theirs = getattr(registry, self.name)
        for name, obj in self.objects.items():
            if name not in theirs:
                theirs.register(obj)
                continue
            module = theirs.get(name).__module__
            if module.partition('.')[0] not in ('basicsr', 'lowlight_cyclegan'):
                warn(f'{name} is registered by {module}: options that name it get that one, not ours')


ARCH_REGISTRY = Registry('ARCH_REGISTRY')
DATASET_REGISTRY = Registry('DATASET_REGISTRY')
LOSS_REGISTRY = Registry('LOSS_REGISTRY')
METRIC_REGISTRY = Registry('METRIC_REGISTRY')
MODEL_REGISTRY = Registry('MODEL_REGISTRY')


def hand_over() -> None:
    """Enter everything that is ours into BasicSR's registries."""
    for registry in (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY):
        registry.hand_over()
