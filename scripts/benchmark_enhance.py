"""Speed and memory of inference: direct, exact and guided, against Zero-DCE and the machine's own peaks.

Every figure is a median over paired repetitions (A, B, A, B, ...) with its range, or a peak of a process of its own.
"""
import argparse
import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

MODES = ('direct', 'exact', 'guided')


def generator(name, precision='fp32', prepare=True):
    """'lite', 'full' (the paper's, random weights) or 'zero_dce' (random weights), ready to run on the CPU."""
    import torch
    from lowlight_cyclegan.archs import EMAResNetGenerator, ZeroDCE
    from lowlight_cyclegan.enhance.inference import prepare_for_inference
    torch.manual_seed(0)
    if name == 'zero_dce':
        net = ZeroDCE()
    elif name == 'full':
        net = EMAResNetGenerator()
    else:
        from lowlight_cyclegan.enhance.pretrained import load_pretrained
        net = load_pretrained(name)[0]
    return prepare_for_inference(net, 'cpu', precision) if prepare else net.eval().requires_grad_(False)


def photo(height, width, n=1):
    """Dark and smooth, (n, 3, height, width) in [-1, 1]."""
    import torch
    coarse = torch.rand(n, 3, 12, 18, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (height, width), mode='bilinear').mul_(0.4).sub_(1)


def runner(net, mode, precision):
    """x -> output in a mode and precision, without gradients."""
    import torch
    from lowlight_cyclegan.enhance.guided import enhance_guided
    from lowlight_cyclegan.enhance.strips import enhance_exact
    call = {'direct': net, 'exact': lambda x: enhance_exact(net, x), 'guided': lambda x: enhance_guided(net, x)}[mode]

    def run(x):
        with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, precision == 'bf16'):
            return call(x)

    return run


def seconds(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def paired(functions, repeats, measure=seconds):
    """Seconds of each function, in turns, after one call to warm up: [[a, b, ...] per repetition]."""
    for function in functions:
        function()
    return [[measure(function) for function in functions] for _ in range(repeats)]


def inference(args):
    """Eager fp32 against what the Enhancer runs (bf16, memory kept), 600x400, and the share of the machine's peak."""
    import math
    import torch
    x, rows, targets = photo(400, 600), [], {}
    for name in args.networks:
        plain = generator(name, prepare=False)
        outputs = [runner(plain, 'direct', 'fp32')(x), runner(generator(name, 'bf16'), 'direct', 'bf16')(x)]
        agreement = -10 * math.log10((outputs[0] - outputs[1].float()).square().mean().item() / 4)
        # A process of its own each: what the Enhancer sets up for the whole process would help eager, too.
        with Worker(name, 'fp32', False, args.threads) as eager, Worker(name, 'bf16', True, args.threads) as ours:
            for process in (eager, ours):
                process.run(400, 600)
            times = [[process.run(400, 600)[0] for process in (eager, ours)] for _ in range(args.repeats)]
        ratio = [a / b for a, b in times]
        operations = flops(plain, x)
        rows += [(f'{name}: eager fp32 (s)', [a for a, _ in times], '.3f'),
                 (f'{name}: bf16 as the Enhancer runs it (s)', [b for _, b in times], '.3f'),
                 (f'{name}: eager fp32 / bf16', ratio, '.2f'),
                 (f'{name}: agreement of the two (dB)', [agreement], '.1f'),
                 (f'{name}: achieved, eager fp32 (GFLOP/s)', [operations / a / 1e9 for a, _ in times], '.0f'),
                 (f'{name}: achieved, bf16 (GFLOP/s)', [operations / b / 1e9 for _, b in times], '.0f')]
        targets[name] = {'seconds': times, 'ratio': statistics.median(ratio), 'agreement_db': agreement}
    for dtype in (torch.float32, torch.bfloat16):
        for kind, value in peaks(dtype, args.repeats).items():
            rows.append((f'peak of {kind}, {str(dtype)[6:]} (GFLOP/s)', value, '.0f'))
    table(rows)
    save(args, 'inference', {'rows': [(title, values) for title, values, _ in rows], 'targets': targets})


def flops(net, x):
    """Floating point operations of the convolutions and products of one call."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x)
    return counter.get_total_flops()


def peaks(dtype, repeats, device='cpu', measure=None):
    """GFLOP/s of a 2048 matrix product and of a 3x3 convolution with 256 channels, the best that PyTorch does here.

    ``measure`` gives the seconds that a function takes, by default of the wall clock.
    """
    import torch
    a = torch.randn(2048, 2048).to(device, dtype)
    conv = torch.nn.Conv2d(256, 256, 3, padding=1).to(device, dtype)
    x = torch.randn(1, 256, 100, 150).to(device, dtype)
    work = {'matmul': (lambda: a @ a, 2 * 2048**3), 'convolution': (lambda: conv(x), 2 * 9 * 256**2 * 15000)}
    with torch.no_grad():
        return {kind: [operations / t / 1e9 for t, in paired([function], repeats, measure or seconds)]
                for kind, (function, operations) in work.items()}


class Worker:
    """A process that runs one network again and again: allocators and peaks of memory are its own."""

    def __init__(self, name, precision, prepare, threads, mode='direct'):
        command = [sys.executable, os.path.abspath(__file__), '_worker', name, precision, str(int(prepare)), mode]
        environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.base = self._ask('32 32 1')['peak']

    def _ask(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise MemoryError(f'{line}: the process ended with {self.process.wait()}')
        return json.loads(answer)

    def run(self, height, width, n=1):
        """Seconds and peak memory beyond a tiny image's, in bytes, of n images."""
        answer = self._ask(f'{height} {width} {n}')
        return answer['seconds'], answer['peak'] - self.base

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait()


def worker(name, precision, prepare, mode):
    import torch
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    run = runner(generator(name, precision, prepare == '1'), mode, precision)
    x = None
    for line in sys.stdin:
        height, width, n = map(int, line.split())
        if x is None or x.shape != (n, 3, height, width):
            x = photo(height, width, n)
        elapsed = seconds(functools.partial(run, x))
        print(json.dumps({'seconds': elapsed, 'peak': peak_memory()}), flush=True)


def peak_memory():
    """Largest resident memory of this process so far, in bytes."""
    try:  # Not ru_maxrss, which on Linux begins with the memory of the process that started this one.
        with open('/proc/self/status') as f:
            return next(int(line.split()[1]) for line in f if line.startswith('VmHWM')) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def large(args):
    """A photo of 12 megapixels with lite: seconds and peak memory of the whole process."""
    rows = []
    for mode in args.modes:
        with Worker('lite', args.precision, True, args.threads, mode) as process:
            process.run(3000, 4000)
            results = [process.run(3000, 4000) for _ in range(args.repeats if mode == 'guided' else 1)]
            rows += [(f'{mode}: 4000x3000 (s)', [s for s, _ in results], '.2f'),
                     (f'{mode}: peak of the process (GB)', [(peak + process.base) / 1e9 for _, peak in results], '.2f'),
                     (f'{mode}: without Python, libraries, weights (GB)', [peak / 1e9 for _, peak in results], '.2f')]
    table(rows)
    save(args, 'large', [(title, values) for title, values, _ in rows])


def growth(args):
    """Time and peak memory against megapixels and batch size for each mode, and for Zero-DCE at full resolution."""
    curves = {}
    for name, mode in [*((n, m) for n in args.networks for m in MODES), ('zero_dce', 'direct')]:
        points, begin = [], time.perf_counter()
        # One process for a curve: sizes rise, so its peak is the last size's.
        with Worker(name, args.precision, True, args.threads, mode) as process:
            for megapixels in sorted(args.megapixels):
                height = round((megapixels * 1e6 / 1.5)**0.5 / 4) * 4
                width = round(height * 1.5)
                grows = megapixels / points[-1]['megapixels'] if points and mode != 'guided' else 1
                # A point that would break a limit, going by the one before it, is left out.
                if points and (time.perf_counter() - begin + points[-1]['seconds'] * grows > args.seconds
                               or points[-1]['bytes'] * grows > args.max_memory * 1e9):
                    break
                elapsed, peak = process.run(height, width)
                points.append({'megapixels': height * width / 1e6, 'seconds': elapsed, 'bytes': peak, 'batch': 1})
                print(f'{name:>9} {mode:>7} {height * width / 1e6:7.2f} MP  {elapsed:8.3f} s  {peak / 1e6:8.0f} MB',
                      flush=True)
        curves[f'{name}, {mode}'] = points
    for n in args.batches:
        with Worker('lite', args.precision, True, args.threads) as process:
            process.run(200, 300, n)
            elapsed, peak = process.run(200, 300, n)
        curves.setdefault('lite, direct, batches of 300x200', []).append(
            {'megapixels': 0.06 * n, 'seconds': elapsed, 'bytes': peak, 'batch': n})
        print(f'     lite  direct batch {n:<3} of 300x200  {elapsed:8.3f} s  {peak / 1e6:8.0f} MB', flush=True)
    save(args, 'growth', curves)
    plot(curves, os.path.join(args.output, 'growth.png'))


def plot(curves, path):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout='constrained')
    for label, points in curves.items():
        for axis, key, scale in ((axes[0], 'seconds', 1), (axes[1], 'bytes', 1e6)):
            x, y = [p['megapixels'] for p in points], [p[key] / scale for p in points]
            axis.plot(x, y, marker='o', ms=3, label=label)
    for axis, label in zip(axes, ('seconds', 'peak memory beyond the libraries (MB)')):
        axis.set(xscale='log', yscale='log', xlabel='megapixels', ylabel=label)
        axis.grid(True, which='both', alpha=0.2)
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    print(path)


def save(args, name, results):
    import torch
    os.makedirs(args.output, exist_ok=True)
    machine = {'python': platform.python_version(), 'torch': torch.__version__, 'cpus': os.cpu_count(),
               'threads': args.threads, 'machine': platform.machine()}
    path = os.path.join(args.output, f'{name}.json')
    with open(path, 'w') as f:
        json.dump({'machine': machine, name: results}, f, indent=1)
    print(path)


def table(rows):
    """Print rows of (title, values, format) as median and range."""
    width = max(len(title) for title, _, _ in rows)
    print(f"{'':<{width}}  {'median':>9}  {'min':>9}  {'max':>9}")
    for title, values, fmt in rows:
        cells = (statistics.median(values), min(values), max(values))
        print(f'{title:<{width}}  ' + '  '.join(f'{cell:>9{fmt}}' for cell in cells))


def add_commands(commands):
    """Register inference, large and growth among the subparsers ``commands``."""
    parsers = {}
    for function in (inference, large, growth):
        sub = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(command=function)
        sub.add_argument('--threads', type=int, default=os.cpu_count(), help='CPU threads. Default: all')
        sub.add_argument('--output', default='results/benchmark', help='folder. Default: %(default)s')
        parsers[function.__name__] = sub
    for name in ('inference', 'large'):
        parsers[name].add_argument('--repeats', type=int, default=5, help='paired repetitions. Default: %(default)s')
    for name, default in (('inference', ['lite', 'full']), ('growth', ['lite'])):
        parsers[name].add_argument(
            '--networks', nargs='+', choices=('lite', 'full'), default=default, help='Default: %(default)s')
    for name in ('large', 'growth'):
        parsers[name].add_argument(
            '--precision', choices=('fp32', 'bf16'), default='bf16', help='Default: %(default)s')
    parsers['large'].add_argument(
        '--modes', nargs='+', choices=('guided', 'exact'), default=['guided'], help='Default: %(default)s')
    sub = parsers['growth']
    sub.add_argument('--megapixels', type=float, nargs='+', default=[0.06, 0.24, 1, 3, 6, 12, 24])
    sub.add_argument('--batches', type=int, nargs='*', default=[1, 2, 4, 8, 16], help='Default: %(default)s')
    sub.add_argument('--seconds', type=float, default=45, help='about, of a curve. Default: %(default)s')
    sub.add_argument('--max-memory', type=float, default=6, help='GB of a measurement. Default: %(default)s')


def main():
    if sys.argv[1:2] == ['_worker']:
        return worker(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_commands(parser.add_subparsers(title='benchmarks', required=True, metavar='NAME'))
    args = parser.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    print(f'Python {platform.python_version()}, torch {torch.__version__}, {args.threads} threads of {os.cpu_count()}')
    args.command(args)


if __name__ == '__main__':
    sys.exit(main())
