"""Export of a generator for other runtimes: ONNX and torch.export, any batch, height and width.

The exported graph takes RGB as (n, 3, h, w) float32 in [0, 1], h and w at least 32, and returns the same.
"""
import copy
import os
import tempfile
import torch
from os import path as osp
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.archs import AutoExposure
from lowlight_cyclegan.messages import fail, first_line

__all__ = ['ExportWrapper', 'add_arguments', 'check', 'export', 'run']

TRACED = (2, 3, 99, 130)
CHECKED = ((1, 3, 32, 32), (1, 3, 33, 47), (3, 3, 101, 66), (1, 3, 144, 256), (1, 3, 262, 175))
SUFFIXES = {'onnx': '.onnx', 'torch-export': '.pt2'}
TOLERANCE = {False: 5e-4, True: 2 / 255}  # by fp16: an eighth of a grey level, two grey levels
OLDEST_OPSET = 18
NEEDS = 'needs onnx, onnxscript and onnxruntime: pip install "lowlight_cyclegan[export]"'


def add_arguments(parser):
    parser.add_argument('--model', default='lite', metavar='NAME|FILE', help='weights. Default: %(default)s')
    parser.add_argument('--options', metavar='FILE.yml', help='option file of weights that do not say what they hold')
    parser.add_argument('-o', '--output', metavar='FILE', help='default: the name of the model, in this folder')
    parser.add_argument(
        '--format', choices=list(SUFFIXES), default='onnx',
        help='onnx runs under onnxruntime, OpenVINO and many others; torch-export (.pt2) is for torch.export.load and '
        'AOTInductor. There is no TorchScript: its tracing freezes the size, its compiler does not take this network, '
        'and PyTorch has given it up for torch.export. Default: %(default)s')
    parser.add_argument('--fp16', action='store_true',
                        help='ONNX with half-precision weights: half the size; input and output stay float32')
    parser.add_argument('--opset', type=int, metavar='N', help="of ONNX, at least 18. Default: PyTorch's")
    parser.add_argument('--overwrite', action='store_true', help='replace FILE')


def run(args):
    from .pretrained import load_pretrained
    if args.format != 'onnx' and (args.fp16 or args.opset is not None):
        fail(f'--{"fp16" if args.fp16 else "opset"} belongs to --format onnx')
    name = osp.splitext(osp.basename(osp.normpath(args.model)))[0] + ('-fp16' if args.fp16 else '')
    output = args.output or name + SUFFIXES[args.format]
    if osp.isdir(output) or not osp.isdir(osp.dirname(output) or '.'):
        fail(f'{output}: must be a file in a folder that exists')
    if osp.exists(output) and not args.overwrite:
        fail(f'{output}: exists already; --overwrite replaces it')
    try:
        network = load_pretrained(args.model, args.options)[0]
        differences = export(network, output, args.format, args.fp16, args.opset)
    except (ImportError, OSError, ValueError) as error:
        fail(str(error))
    for shape, difference in differences.items():
        print(f'{"x".join(map(str, shape)):>12}  differs from PyTorch by at most {difference:.2g}')
    print(f'{output}: {osp.getsize(output) / 1e6:.1f} MB, {args.format}, (n, 3, h, w) RGB in [0, 1]')


class ExportWrapper(nn.Module):
    """A generator with [0, 1] on both sides, without the parts that an exporter freezes to the size it sees.

    Args:
        network (nn.Module): In [-1, 1] on both sides. It is copied.
    """

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network)
        for module in self.network.modules():
            if isinstance(module, AutoExposure):
                module.thumbnail = _thumbnail

    def forward(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range, equal to what the network makes of any size."""
        h, w = x.shape[2:]
        y = (self.network(_mirror(_mirror(x, 2), 3) * 2 - 1) + 1) / 2
        # A slice would demand a proof that h and w are not beyond the padded size.
        return y.index_select(2, torch.arange(h)).index_select(3, torch.arange(w))


def _mirror(x, dim):
    # The network's own padding to multiples of 4, as indices: its branch on the size is not taken then.
    size = x.shape[dim]
    index = torch.arange((size + 3) // 4 * 4)
    return x.index_select(dim, size - 1 - (size - 1 - index).abs())


def _thumbnail(x):
    # AutoExposure's thumbnail as two matrix products: ONNX has no adaptive pooling of a size it does not know.
    return _area(x.shape[2], 64, x.dtype) @ x @ _area(x.shape[3], 96, x.dtype).T


def _area(size_in, size_out, dtype):
    i, j = torch.arange(size_out).unsqueeze(1), torch.arange(size_in).unsqueeze(0)
    cell = (j >= i * size_in // size_out) & (j < ((i + 1) * size_in + size_out - 1) // size_out)
    weights = cell.to(dtype)
    return weights / weights.sum(1, keepdim=True)


def export(network, path, form='onnx', fp16=False, opset=None):
    """Export a generator, run the file and keep it if it agrees with PyTorch at sizes it was not traced at.

    Args:
        network (nn.Module): (n, 3, h, w) in [-1, 1] -> the same, fp32.
        path (str): File to write; it is complete or absent.
        form (str): 'onnx' or 'torch-export'.
        fp16 (bool): ONNX with half-precision weights. Default: False.
        opset (int | None): Of ONNX; None is PyTorch's choice. Default: None.

    Returns:
        dict[tuple[int], float]: Largest absolute difference, in [0, 1], by input shape.

    Raises:
        ImportError: If a package is missing, in one line.
        ValueError: If the graph cannot be made, or disagrees.
    """
    if form == 'onnx':
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(f'export to ONNX {NEEDS}') from error
    network = network.eval().float().cpu()
    wrapper = ExportWrapper(network)
    handle, part = tempfile.mkstemp(SUFFIXES[form], '.export-', osp.dirname(path) or '.')
    os.close(handle)
    try:
        with torch.no_grad():
            program = _trace(wrapper)
        if form == 'onnx':
            _write_onnx(program, part, fp16, opset)
        else:
            torch.export.save(program, part)
        try:
            differences = check(network, part, form)
        except Exception as error:  # onnxruntime's errors share no base
            raise ValueError(f'{path}: not written: the exported graph does not run '
                             f'({first_line(error)})') from error
        worst = max(differences, key=differences.get)
        if not differences[worst] <= TOLERANCE[fp16]:  # not a number included
            raise ValueError(f'{path}: not written: at {"x".join(map(str, worst))} the graph differs from PyTorch by '
                             f'{differences[worst]:.2g}, more than {TOLERANCE[fp16]:.2g}')
        os.chmod(part, 0o644)
        os.replace(part, path)
    finally:
        if osp.exists(part):
            os.remove(part)
    return differences


def _trace(wrapper):
    batch, height, width = torch.export.Dim('batch'), *(torch.export.Dim(s, min=32) for s in ('height', 'width'))
    try:
        return torch.export.export(
            wrapper, (torch.rand(TRACED),), dynamic_shapes=({0: batch, 2: height, 3: width},))
    except Exception as error:  # whatever the tracer stumbles over in a network that is not ours
        raise ValueError(f'{type(wrapper.network).__name__} cannot be exported: {first_line(error)}') from error


def _write_onnx(program, path, fp16, opset):
    import contextlib
    import io
    import logging
    import onnx
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise ValueError(f'opset {opset}: must be from {OLDEST_OPSET}, the oldest PyTorch exports to, to {newest}')
    logging.disable(logging.ERROR)  # a conversion that fails is found below, and told in one line
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model = torch.onnx.export(
                program, (), input_names=['image'], output_names=['enhanced'], opset_version=opset, dynamo=True,
                external_data=False, verbose=False).model_proto
    except Exception as error:
        raise ValueError(f'ONNX does not take the graph{f" in opset {opset}" if opset else ""}: '
                         f'{first_line(error)}') from error
    finally:
        logging.disable(logging.NOTSET)
    version = next(entry.version for entry in model.opset_import if not entry.domain)
    if opset not in (None, version):
        raise ValueError(f'opset {opset}: the graph cannot be converted to it; opset {version} works')
    if fp16:
        model = _halve(model)
    onnx.helper.set_model_props(model, {'layout': 'NCHW', 'channels': 'RGB', 'range': '[0, 1]'})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _halve(model):
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel
    # The tone curve is a matter of the whole picture's mean: it stays in float32, with all that only counts pixels.
    exact = [node.name for node in model.graph.node
             if any('exposure' in entry.value for entry in node.metadata_props)]
    model = convert_float_to_float16(model, keep_io_types=True, node_block_list=exact)
    OnnxModel(model).topological_sort()  # the converter appends its casts at the end
    return model


def check(network, path, form, shapes=CHECKED):
    """Largest absolute difference between an exported file and its network, by input shape, in [0, 1]."""
    if form == 'onnx':
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it says is raised as well
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])

        def call(x):
            return torch.from_numpy(session.run(None, {'image': x.numpy()})[0])
    else:
        call = torch.export.load(path).module()
    generator = torch.Generator().manual_seed(0)
    differences = {}
    for shape in shapes:
        x = F.interpolate(torch.rand(*shape[:2], 8, 8, generator=generator), shape[2:], mode='bilinear') * 0.2
        x = (x + 0.02 * torch.rand(shape, generator=generator)).clamp(0, 1)
        with torch.no_grad():
            differences[shape] = (call(x) - (network(x * 2 - 1) + 1) / 2).abs().max().item()
    return differences
