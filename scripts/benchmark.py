"""Performance of this project, measured side by side in one run: python scripts/benchmark.py --help

Ratios are what counts: machines differ, and so does their load. Every figure is a median over paired repetitions with
its range.
"""
import argparse
import os
import platform
import statistics
import sys
import tempfile
import time


def toy_options(opt_file, folder, batch_size):
    """Options of a training file with everything written to ``folder``."""
    from lowlight_cyclegan.compat import load_options
    opt = load_options(opt_file)
    opt.update(is_train=True, num_gpu=0, dist=False, rank=0, world_size=1, auto_resume=False)
    opt['path'] = dict.fromkeys(('models', 'training_states', 'visualization', 'log'), folder)
    opt['datasets']['train'].update(batch_size_per_gpu=batch_size)
    return opt


def random_batch(n, size):
    import torch
    return {key: torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8) for key in ('lq', 'gt')}


def _training_rate(rank, world_size, threads, opt_file, batch_size, size, seconds, folder):
    """Images per second of one process among ``world_size``; rank 0 writes its own rate and the bookkeeping's share."""
    import logging
    import torch
    import torch.distributed as dist

    import lowlight_cyclegan
    lowlight_cyclegan.register()
    from basicsr.models import build_model
    from basicsr.utils import set_random_seed
    logging.getLogger('basicsr').setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    opt = toy_options(opt_file, folder, batch_size)
    if world_size > 1:
        store = f'file://{folder}/store{world_size}'
        dist.init_process_group('gloo', init_method=store, rank=rank, world_size=world_size)
        opt.update(dist=True, rank=rank, world_size=world_size)
    model = build_model(opt)
    data = random_batch(batch_size, size)

    def step(iteration):
        model.feed_data(data)
        model.optimize_parameters(iteration)

    step(1)
    begin, iterations, bookkeeping = time.perf_counter(), 0, 0.0
    # All ranks take the same number of steps: rank 0 decides.
    while model._any_rank(rank == 0 and time.perf_counter() - begin < seconds):
        iterations += 1
        step(iterations + 1)
        tick = time.perf_counter()
        # what an exactly resumable run does in each iteration beyond training
        set_random_seed(model.seed_of(iterations))
        model._stop_if_asked()
        bookkeeping += time.perf_counter() - tick
    elapsed = time.perf_counter() - begin - bookkeeping
    if rank == 0:
        with open(os.path.join(folder, 'rate'), 'w') as f:
            f.write(f'{iterations * batch_size * world_size / elapsed} {bookkeeping / elapsed}')
    if world_size > 1:
        dist.destroy_process_group()


def scaling(args):
    """Training rate of one process with all threads against two that share them, and the cost of exact resume."""
    import torch.multiprocessing as mp
    threads = max(2, (os.cpu_count() or 2) // 2 * 2)
    print(f'{args.opt}, batch {args.batch_size}, {args.size}x{args.size}, {args.repeats} paired repetitions of '
          f'{args.seconds} s')
    rates, shares = {1: [], 2: []}, {1: [], 2: []}
    for _ in range(args.repeats):
        for processes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(
                    _training_rate, nprocs=processes,
                    args=(processes, threads // processes, args.opt, args.batch_size // processes, args.size,
                          args.seconds, folder))
                with open(os.path.join(folder, 'rate')) as f:
                    rate, share = map(float, f.read().split())
            rates[processes].append(rate)
            shares[processes].append(share)
    efficiency = [b / a for a, b in zip(rates[1], rates[2])]
    table([('images per second, 1 process', rates[1], '.2f'), ('images per second, 2 processes', rates[2], '.2f'),
           ('2 processes / 1 process, same threads', efficiency, '.3f'),
           ('exact-resume bookkeeping, 1 process (%)', [100 * s for s in shares[1]], '.3f'),
           ('exact-resume bookkeeping, 2 processes (%)', [100 * s for s in shares[2]], '.3f')])


def metrics(args):
    """PSNR, SSIM and NIQE: BasicSR's functions against ours in PyTorch, one picture at a time, the same threads."""
    import cv2
    import glob
    import torch

    import lowlight_cyclegan
    lowlight_cyclegan.register()
    from basicsr.utils.registry import METRIC_REGISTRY
    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    files = sorted(glob.glob(os.path.join(args.data, 'low', '*')))
    pairs = [[cv2.imread(f) for f in (file, os.path.join(args.data, 'high', os.path.basename(file)))] for file in files]
    if not pairs or any(img is None for pair in pairs for img in pair):
        raise SystemExit(f'{args.data}: no pairs of pictures in low/ and high/; --data names the folder')
    print(f'{len(pairs)} pairs of {args.data}, {args.threads} thread(s), {args.repeats} paired repetitions')

    rows, totals = [], [[0.0, 0.0] for _ in range(args.repeats)]
    for name in ('psnr', 'ssim', 'niqe'):
        functions = [METRIC_REGISTRY.get(f'calculate_{name}{end}') for end in ('', '_fast')]
        times, difference = [[0.0, 0.0] for _ in range(args.repeats)], 0.0
        for repeat in range(-1, args.repeats):  # the first one warms up
            for low, high in pairs:
                values = []
                for i, function in enumerate(functions):
                    begin = time.perf_counter()
                    values.append(function(high, 0) if name == 'niqe' else function(low, high, 0))
                    if repeat >= 0:
                        elapsed = time.perf_counter() - begin
                        times[repeat][i] += elapsed
                        totals[repeat][i] += elapsed
                difference = max(difference, abs(values[0] - values[1]) / abs(values[0]))
        rows += [(f'{name}: {label} (ms per picture)', [1e3 * t[i] / len(pairs) for t in times], '.2f')
                 for i, label in enumerate(('BasicSR', 'fast'))]
        rows += [(f'{name}: BasicSR / fast', [a / b for a, b in times], '.1f'),
                 (f'{name}: largest relative difference', [difference], '.1e')]
    table([*rows, ('all three: BasicSR / fast', [a / b for a, b in totals], '.1f')])


def table(rows):
    """Print rows of (title, values, format) as median and range."""
    width = max(len(title) for title, _, _ in rows)
    print(f"{'':<{width}}  {'median':>9}  {'min':>9}  {'max':>9}")
    for title, values, fmt in rows:
        cells = (statistics.median(values), min(values), max(values))
        print(f'{title:<{width}}  ' + '  '.join(f'{cell:>9{fmt}}' for cell in cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title='benchmarks', required=True, metavar='NAME')
    sub = commands.add_parser('scaling', help=scaling.__doc__, description=scaling.__doc__)
    sub.set_defaults(command=scaling)
    sub.add_argument('--opt', default='options/train_lol_lite.yml', help='training options. Default: %(default)s')
    sub.add_argument('--batch-size', type=int, default=8, help='over all processes. Default: %(default)s')
    sub.add_argument('--size', type=int, default=128, help='crop in pixels. Default: %(default)s')
    sub.add_argument('--seconds', type=float, default=20, help='of each measurement. Default: %(default)s')
    sub.add_argument('--repeats', type=int, default=5, help='paired repetitions. Default: %(default)s')
    sub = commands.add_parser('metrics', help=metrics.__doc__, description=metrics.__doc__)
    sub.set_defaults(command=metrics)
    sub.add_argument('--data', default='datasets/LOL/eval15', help='folder with low/ and high/. Default: %(default)s')
    sub.add_argument('--threads', type=int, default=1, help='of both sides. Default: %(default)s')
    sub.add_argument('--repeats', type=int, default=5, help='paired repetitions. Default: %(default)s')
    args = parser.parse_args()
    import torch
    print(f'Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} CPUs, {platform.machine()}')
    args.command(args)


if __name__ == '__main__':
    sys.exit(main())
