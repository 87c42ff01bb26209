"""The command ``evaluate``: methods compared on datasets."""
from __future__ import annotations

import argparse

from .arguments import number

HELP = 'compare methods on datasets: one table with figures'
INTERRUPTED = 'Interrupted; the same command continues.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--method', action='append', required=True, metavar='NAME[=FILE]',
        help='input; a rule (gamma, gain, gain+fusion); bundled weights; NAME=WEIGHTS of zero_dce, sci, '
        'ruas, retinexnet, pairlie, iat, psenet (LABEL=ARCH:WEIGHTS where the label does not start with it) or of a '
        'training run. NAME+flips is the mean over the four flips of an '
        'image, NAME+denoise what is left after denoising. Repeatable')
    parser.add_argument('--data', action='append', required=True, metavar='NAME=LOW:HIGH',
                        help='folders of low images and references; NAME=FOLDER of one that holds the two, as data '
                        'lays them out, or of images without references. Repeatable')
    parser.add_argument('--baseline', metavar='NAME', help='differences are to this method. Default: the first')
    parser.add_argument('--train-manifest', action='append', default=[], metavar='PATH',
                        help='manifest or folder of a training set: images it shares with the data get a warning and '
                        'rows without them. Repeatable')
    parser.add_argument('--output', default='results/evaluate', metavar='DIR', help='default: %(default)s')
    parser.add_argument('--cache', metavar='DIR', help='what was measured before. Default: OUTPUT/cache')
    parser.add_argument('--device', help='default: cuda where there is one, else cpu')
    protocol = parser.add_argument_group('protocol, printed with the table')
    protocol.add_argument('--ssim', choices=['gaussian', 'uniform'], default='gaussian',
                          help="window: BasicSR's 11x11, or 7x7 as in scikit-image. Default: %(default)s")
    protocol.add_argument('--lpips', choices=['alex', 'vgg', 'squeeze', 'none'], default='alex',
                          help='default: %(default)s')
    protocol.add_argument('--psnr-cap', type=number(1, 200), metavar='DB', help='most that an image counts')
    protocol.add_argument('--metric', action='append', default=[], metavar='NAME',
                          help='another metric, by its name in pyiqa, for example musiq. Repeatable')
    protocol.add_argument('--lpips-trunk', metavar='FILE', help="torchvision's weights of it. Default: download")
    parser.add_argument('--no-figures', action='store_true', help='tables alone')


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.evaluate.comparison import compare
    from lowlight_cyclegan.evaluate.protocol import Protocol
    protocol = Protocol(args.ssim, args.lpips, args.lpips_trunk, args.psnr_cap, tuple(args.metric))
    compare(args.method, args.data, args.output, protocol, args.baseline, args.train_manifest, args.cache, args.device,
            not args.no_figures)
