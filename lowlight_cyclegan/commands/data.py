"""The command ``data``: downloaded datasets checked and laid out, and what two of them share."""
from __future__ import annotations

import argparse

from lowlight_cyclegan.messages import explain, fail

HELP = 'check a downloaded dataset and lay it out, or find what two datasets share'
INTERRUPTED = 'Interrupted; the same command continues.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title='datasets', metavar='NAME', required=True)
    for name, source, text in (
        ('lol', 'SOURCE', 'LOL: LOLdataset.zip, or the folder with our485 and eval15'),
        ('lolv2', 'SOURCE', 'LOL-v2-real: the archive or folder with Real_captured'),
        ('lsrw', 'SOURCE', 'LSRW: the archives or folders with Huawei and Nikon; picks 30 test pairs'),
        ('folder', 'FOLDER', 'any two folders: low images, then normal ones of the same names'),
    ):
        sub = commands.add_parser(name, help=text, description=f'{text}. Checks all images, lays them out under '
                                  '--output and writes manifest.json. An interrupted run can be repeated.')
        sub.set_defaults(work=_prepare, layout=name)
        sub.add_argument('source', nargs='+', metavar=source)
        sub.add_argument('--output', default='datasets', metavar='DIR', help='default: %(default)s')
        sub.add_argument('--lmdb', action='store_true', help="also make BasicSR's LMDBs")
        if name == 'folder':
            sub.add_argument('--name', required=True, help='name of the dataset')
        else:
            sub.add_argument('--partial', action='store_true', help='accept other numbers of pairs than published')
    sub = commands.add_parser('overlap', help='test images that a training set holds already',
                              description='List test images that are in a training set: identical, or the same view.')
    sub.set_defaults(work=_overlap)
    for name in ('train', 'test'):
        sub.add_argument(name, metavar=name.upper(), help='folder of images, or manifest.json of a dataset')
    sub.add_argument('--output', metavar='FILE.json', help='also write the list there')


def run(args: argparse.Namespace) -> None:
    try:
        args.work(args)
    except (ValueError, OSError) as error:
        fail(explain(error))


def _prepare(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.prepare.layouts import LAYOUTS, Layout, prepare
    if args.layout == 'folder':
        if len(args.source) != 2:
            raise ValueError('data folder: give two folders, that of the low images and that of the normal ones')
        if args.name in ('.', '..') or '/' in args.name or '\\' in args.name:
            raise ValueError(f'--name {args.name}: must be a plain name')
        layout = Layout(args.name, ())
    else:
        layout = LAYOUTS[args.layout]
    prepare(layout, args.source, args.output, getattr(args, 'partial', False), args.lmdb)


def _overlap(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.prepare.overlap import report_overlap
    report_overlap(args.train, args.test, args.output)
