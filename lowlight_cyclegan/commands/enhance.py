"""The command ``enhance``: photos in files and folders."""
from __future__ import annotations

import argparse

from .arguments import add_network, number, part_of_name, path

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
    from lowlight_cyclegan.photos.formats import FORMATS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXIT_CODES
    parser.add_argument('input', nargs='+', metavar='INPUT', help='files and folders')
    parser.add_argument('-o', '--output', type=path, metavar='PATH', help='folder, or for a single file a file name')
    parser.add_argument('--suffix', type=part_of_name, help='added to names. Default: _enhanced, with --output none')
    parser.add_argument('--format', choices=list(FORMATS),
                        help="of the outputs. Default: the input's; JPEG for HEIC, AVIF and RAW, PNG for others and "
                        'where a photo is transparent')
    parser.add_argument('--quality', type=number(1, 100, int), metavar='1-100',
                        help='of JPEG and WebP; 100 is lossless in WebP. Default: 95')
    parser.add_argument('--overwrite', action='store_true', help='replace files that no earlier run wrote')
    parser.add_argument('--max-megapixels', type=number(1e-6, 1e6), default=200, metavar='N',
                        help='larger photos are refused. Default: %(default)s')
    parser.add_argument('--json', action='store_true', help='print a report for programs instead of lines')
    network = parser.add_argument_group('network')
    add_network(network)
    network.add_argument('--strength', type=number(0, 2), default=1.0, metavar='0-2',
                         help='0 leaves the photo, 1 is the network, more exaggerates. Default: %(default)s')
    network.add_argument('--self-ensemble', action='store_true',
                         help='mean over the four flips of a photo: a little better, four times slower')
    network.add_argument('--denoise', type=number(0, 1), default=0.0, metavar='0-1',
                         help='how far to smooth the noise that is left, and fine texture with it. Default: 0')


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.enhance.inference import keep_freed_memory
    from lowlight_cyclegan.photos.batch import enhance_photos
    keep_freed_memory()
    report = enhance_photos(
        args.input, args.output, args.suffix, args.format, args.quality, args.overwrite,
        round(args.max_megapixels * 1e6), model=args.model, options=args.options, device=args.device,
        precision=args.precision, mode=args.mode, strength=args.strength, self_ensemble=args.self_ensemble,
        denoise=args.denoise, as_json=args.json)
    if report.exit_code:
        raise SystemExit(report.exit_code)
