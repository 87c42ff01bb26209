"""The command ``data``: downloaded datasets checked and laid out, and what two of them share."""
from __future__ import annotations

import argparse
from os import path as osp

from .arguments import natural, number

HELP = 'check a downloaded dataset and lay it out, make test images, or find what two datasets share'
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
    sub = commands.add_parser('fuse', help='scenes of two exposures: references by exposure fusion',
                              description='Lay out under-exposed pictures with the fusion of both exposures as their '
                              'references.')
    sub.set_defaults(work=_fuse)
    sub.add_argument('under', metavar='UNDER', help='folder of the under-exposed pictures')
    sub.add_argument('over', metavar='OVER', help='of the over-exposed ones, of the same names')
    _add_target(sub, 'UNDER_fused')
    sub = commands.add_parser('darken', help='photographs darkened by a model of a camera',
                              description='Darken photographs, which are the references: evenly, in part, or both, '
                              'each into a folder of its own. The seed makes it repeatable.')
    sub.set_defaults(work=_darken)
    sub.add_argument('folder', metavar='FOLDER', help='well exposed photographs')
    sub.add_argument('--stops', type=number(0, 20), nargs='*', default=[0, 2, 4], metavar='N',
                     help='of even darkness. Default: 0 2 4')
    for name, text in (('ramp', 'a ramp of 0 to 4 stops'), ('backlight', 'about 3 stops off the darker regions'),
                       ('vignette', '0 to 4 stops around a bright place'), ('shadow', '3 stops beyond a line')):
        sub.add_argument(f'--{name}', dest='shapes', action='append_const', const=name, help=text)
    sub.add_argument('--noise', action=argparse.BooleanOptionalAction,
                     help="the camera's noise. Default: wherever there is less light")
    sub.add_argument('--jpeg', action='store_true', help='save the dark pictures as JPEG once: noise becomes blotches')
    sub.add_argument('--seed', type=natural, default=0, metavar='N', help='default: %(default)s')
    _add_target(sub, 'FOLDER_dark')
    sub = commands.add_parser('overlap', help='test images that a training set holds already',
                              description='List test images that are in a training set: identical, or the same view.')
    sub.set_defaults(work=_overlap)
    for name in ('train', 'test'):
        sub.add_argument(name, metavar=name.upper(), help='folder of images, or manifest.json of a dataset')
    sub.add_argument('--output', metavar='FILE.json', help='also write the list there')


def _add_target(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument('--output', default='datasets', metavar='DIR', help='default: %(default)s')
    parser.add_argument('--name', help=f'name of the dataset. Default: {name}')


def run(args: argparse.Namespace) -> None:
    args.work(args)


def _prepare(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.prepare.layouts import LAYOUTS, Layout, prepare
    if args.layout == 'folder':
        if len(args.source) != 2:
            raise ValueError('data folder: give two folders, that of the low images and that of the normal ones')
        layout = Layout(_plain(args.name), ())
    else:
        layout = LAYOUTS[args.layout]
    prepare(layout, args.source, args.output, getattr(args, 'partial', False), args.lmdb)


def _plain(name: str) -> str:
    if name in ('.', '..') or '/' in name or '\\' in name:
        raise ValueError(f'--name {name}: must be a plain name')
    return name


def _target(args: argparse.Namespace, source: str, suffix: str) -> str:
    name = args.name or f'{osp.basename(osp.abspath(source))}_{suffix}'
    return osp.join(osp.expanduser(args.output), _plain(name))


def _fuse(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.prepare.fuse import fuse
    fuse(args.under, args.over, _target(args, args.under, 'fused'))


def _darken(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.prepare.darken import darken
    if not args.stops and not args.shapes:
        raise ValueError('data darken: neither --stops nor a shape of darkness is given')
    darken(osp.expanduser(args.folder), _target(args, args.folder, 'dark'), args.stops, args.shapes or (), args.noise,
           args.jpeg, args.seed)


def _overlap(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.prepare.overlap import report_overlap
    report_overlap(args.train, args.test, args.output)
