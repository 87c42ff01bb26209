"""The command ``export``."""
from __future__ import annotations

import argparse
from os import path as osp

from lowlight_cyclegan.config import DEFAULT_MODEL
from lowlight_cyclegan.messages import fail

HELP = 'write a generator as ONNX or torch.export'
SUFFIXES = {'onnx': '.onnx', 'torch-export': '.pt2'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--model', default=DEFAULT_MODEL, metavar='NAME|FILE', help='weights. Default: %(default)s')
    parser.add_argument('--options', metavar='FILE.yml', help='option file of weights that do not say what they hold')
    parser.add_argument('-o', '--output', metavar='FILE', help='default: the name of the model, in this folder')
    parser.add_argument(
        '--format', choices=list(SUFFIXES), default='onnx',
        help='onnx runs under onnxruntime, OpenVINO and many others; torch-export (.pt2) is for torch.export.load and '
        'AOTInductor. There is no TorchScript: its tracing freezes the size, its compiler does not take this network, '
        'and PyTorch has given it up for torch.export. Default: %(default)s')
    parser.add_argument('--fp16', action='store_true',
                        help='ONNX with half-precision weights: nearly half the size of a large network, little '
                        'less of a small one; input and output stay float32')
    parser.add_argument('--opset', type=int, metavar='N', help="of ONNX, at least 18. Default: PyTorch's")
    parser.add_argument('--overwrite', action='store_true', help='replace FILE')


def run(args: argparse.Namespace) -> None:
    if args.format != 'onnx' and (args.fp16 or args.opset is not None):
        fail(f'--{"fp16" if args.fp16 else "opset"} belongs to --format onnx')
    name = osp.splitext(osp.basename(osp.normpath(args.model)))[0] + ('-fp16' if args.fp16 else '')
    output = args.output or name + SUFFIXES[args.format]
    if osp.isdir(output) or not osp.isdir(osp.dirname(output) or '.'):
        fail(f'{output}: must be a file in a folder that exists')
    if osp.exists(output) and not args.overwrite:
        fail(f'{output}: exists already; --overwrite replaces it')
    from lowlight_cyclegan.enhance.export import export
    from lowlight_cyclegan.enhance.pretrained import load_pretrained
    try:
        network = load_pretrained(args.model, args.options)[0]
        written = export(network, output, args.format, args.fp16, args.opset)
    except (ImportError, OSError, ValueError) as error:
        fail(str(error))
    for shape, difference in written.differences.items():
        print(f'{"x".join(map(str, shape)):>12}  differs from PyTorch by at most {difference:.2g}')
    facts = [f'{written.size / 1e6:.2f} MB', args.format, '(n, 3, h, w) RGB in [0, 1]']
    if args.fp16:
        facts[0] += f' ({1 - written.size / written.full_size:.0%} less than in full precision)'
    if written.onnxruntime:
        facts.append(f'onnxruntime {written.onnxruntime} or newer')
    print(f'{output}: {", ".join(facts)}')
