"""The command ``video``."""
from __future__ import annotations

import argparse
from os import path as osp

from lowlight_cyclegan.messages import fail, first_line
from lowlight_cyclegan.video.codecs import CODECS, CONTAINERS
from .arguments import add_network, path

HELP = 'brighten a dark video, with its sound'
INTERRUPTED = 'Interrupted; the same command continues.'
NEEDS = 'video needs PyAV 18 or newer, and with it Python 3.11: pip install "lowlight_cyclegan[video]"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('input', metavar='INPUT',
                        help='video in any container that FFmpeg reads, or an animated WebP, PNG or GIF')
    parser.add_argument('-o', '--output', type=path, metavar='OUTPUT', help='its suffix gives the container (.mkv '
                        'takes every sound and subtitle format). Default: INPUT with _enhanced before the suffix, '
                        'which is .mkv where that of INPUT is none of ' + ', '.join(CONTAINERS))
    add_network(parser)
    parser.add_argument('--strength', type=float, default=1.0, metavar='0..2', help='0 leaves the video. Default: 1')
    parser.add_argument('--smoothing', type=float, default=1.0, metavar='SECONDS',
                        help='over which brightness adapts within a scene; 0: every frame for itself. Default: 1')
    parser.add_argument('--codec', choices=list(CODECS), help='default: vp9 in .webm, else h264; ffv1 is lossless')
    parser.add_argument('--crf', '--quality', type=int, metavar='N',
                        help='constant rate factor, lower is better. Default: '
                        + ', '.join(f'{codec.crf} for {name}' for name, codec in CODECS.items() if codec.crf))
    parser.add_argument('--skip-damaged', action='store_true', help='go on where the video is damaged or truncated, '
                        'without what cannot be decoded')
    parser.add_argument('--overwrite', action='store_true', help='replace OUTPUT, and start anew where a run with '
                        'other settings was interrupted')


def run(args: argparse.Namespace) -> None:
    try:
        import av
    except ImportError:
        fail(NEEDS)
    if int(av.__version__.split('.')[0]) < 18:
        fail(f'{NEEDS} (found {av.__version__})')
    from lowlight_cyclegan.enhance.inference import keep_freed_memory
    from lowlight_cyclegan.video.pipeline import check_paths, enhance_video
    keep_freed_memory()
    stem, suffix = osp.splitext(args.input)
    output = args.output or f'{stem}_enhanced{suffix if suffix.lower() in CONTAINERS else ".mkv"}'
    try:
        check_paths(args.input, output, args.overwrite)
        from lowlight_cyclegan.enhance.enhancer import Enhancer
        enhancer = Enhancer.from_pretrained(
            args.model, args.options, device=args.device, precision=args.precision, mode=args.mode)
        frames = enhance_video(args.input, output, enhancer, args.strength, args.codec, args.crf, args.smoothing,
                               args.overwrite, args.skip_damaged, say=print, progress=True)
    except (av.FFmpegError, OSError, RuntimeError, MemoryError) as error:
        fail(f'{output}: {first_line(error)}; the same command continues')
    print(f'{output}: {frames} frames')
