"""The command ``enhance``: photos in files and folders."""
from __future__ import annotations

import argparse

from lowlight_cyclegan.config import DEFAULT_MODEL
from lowlight_cyclegan.messages import fail, first_line
from .arguments import number, part_of_name, path, strength

HELP = 'brighten dark photos: files and folders'
DESCRIPTION = """Brighten dark photos: JPEG, PNG, WebP, AVIF, BMP, TIFF, HEIC, JPEG 2000, PPM, camera RAW.

A file is written beside the input with the suffix. A folder, with its structure, goes to a folder with the suffix, or
to --output; there, a run that was interrupted continues, and enhance_report.json lists every photo with its result. An
input is never overwritten."""
EXIT_CODES = """exit codes:
  0    every photo is enhanced, or was before
  1    a photo failed or was refused, or nothing could begin; the rest is finished
  2    the command line is wrong
  130  interrupted; what is finished stays, and the same command continues in folders"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXIT_CODES
    parser.add_argument('input', nargs='+', metavar='INPUT', help='files and folders')
    parser.add_argument('-o', '--output', type=path, metavar='PATH', help='folder, or for a single file a file name')
    parser.add_argument('--suffix', type=part_of_name, help='added to names. Default: _enhanced, with --output none')
    parser.add_argument('--format', choices=['jpg', 'png', 'webp', 'bmp', 'tiff'],
                        help="of the outputs. Default: the input's; JPEG for HEIC, AVIF and RAW, PNG for others and "
                        'where a photo is transparent')
    parser.add_argument('--quality', type=number(1, 100, int), metavar='1-100',
                        help='of JPEG and WebP; 100 is lossless in WebP. Default: 95')
    parser.add_argument('--overwrite', action='store_true', help='replace files that no earlier run wrote')
    parser.add_argument('--max-megapixels', type=number(1e-6, 1e6), default=200, metavar='N',
                        help='larger photos are refused. Default: %(default)s')
    parser.add_argument('--json', action='store_true', help='print a report for programs instead of lines')
    network = parser.add_argument_group('network')
    network.add_argument('--model', default=DEFAULT_MODEL, help='name of packaged weights, file or folder. Default: '
                         '%(default)s')
    network.add_argument('--options', metavar='FILE.yml', help='option file of weights that do not say what they hold')
    network.add_argument('--strength', type=number(0, 2), default=1.0, metavar='0-2',
                         help='0 leaves the photo, 1 is the network, more exaggerates. Default: %(default)s')
    network.add_argument('--mode', choices=['auto', 'direct', 'exact', 'guided'], default='auto',
                         help='of large photos: in one piece, in tiles with the same result, or the effect of a '
                         'reduced copy. Default: by size and memory')
    network.add_argument('--self-ensemble', action='store_true',
                         help='mean over the four flips of a photo: a little better, four times slower')
    network.add_argument('--denoise', type=strength, default=0.0, metavar='0-1',
                         help='how far to smooth the noise that is left, and fine texture with it. Default: 0')
    network.add_argument('--device', help='default: cuda where there is one, else cpu')
    network.add_argument('--precision', choices=['auto', 'fp32', 'bf16'], default='auto', help='default: by device')


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.enhance.inference import keep_freed_memory
    from lowlight_cyclegan.photos.batch import enhance_photos
    keep_freed_memory()
    try:
        report = enhance_photos(
            args.input, args.output, args.suffix, args.format, args.quality, args.overwrite,
            round(args.max_megapixels * 1e6), model=args.model, options=args.options, device=args.device,
            precision=args.precision, mode=args.mode, strength=args.strength, self_ensemble=args.self_ensemble,
            denoise=args.denoise, as_json=args.json)
    except (ValueError, OSError) as error:
        fail(first_line(error))
    if report.exit_code:
        raise SystemExit(report.exit_code)
