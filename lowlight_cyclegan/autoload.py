"""Import hooks. They run at the start of Python, so this module imports nothing but sys.

- ``torchvision.transforms.functional_tensor`` was removed in torchvision 0.17; BasicSR <= 1.4.2 imports one function
  from it and cannot be imported without. Where nobody else has the module, a stand-in is given.
- ``distutils`` was removed in Python 3.12; BasicSR imports it, too. Where nobody else has it, setuptools' is given.
- After `enable()`, which the line installed by ``lowlight-cyclegan attach`` calls, the plugin registers itself as soon
  as basicsr is imported.
"""
import sys

TYPE_CHECKING = False  # as typing has it, which is not imported here
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

FUNCTIONAL_TENSOR = 'torchvision.transforms.functional_tensor'
DISTUTILS = 'distutils'


class ImportHook:
    """Meta path finder and loader for the modules named above; of no effect on any other."""

    registers = False

    def find_spec(self, name: str, path: 'Any' = None, target: 'Any' = None) -> 'ModuleSpec | None':
        wanted = (name == FUNCTIONAL_TENSOR or name == DISTUTILS and 'basicsr' in sys.modules or
                  name == 'basicsr' and self.registers)
        if not wanted:
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, specs), None)
        if name == FUNCTIONAL_TENSOR:
            return spec or type(sys.__spec__)(name, self)  # type: ignore[arg-type]
        if name == DISTUTILS:
            if spec is None:
                import setuptools  # noqa: F401  it puts its own in the place
                spec = getattr(sys.modules.get(DISTUTILS), '__spec__', None)
            return spec
        if spec is not None and spec.loader is not None:
            self.register_after(spec.loader)
        return spec

    def create_module(self, spec: 'ModuleSpec') -> None:
        return None

    def exec_module(self, module: 'Any') -> None:
        from torchvision.transforms.functional import rgb_to_grayscale
        module.rgb_to_grayscale = rgb_to_grayscale

    @staticmethod
    def register_after(loader: 'Any') -> None:
        load = loader.exec_module

        def exec_module(module: 'ModuleType') -> None:
            load(module)
            register()

        loader.exec_module = exec_module


def register() -> None:
    """Register the plugin. It never raises: unrelated programs import basicsr too."""
    if 'lowlight_cyclegan.repairs' in sys.modules:
        return  # it is what asked for basicsr, on the way to register
    try:
        from . import registration, repairs
        repairs.apply(registration.register)
        # When one of these asked for basicsr it is half imported now; parse_options registers the rest. Archs never do.
        asking = tuple(f'{name}.' for name in registration.TOOLBOX_HALF if not name.endswith('.archs'))
        if not any(name.startswith(asking) for name in sys.modules):
            registration.register()
    except Exception as error:
        import warnings
        warnings.warn(f'lowlight_cyclegan is attached but cannot register: {error!r}', stacklevel=2)


hook = ImportHook()


def install() -> None:
    """Put the hook first among Python's finders, once."""
    if hook not in sys.meta_path:
        sys.meta_path.insert(0, hook)


def enable() -> None:
    """Register the plugin whenever basicsr is imported from now on."""
    hook.registers = True
