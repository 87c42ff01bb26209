"""Export of a generator to ONNX, any batch, height and width.

The exported graph takes RGB as (n, 3, h, w) float32 in [0, 1], h and w at least 32, and returns the same.
"""
from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import torch
from collections.abc import Callable
from dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_cyclegan.archs.auto_exposure_arch import THUMBNAIL
from lowlight_cyclegan.files import atomic_write
from lowlight_cyclegan.messages import first_line

__all__ = ['ExportWrapper', 'Exported', 'check', 'export']

TRACED = (2, 3, 99, 130)
CHECKED = ((1, 3, 32, 32), (1, 3, 33, 47), (3, 3, 101, 66), (1, 3, 144, 256), (1, 3, 262, 175))
TOLERANCE = {False: 5e-4, True: 2 / 255}  # by fp16: an eighth of a grey level, two grey levels
# The oldest onnxruntime that loads a file of at most this opset and of at most this version of ONNX's format, as tried.
LOADED_FROM = (((19, '1.15'), (20, '1.17'), (21, '1.18'), (23, '1.23')), ((9, '1.15'), (10, '1.18'), (11, '1.23')))


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        differences: Largest absolute difference from PyTorch, in [0, 1], by input shape.
        size: Of the file, in bytes.
        full_size: What it would be in full precision.
        onnxruntime: The oldest version that loads it.
    """
    differences: dict[tuple[int, ...], float]
    size: int
    full_size: int
    onnxruntime: str


class ExportWrapper(nn.Module):
    """A generator with [0, 1] on both sides, without the parts that an exporter freezes to the size it sees.

    Args:
        network: In [-1, 1] on both sides. It is copied.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = copy.deepcopy(network)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) in [0, 1] -> the same shape and range, equal to what the network makes of any size."""
        h, w = x.shape[2:]
        x, head = x * 2 - 1, getattr(self.network, 'head', None)
        if head == 'exposure':
            curve = self.network.predict(self.network.thumbnail(x))
            y = self.network.apply(_extended(_extended(x, 2, 4, mirrored=False), 3, 4, mirrored=False), curve)
        else:
            x = _extended(_extended(x, 2, 4), 3, 4)
            if head == 'gain':
                y = self.network.apply(x, self.network.predict(self.network.thumbnail(_reduced(x))))
            else:
                y = self.network(x)
        # A slice would demand a proof that h and w are not beyond the padded size.
        return ((y + 1) / 2).index_select(2, torch.arange(h)).index_select(3, torch.arange(w))


def _extended(x: Tensor, dim: int, multiple: int, mirrored: bool = True) -> Tensor:
    # The network's own padding to multiples of its stride, as indices: its branch on the size is not taken then.
    size = x.shape[dim]
    beyond = size - 1 - torch.arange((size + multiple - 1) // multiple * multiple)
    return x.index_select(dim, size - 1 - (beyond.abs() if mirrored else beyond.clamp_min(0)))


def _reduced(x: Tensor) -> Tensor:
    # What the network reduces to its thumbnail is of the thumbnail's size already, by two matrix products: ONNX has no
    # adaptive pooling of a size it does not know.
    return _area(x.shape[2], THUMBNAIL[0], x.dtype) @ x @ _area(x.shape[3], THUMBNAIL[1], x.dtype).T


def _area(size_in: int, size_out: int, dtype: torch.dtype) -> Tensor:
    i, j = torch.arange(size_out).unsqueeze(1), torch.arange(size_in).unsqueeze(0)
    cell = (j >= i * size_in // size_out) & (j < ((i + 1) * size_in + size_out - 1) // size_out)
    weights = cell.to(dtype)
    return weights / weights.sum(1, keepdim=True)


def export(network: nn.Module, path: str | os.PathLike, fp16: bool = False) -> Exported:
    """Export a generator, run the result and write it if it agrees with PyTorch at sizes it was not traced at.

    Args:
        network: (n, 3, h, w) in [-1, 1] -> the same, fp32.
        path: File to write; it is complete or absent.
        fp16: Half-precision weights.

    Raises:
        ValueError: If a package is missing or too old, or the graph cannot be made, or disagrees.
        OSError: If the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError('export needs onnx, onnxscript and onnxruntime: pip install "lowlight_cyclegan[export]"'
                         ) from error
    if torch.__version__ < (2, 10):
        raise ValueError(f'export needs torch 2.10 or later, found {torch.__version__}: '
                         'pip install -U torch torchvision')
    network = network.eval().float().cpu()
    with torch.no_grad():
        program = _trace(ExportWrapper(network))
    full, loaded_from = _onnx(program)
    data = _halved(full) if fp16 else full
    try:
        differences = check(network, _session(data))
    except Exception as error:  # onnxruntime's errors share no base
        raise ValueError(f'{path}: not written: the exported graph does not run ({first_line(error)})') from error
    worst = max(differences, key=lambda shape: differences[shape])
    if not differences[worst] <= TOLERANCE[fp16]:  # not a number included
        raise ValueError(f'{path}: not written: at {"x".join(map(str, worst))} the graph differs from PyTorch by '
                         f'{differences[worst]:.2g}, more than {TOLERANCE[fp16]:.2g}')
    atomic_write(path, data)
    return Exported(differences, len(data), len(full), loaded_from)


def _trace(wrapper: ExportWrapper) -> torch.export.ExportedProgram:
    batch, height, width = torch.export.Dim('batch'), *(torch.export.Dim(s, min=32) for s in ('height', 'width'))
    try:
        return torch.export.export(
            wrapper, (torch.rand(TRACED),), dynamic_shapes=({0: batch, 2: height, 3: width},))
    except Exception as error:  # whatever the tracer stumbles over in a network that is not ours
        raise ValueError(f'{type(wrapper.network).__name__} cannot be exported: {first_line(error)}') from error


def _onnx(program: torch.export.ExportedProgram) -> tuple[bytes, str]:
    import onnx
    logging.disable(logging.ERROR)  # a conversion that fails is found below, and told in one line
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model = torch.onnx.export(
                program, (), input_names=['image'], output_names=['enhanced'], dynamo=True, external_data=False,
                verbose=False).model_proto
    except Exception as error:
        raise ValueError(f'ONNX does not take the graph: {first_line(error)}') from error
    finally:
        logging.disable(logging.NOTSET)
    version = next(entry.version for entry in model.opset_import if not entry.domain)
    onnx.helper.set_model_props(model, {'layout': 'NCHW', 'channels': 'RGB', 'range': '[0, 1]'})
    onnx.checker.check_model(model)
    return model.SerializeToString(), _loaded_from(version, model.ir_version)


def _loaded_from(opset: int, ir_version: int) -> str:
    import onnxruntime
    versions = [next((version for newest, version in known if value <= newest), onnxruntime.__version__)
                for value, known in zip((opset, ir_version), LOADED_FROM)]
    return max(versions, key=lambda version: [int(part) for part in version.split('.')[:2]])


def _halved(data: bytes) -> bytes:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel
    model = onnx.load_from_string(data)
    # The tone curve is a matter of the whole picture's mean: it stays in float32, with all that only counts pixels.
    exact = [node.name for node in model.graph.node
             if any('exposure' in entry.value or '_area' in entry.value for entry in node.metadata_props)]
    model = convert_float_to_float16(model, keep_io_types=True, node_block_list=exact)
    OnnxModel(model).topological_sort()  # the converter appends its casts at the end
    return model.SerializeToString()


def check(network: nn.Module, call: Callable[[Tensor], Tensor]) -> dict[tuple[int, ...], float]:
    """Largest absolute difference between an exported graph and its network, by input shape, in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    differences: dict[tuple[int, ...], float] = {}
    for shape in CHECKED:
        x = F.interpolate(torch.rand(*shape[:2], 8, 8, generator=generator), shape[2:], mode='bilinear') * 0.2
        x = (x + 0.02 * torch.rand(shape, generator=generator)).clamp(0, 1)
        with torch.no_grad():
            differences[shape] = (call(x) - (network(x * 2 - 1) + 1) / 2).abs().max().item()
    return differences


def _session(data: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it says is raised as well
    session = onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(session.run(None, {'image': x.numpy()})[0])
