"""Train as well as a time budget allows: measures the speed first and lets the schedule end inside the budget.

    python scripts/train_within.py 25 -opt options/train_lol.yml [--force_yml section:key=value ...]

The learning rate reaches zero at the last iteration. Where the estimate was too high, the run is asked to save and end
when the time is up. The averaged weights of each checkpoint are written as fp16 safetensors beside the run, in place of
those before them, so that there are some to use whatever happens.
"""
import argparse
import os
import re
import signal
import subprocess
import sys
import time
from copy import deepcopy
from os import path as osp

from lowlight_cyclegan import preflight, register
from lowlight_cyclegan.config import find_file, force_option, load_options, options_dir
from lowlight_cyclegan.repairs import complete_options
from lowlight_cyclegan.enhance.pretrained import load_pretrained, save_pretrained
from lowlight_cyclegan.training.ablation import iterations_within
from lowlight_cyclegan.messages import fail

TRAINING_SHARE = 0.85  # of the budget; validations, checkpoints and decoding take the rest
LAST_WORDS = 20  # seconds to save in, at the end of the budget
EXPORT_EVERY = 10  # seconds between looks for a new checkpoint


def main():
    parser = argparse.ArgumentParser(
        description='Train within a time budget.', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    parser.add_argument('minutes', type=float, help='budget, everything included')
    parser.add_argument('-opt', required=True, metavar='FILE.yml')
    parser.add_argument('--force_yml', nargs='+', default=[], metavar='KEY=VALUE')
    parser.set_defaults(launcher='none')
    args = parser.parse_args()
    begin = time.monotonic()
    if not 3 * LAST_WORDS < args.minutes * 60 < float('inf'):
        fail(f'{args.minutes:g} minutes: give more than {3 * LAST_WORDS // 60}')
    args.opt = find_file(args.opt, [options_dir()])
    opt = load_options(args.opt)
    for entry in args.force_yml:
        force_option(opt, entry)
    register()
    complete_options(opt, args)
    preflight.check(opt, is_train=True)
    folder = osp.join('experiments', opt['name'])
    if osp.exists(folder):
        fail(f'{folder}: exists; move it away or give another name with --force_yml name=NAME')

    count = iterations_within(deepcopy(opt), args.minutes * TRAINING_SHARE)
    left = max(0.1, 1 - (time.monotonic() - begin) / 60 / args.minutes)  # the measuring took its time
    count, minutes = max(1, int(count * left)), args.minutes * TRAINING_SHARE * left
    batch = opt['datasets']['train']['batch_size_per_gpu']
    print(f'{count * batch / minutes / 60:.1f} images a second: {count} iterations of batch {batch} in {minutes:.1f} '
          'minutes', flush=True)
    every = max(1, count // 5)
    forced = [*args.force_yml, f'train:total_iter={count}', f'val:val_freq={every}',
              f'logger:save_checkpoint_freq={every}']
    run = subprocess.Popen([sys.executable, '-m', 'lowlight_cyclegan.train', '-opt', args.opt, '--force_yml', *forced])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's to answer
    signal.signal(signal.SIGTERM, lambda *_: run.terminate())
    end = begin + args.minutes * 60 - LAST_WORDS
    code, expected, written = None, 0, None
    while code is None:
        try:
            code = run.wait(min(max(1, end - time.monotonic()), EXPORT_EVERY))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= end:
                print('The time is up: saving.', flush=True)
                run.terminate()
                code, expected = run.wait(), 128 + signal.SIGTERM
        weights = _newest(osp.join(folder, 'models'))
        if weights != written:
            path = osp.join(folder, f'{opt["name"]}.safetensors')
            network, options, _ = load_pretrained(weights, opt['network_g'])
            save_pretrained(f'{path}.part.safetensors', network, options)
            os.replace(f'{path}.part.safetensors', path)
            written = weights
    if written is None:
        raise SystemExit(code or f'{folder}: holds no weights')
    print(f'{written}, averaged, as fp16: {path} ({osp.getsize(path) / 1e6:.1f} MB), after '
          f'{(time.monotonic() - begin) / 60:.1f} minutes')
    if code not in (0, expected):  # the run has said why; what it had saved is kept all the same
        raise SystemExit(code)


def _newest(folder):
    """The last checkpoint of G, by name alone: older ones may be going while we look."""
    names = os.listdir(folder) if osp.isdir(folder) else []
    names = [name for name in names if re.fullmatch(r'net_g_(\d+|latest)\.pth', name)]
    return max((osp.join(folder, name) for name in names), key=_iteration, default=None)


def _iteration(path):
    number = path.rsplit('_', 1)[1].removesuffix('.pth')
    return float('inf') if number == 'latest' else int(number)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
