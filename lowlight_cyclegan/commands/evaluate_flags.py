"""Flags of the commands ``data``, ``evaluate`` and ``ablate``. Imports stay light."""
import argparse
import functools


def add_commands(add):
    """Add the commands.

    Args:
        add (Callable[[str, Callable, str], ArgumentParser]): Adds a command by name, function and description.
    """
    _add_data(add('data', None, 'check a downloaded dataset and lay it out, or find what two datasets share'))
    _add_evaluate(add('evaluate', _evaluate, 'compare methods on datasets: one table with figures'))
    _add_ablate(add('ablate', _ablate, 'train the generator without and with EMA and ASPP, and tabulate the four'))


def _add_data(parser):
    commands = parser.add_subparsers(title='datasets', metavar='NAME', required=True)
    for name, source, text in (
        ('lol', 'SOURCE', 'LOL: LOLdataset.zip, or the folder with our485 and eval15'),
        ('lolv2', 'SOURCE', 'LOL-v2-real: the archive or folder with Real_captured'),
        ('lsrw', 'SOURCE', 'LSRW: the archives or folders with Huawei and Nikon; picks 30 test pairs'),
        ('folder', 'FOLDER', 'any two folders: low images, then normal ones of the same names'),
    ):
        sub = commands.add_parser(name, help=text, description=f'{text}. Checks all images, lays them out under '
                                  '--output and writes manifest.json. An interrupted run can be repeated.')
        sub.set_defaults(command=_prepare, layout=name)
        sub.add_argument('source', nargs='+', metavar=source)
        sub.add_argument('--output', default='datasets', metavar='DIR', help='default: %(default)s')
        sub.add_argument('--lmdb', action='store_true', help="also make BasicSR's LMDBs")
        if name == 'folder':
            sub.add_argument('--name', required=True, help='name of the dataset')
        else:
            sub.add_argument('--partial', action='store_true', help='accept other numbers of pairs than published')
    sub = commands.add_parser('overlap', help='test images that a training set holds already',
                              description='List test images that are in a training set: identical, or the same view.')
    sub.set_defaults(command=_overlap)
    for name in ('train', 'test'):
        sub.add_argument(name, metavar=name.upper(), help='folder of images, or manifest.json of a dataset')
    sub.add_argument('--output', metavar='FILE.json', help='also write the list there')


def _add_evaluate(parser):
    parser.add_argument(
        '--method', action='append', required=True, metavar='NAME[=FILE]',
        help='input, gamma, ...; NAME=WEIGHTS of zero_dce, sci, ruas, retinexnet (LABEL=ARCH:WEIGHTS where the label '
        'does not start with it) or of a training run; NAME=FILE.yml, an option file for testing. NAME+flips is the '
        'mean over the four flips of an image, NAME+denoise what is left after denoising. Repeatable')
    parser.add_argument('--data', action='append', required=True, metavar='NAME=LOW:HIGH',
                        help='folders of low images and references. Repeatable')
    parser.add_argument('--baseline', metavar='NAME', help='differences are to this method. Default: the first')
    parser.add_argument('--train-manifest', action='append', default=[], metavar='PATH',
                        help='manifest or folder of a training set: images it shares with the data get a warning and '
                        'rows without them. Repeatable')
    parser.add_argument('--output', default='results/evaluate', metavar='DIR', help='default: %(default)s')
    parser.add_argument('--cache', metavar='DIR', help='what was measured before. Default: OUTPUT/cache')
    parser.add_argument('--device', help='default: cuda where there is one, else cpu')
    protocol = parser.add_argument_group('protocol, printed with the table')
    protocol.add_argument('--color', choices=['rgb', 'y'], default='rgb', help='of PSNR and SSIM. Default: %(default)s')
    protocol.add_argument('--border', type=_natural, default=0, metavar='N', help='pixels left out. Default: 0')
    protocol.add_argument('--rounding', choices=['nearest', 'floor', 'none'], default='nearest',
                          help='of outputs to 8 bits. Default: %(default)s')
    protocol.add_argument('--resize', type=_size, metavar='WxH', help='of inputs and references. Default: off')
    protocol.add_argument('--metrics', choices=['basicsr', 'fast'], default='basicsr',
                          help="BasicSR's numpy code, or batched torch. Default: %(default)s")
    protocol.add_argument('--ssim', choices=['gaussian', 'uniform'], default='gaussian',
                          help="window: BasicSR's 11x11, or 7x7 as in scikit-image. Default: %(default)s")
    protocol.add_argument('--lpips', choices=['alex', 'vgg', 'squeeze', 'none'], default='alex',
                          help='default: %(default)s')
    protocol.add_argument('--lpips-trunk', metavar='FILE', help="torchvision's weights of it. Default: download")
    figures = parser.add_argument_group('figures')
    figures.add_argument('--no-figures', action='store_true', help='tables alone')
    figures.add_argument('--figure-images', nargs='+', metavar='IMAGE', help='rows. Default: three of each dataset')
    figures.add_argument('--crop', type=_natural, nargs=4, metavar=('X', 'Y', 'W', 'H'),
                         help='enlarged. Default: where the reference has most detail')


def _add_ablate(parser):
    parser.add_argument('--opt', required=True, metavar='FILE.yml', help='base option file')
    parser.add_argument('--budget', required=True, metavar='500it|10min', help='of each run')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], metavar='N', help='default: 0')
    parser.add_argument('--output', required=True, metavar='DIR', help='the same one continues')


def _natural(text):
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f'must be a whole number of at least 0, found {text!r}')
    return int(text)


def _size(text):
    width, _, height = text.partition('x')
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'write it as 600x400, found {text!r}')
    return int(width), int(height)


def _interruptible(command):

    @functools.wraps(command)
    def run(args):
        try:
            command(args)
        except KeyboardInterrupt:
            raise SystemExit('Interrupted; the same command continues.') from None

    return run


@_interruptible
def _prepare(args):
    from lowlight_cyclegan.prepare.layouts import LAYOUTS, Layout, prepare
    if args.layout == 'folder':
        if len(args.source) != 2:
            raise SystemExit('data folder: give two folders, that of the low images and that of the normal ones')
        if args.name in ('.', '..') or '/' in args.name or '\\' in args.name:
            raise SystemExit(f'--name {args.name}: must be a plain name')
        layout = Layout(args.name, ())
    else:
        layout = LAYOUTS[args.layout]
    prepare(layout, args.source, args.output, getattr(args, 'partial', False), args.lmdb)


@_interruptible
def _overlap(args):
    from lowlight_cyclegan.prepare.overlap import report_overlap
    report_overlap(args.train, args.test, args.output)


@_interruptible
def _evaluate(args):
    import os

    import lowlight_cyclegan
    lowlight_cyclegan.register()
    from lowlight_cyclegan.evaluate.comparison import compare
    if int(os.environ.get('WORLD_SIZE', 1)) == 1:
        compare(args)
        return
    from torch.distributed import destroy_process_group

    from lowlight_cyclegan.repairs import init_dist
    init_dist('pytorch')
    compare(args)
    destroy_process_group()


@_interruptible
def _ablate(args):
    import lowlight_cyclegan
    lowlight_cyclegan.register()
    from lowlight_cyclegan.training.ablation import ablate
    ablate(args.opt, args.budget, args.seeds, args.output)
