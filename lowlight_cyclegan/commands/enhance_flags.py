"""Flags of the commands ``enhance``, ``video``, ``web`` and ``export``. Imports stay light."""
import argparse
import sys
from importlib import import_module

MODULES = {
    'folder': 'lowlight_cyclegan.photos.folder', 'video': 'lowlight_cyclegan.video.video',
    'web': 'lowlight_cyclegan.web.server', 'export': 'lowlight_cyclegan.enhance.export'}
EXIT_CODES = """exit codes:
  0    every photo is enhanced, or was before
  1    a photo failed or was refused, or nothing could begin; the rest is finished
  2    the command line is wrong
  130  interrupted; what is finished stays, and the same command continues in folders"""


def add_commands(add, complete=False):
    """Add the commands.

    Args:
        add (Callable[[str, Callable, str], ArgumentParser]): Adds a command by name, function and description.
        complete (bool): Add the flags of video, web and export now, which loads their modules. Default: False.
    """
    _add_enhance(add('enhance', _run('folder'), 'brighten dark photos: files and folders'))
    for name, text in (('video', 'brighten a dark video, with its sound'),
                       ('web', 'brighten photos in the browser: serves a page'),
                       ('export', 'write a generator as ONNX or torch.export')):
        parser = add(name, _run(name), text)
        (_fill if complete else _fill_when_used)(parser, name)


def _run(module):

    def command(args):
        try:
            import_module(MODULES[module]).run(args)
        except KeyboardInterrupt:
            print('Interrupted.', file=sys.stderr)
            raise SystemExit(130) from None

    return command


def _fill(parser, module):
    import_module(MODULES[module]).add_arguments(parser)


def _fill_when_used(parser, module):
    """Let a module, whose imports are heavy, add its flags to its parser when that is about to parse."""
    parse = parser.parse_known_args

    def parse_known_args(*args, **kwargs):
        parser.parse_known_args = parse
        _fill(parser, module)
        return parse(*args, **kwargs)

    parser.parse_known_args = parse_known_args


def _add_enhance(parser):
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Brighten dark photos: JPEG, PNG, WebP, BMP, TIFF, HEIC, camera RAW.

A file is written beside the input with the suffix. A folder, with its structure, goes to a folder with the suffix, or
to --output; there, a run that was interrupted continues, and enhance_report.json lists every photo with its result. An
input is never overwritten."""
    parser.epilog = EXIT_CODES
    parser.add_argument('input', nargs='+', metavar='INPUT', help='files and folders')
    parser.add_argument('-o', '--output', type=_path, metavar='PATH', help='folder, or for a single file a file name')
    parser.add_argument('--suffix', type=_name, help='added to names. Default: _enhanced, with --output none')
    parser.add_argument('--format', choices=['jpg', 'png', 'webp', 'bmp', 'tiff'],
                        help="of the outputs. Default: the input's; JPEG for HEIC and RAW, PNG for GIF")
    parser.add_argument('--quality', type=_quality, metavar='1-100',
                        help='of JPEG and WebP; 100 is lossless in WebP. Default: 95')
    parser.add_argument('--overwrite', action='store_true', help='replace files that no earlier run wrote')
    parser.add_argument('--max-megapixels', type=_positive, default=200, metavar='N',
                        help='larger photos are refused. Default: %(default)s')
    parser.add_argument('--json', action='store_true', help='print a report for programs instead of lines')
    network = parser.add_argument_group('network')
    network.add_argument('--model', default='lite', help='name of packaged weights, file or folder. Default: '
                         '%(default)s')
    network.add_argument('--options', metavar='FILE.yml', help='option file of weights that do not say what they hold')
    network.add_argument('--strength', type=_strength, default=1.0, metavar='0-1',
                         help='0 leaves the photo, 1 is the network. Default: %(default)s')
    network.add_argument('--mode', choices=['auto', 'direct', 'exact', 'guided'], default='auto',
                         help='of large photos: in one piece, in tiles with the same result, or the effect of a '
                         'reduced copy. Default: by size and memory')
    network.add_argument('--self-ensemble', action='store_true',
                         help='mean over the four flips of a photo: a little better, four times slower')
    network.add_argument('--denoise', type=_strength, default=0.0, metavar='0-1',
                         help='how far to smooth the noise that is left, and fine texture with it. Default: 0')
    network.add_argument('--device', help='default: cuda where there is one, else cpu')
    network.add_argument('--precision', choices=['auto', 'fp32', 'bf16'], default='auto', help='default: by device')


def _number(text, low, high, kind=float):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise argparse.ArgumentTypeError(f'must be a number from {low:g} to {high:g}, found {text!r}')
    return value


def _strength(text):
    return _number(text, 0, 1)


def _quality(text):
    return _number(text, 1, 100, int)


def _positive(text):
    return _number(text, 1e-6, 1e6)


def _path(text):
    if not text:
        raise argparse.ArgumentTypeError('must not be empty')
    return text


def _name(text):
    if '/' in text or '\\' in text or '\0' in text:
        raise argparse.ArgumentTypeError(f'must be part of a name, found {text!r}')
    return text
