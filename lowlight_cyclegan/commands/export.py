"""The command ``export``."""
from __future__ import annotations

import argparse
from os import path as osp

from lowlight_cyclegan.messages import fail
from .arguments import add_weights

HELP = 'write a generator as ONNX'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_weights(parser)
    parser.add_argument('-o', '--output', metavar='FILE', help='default: the name of the model, in this folder')
    parser.add_argument('--fp16', action='store_true',
                        help='half-precision weights: nearly half the size of a large network, little '
                        'less of a small one; input and output stay float32')
    parser.add_argument('--overwrite', action='store_true', help='replace FILE')


def run(args: argparse.Namespace) -> None:
    name = osp.splitext(osp.basename(osp.normpath(args.model)))[0] + ('-fp16' if args.fp16 else '')
    output = args.output or f'{name}.onnx'
    if osp.isdir(output) or not osp.isdir(osp.dirname(output) or '.'):
        fail(f'{output}: must be a file in a folder that exists')
    if osp.exists(output) and not args.overwrite:
        fail(f'{output}: exists already; --overwrite replaces it')
    from lowlight_cyclegan.enhance.export import export
    from lowlight_cyclegan.enhance.pretrained import load_pretrained
    written = export(load_pretrained(args.model, args.options)[0], output, args.fp16)
    for shape, difference in written.differences.items():
        print(f'{"x".join(map(str, shape)):>12}  differs from PyTorch by at most {difference:.2g}')
    facts = [f'{written.size / 1e6:.2f} MB', 'onnx', '(n, 3, h, w) RGB in [0, 1]']
    if args.fp16:
        facts[0] += f' ({1 - written.size / written.full_size:.0%} less than in full precision)'
    print(f'{output}: {", ".join(facts)}, onnxruntime {written.onnxruntime} or newer')
