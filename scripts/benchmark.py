"""Performance of this project, measured side by side in one run: python scripts/benchmark.py --help

Ratios are what counts: machines differ, and so does their load. Every figure is a median over paired, alternating
repetitions with its range. On one CPU thread, time is the process's own CPU time, which other processes hardly change.
"""
import argparse
import collections
import copy
import functools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import unittest.mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import benchmark_enhance as enhance  # noqa: E402
from benchmark_enhance import table  # noqa: E402

EPOCHS_200 = 200 * 485  # image passes of the paper's training

# Met when the median of the values is at least, or with at_most at most, what is wanted. None: measured beside.
Target = collections.namedtuple('Target', 'title wanted values at_most', defaults=(False, ))


def toy_options(opt_file, folder, batch_size):
    """Options of a training file with everything written to ``folder``."""
    from lowlight_cyclegan.config import load_options
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


# -------------------------------------------------------------- training step


class TextbookStep:
    """A CycleGAN training step as the paper describes it (Zhu et al., ICCV 2017, sections 3 and 4), with one call of a
    network for each image it is wanted for, in fp32, and every loss read back after each step.

    The discriminators do not learn, and need no gradients of their own, in the generators' half.

    Args:
        model (LowLightCycleGANModel): Gives the networks (copied), the losses and the optimizers' options.
    """

    def __init__(self, model):
        import torch
        from lowlight_cyclegan.models import ImagePool
        self.device = model.device
        self.nets = [plain_copy(model.get_bare_model(net)) for net in model.networks.values()]
        self.gan, self.cycle, self.identity = model.cri_gan, model.cri_cycle, model.cri_identity
        self.pools = ImagePool(50), ImagePool(50)
        self.optimizers = []
        for key, nets in (('optim_g', self.nets[:2]), ('optim_d', self.nets[2:])):
            options = {k: v for k, v in model.opt['train'][key].items() if k not in ('type', 'fused')}
            self.optimizers.append(torch.optim.Adam([p for net in nets for p in net.parameters()], **options))

    def __call__(self, batch):
        """One step on uint8 images ``lq`` and ``gt`` (n, 3, h, w). Returns the losses by name."""
        low, normal = (batch[key].to(self.device).float() / 127.5 - 1 for key in ('lq', 'gt'))
        g, f, d_a, d_b = self.nets
        losses = {}

        self._learn(self.nets[2:], False)
        fake_normal = g(low)
        cycled_low = f(fake_normal)
        fake_low = f(normal)
        cycled_normal = g(fake_low)
        same_normal, same_low = g(normal), f(low)
        losses['l_gan_g'], losses['l_gan_f'] = self.gan(d_b(fake_normal), True), self.gan(d_a(fake_low), True)
        losses['l_cycle'] = self.cycle(cycled_low, low) + self.cycle(cycled_normal, normal)
        losses['l_identity'] = self.identity(same_normal, normal) + self.identity(same_low, low)
        self.optimizers[0].zero_grad()
        sum(losses.values()).backward()
        self.optimizers[0].step()

        self._learn(self.nets[2:], True)
        self.optimizers[1].zero_grad()
        for name, net, pool, real, fake in (('l_d_a', d_a, self.pools[0], low, fake_low),
                                            ('l_d_b', d_b, self.pools[1], normal, fake_normal)):
            fake = pool.query(fake.detach())
            losses[name] = 0.5 * (self.gan(net(real), True, is_disc=True) + self.gan(net(fake), False, is_disc=True))
            losses[name].backward()
        self.optimizers[1].step()
        return {k: v.item() for k, v in losses.items()}

    @staticmethod
    def _learn(nets, whether):
        for net in nets:
            net.requires_grad_(whether)


def plain_copy(net):
    """A copy of a network with PyTorch's own convolutions, laid out as usual."""
    import torch
    net = copy.deepcopy(net).to(memory_format=torch.contiguous_format)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.__class__ = torch.nn.Conv2d
    return net


def quiet():
    """Register the package with BasicSR, whose log of every network built here would be long."""
    import logging

    import lowlight_cyclegan
    lowlight_cyclegan.register()
    logging.getLogger('basicsr').setLevel(logging.ERROR)


def step_model(args, folder, seed=0, train=None, **options):
    """Our model in the benchmark's size, on its device; ``train`` goes into that section of its options."""
    import torch
    quiet()
    from basicsr.models import build_model
    from basicsr.utils import set_random_seed
    opt = toy_options(args.opt, folder, args.batch)
    opt.update(num_gpu=int(args.device == 'cuda'), manual_seed=seed, **options)
    opt['train'].update(train or {})
    opt['train']['identity_opt'] = opt['train'].get('identity_opt') or {'type': 'L1Loss', 'loss_weight': 5}
    for key in ('network_g', 'network_f', 'network_d_a', 'network_d_b'):
        opt[key]['num_feat'] = args.width
        if key in ('network_g', 'network_f'):
            opt[key].update(ema_factor=min(32, max(1, args.width // 2)), num_block=args.blocks)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    set_random_seed(seed)
    return build_model(opt)


def our_step(model):
    """The model's own step as a function of a batch."""
    iteration = 0

    def step(batch):
        nonlocal iteration
        iteration += 1
        model.feed_data(batch)
        model.optimize_parameters(iteration)

    return step


def seconds_of(function, device, threads):
    """Seconds a call takes: wall time; CPU time where that is the same thing without the machine's other work."""
    import torch
    clock = time.process_time if device == 'cpu' and threads == 1 else time.perf_counter
    if device == 'cuda':
        torch.cuda.synchronize()
    begin = clock()
    function()
    if device == 'cuda':
        torch.cuda.synchronize()
    return clock() - begin


def alternate(functions, args):
    """Seconds per call, {name: [repeats]}: all functions in turn, repeatedly, after a round that warms up."""
    warm_up, calls = (10, 10) if args.device == 'cuda' else (1, 1)
    seconds = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(warm_up):
            function()
    for _ in range(args.repeats):
        for name, function in functions.items():
            def several(function=function):
                for _ in range(calls):
                    function()
            seconds[name].append(seconds_of(several, args.device, args.threads) / calls)
    return seconds


def describe(args):
    print(f'{args.opt}, width {args.width}, {args.blocks} blocks, batch {args.batch}, {args.size}x{args.size}, '
          f'{args.device}, {args.threads} thread(s), {args.repeats} paired repetitions')


def step(args):
    """One training step of the model against a textbook CycleGAN step: same networks, same batch.

    Achieved GFLOP/s count the convolutions and products of the textbook step, whichever way they are computed. The
    bound is what bf16 alone could reach: nothing but these operations, at the measured peak of a convolution in bf16.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    with tempfile.TemporaryDirectory() as folder:
        options = {'compile': True} if args.compile else {}
        model = step_model(args, folder, **options, **({'channels_last': True} if args.channels_last else {}))
        describe(args)
        batch = random_batch(args.batch, args.size)
        ours, textbook = our_step(model), TextbookStep(model)
        seconds = alternate({'textbook': lambda: textbook(batch), 'ours': lambda: ours(batch)}, args)
        with FlopCounterMode(display=False) as counter:
            textbook(batch)
    operations = counter.get_total_flops()
    ratio = [a / b for a, b in zip(seconds['textbook'], seconds['ours'])]
    rates = {name: [args.batch / s for s in values] for name, values in seconds.items()}
    achieved = {name: [operations / s / 1e9 for s in values] for name, values in seconds.items()}
    peaks = {dtype: enhance.peaks(dtype, args.repeats, args.device, lambda f: seconds_of(f, args.device, args.threads))
             for dtype in (torch.float32, torch.bfloat16)}
    bf16 = statistics.median(peaks[torch.bfloat16]['convolution'])
    bound = [bf16 / value for value in achieved['textbook']]
    table([('textbook (s per step)', seconds['textbook'], '.3f'), ('ours (s per step)', seconds['ours'], '.3f'),
           ('textbook / ours', ratio, '.2f'), ('textbook (images per second)', rates['textbook'], '.2f'),
           ('ours (images per second)', rates['ours'], '.2f'),
           ('ours: 200 epochs at this size (minutes)', [EPOCHS_200 / r / 60 for r in rates['ours']], '.0f'),
           ('textbook: achieved (GFLOP/s)', achieved['textbook'], '.0f'),
           ('ours: achieved (GFLOP/s)', achieved['ours'], '.0f'),
           *((f'peak of {kind}, {str(dtype)[6:]} (GFLOP/s)', values, '.0f')
             for dtype, kinds in peaks.items() for kind, values in kinds.items()),
           ('textbook / its operations at the peak in bf16', bound, '.2f')])
    wanted = 3 if args.device == 'cuda' else 2
    name = f"training step, {args.device}, {args.blocks} blocks{', compiled' if args.compile else ''}"
    return [Target(f'{name}: textbook / ours', wanted, ratio),
            Target(f'{name}: bound of bf16 without winograd', None, bound)]


LEVERS = {  # title: options with it, and without
    'amp: bf16': ({'amp': 'bf16'}, {'amp': None}),
    'winograd: true': ({'winograd': True}, {'winograd': False}),
    'channels_last: true': ({'channels_last': True}, {'channels_last': False}),
    **{f'train: {key}: true': tuple({'train': {'ema_decay': 0.999, key: on}} for on in (True, False))
       for key in ('merge_g_calls', 'merge_d_calls', 'freeze_d', 'foreach_averaging', 'defer_losses')},
    'train: optim_g, optim_d: fused: true': tuple(
        {'train': {key: {'type': 'Adam', 'lr': 1e-4, 'fused': fused} for key in ('optim_g', 'optim_d')}}
        for fused in (True, False)),
    'compile: true': ({'compile': True}, {'compile': False}),
}


def levers(args):
    """Each switch of the training step: the model without it against the model with it, all others as they are."""
    targets, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        describe(args)
        batch = random_batch(args.batch, args.size)
        for title, both in LEVERS.items():
            if title.startswith('compile') and not args.compile:
                continue
            models = [step_model(args, folder, **options) for options in both]
            steps = {name: functools.partial(our_step(model), batch) for name, model in zip(('on', 'off'), models)}
            seconds = alternate(steps, args)
            gains = [off / on for on, off in zip(seconds['on'], seconds['off'])]
            rows.append((title, gains, '.3f'))
            targets.append(Target(f'switch, gain of the step: {title}', None, gains))
    table(rows)
    return targets


def curve(args):
    """Loss curves of the model and of the textbook step over the same batches, small networks, several seeds.

    Winograd's filtering, which else only wide networks use, is in these too. Means over windows of iterations are
    compared by Welch's t over the seeds: equal curves give |t| > 2.78 (4 degrees of freedom) in one of twenty.
    """
    import torch
    quiet()
    from lowlight_cyclegan.models import winograd
    describe(args)
    print(f'{args.iterations} iterations, {args.seeds} seeds')
    curves = {'textbook': [], 'ours': []}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            with unittest.mock.patch.object(winograd, 'FEWEST_CHANNELS', 1):
                model = step_model(args, folder, seed)
            textbook, ours = TextbookStep(model), our_step(model)
            batches = smooth_batches(seed, args)
            logs = {'textbook': [], 'ours': []}
            for _ in range(args.iterations):
                batch = next(batches)
                logs['textbook'].append(textbook(batch))
                ours(batch)
                logs['ours'].append(model.get_current_log())
        for name, log in logs.items():
            curves[name].append([[float(losses[key]) for losses in log] for key in logs['textbook'][0]])
    names = list(logs['textbook'][0])
    windows = 5
    length = args.iterations // windows * windows
    # (seeds, losses, windows)
    means = {name: torch.tensor(values, dtype=torch.float64)[..., :length].unflatten(2, (windows, -1)).mean(3)
             for name, values in curves.items()}
    a, b = means['textbook'], means['ours']
    error = ((a.var(0) + b.var(0)) / args.seeds).sqrt()
    t = (b.mean(0) - a.mean(0)) / error
    print(f"{'loss, mean over seeds and standard error':<42}" + ''.join(f'{w + 1:>18}' for w in range(windows)))
    for i, name in enumerate(names):
        for label, values in (('textbook', a), ('ours', b)):
            cells = zip(values.mean(0)[i], values.std(0)[i] / args.seeds**0.5)
            print(f"{f'{name} {label}':<42}" + ''.join(f'{f"{m:.4f} +- {s:.4f}":>18}' for m, s in cells))
        print(f"{f'{name} t':<42}" + ''.join(f'{value:>18.2f}' for value in t[i]))
    inside = (t.abs() < 2.78).double().mean().item()
    print(f'{100 * inside:.0f} % of the windows have |t| < 2.78; largest |t| {t.abs().max():.2f}')
    return [Target('loss curves, windows with |t| < 2.78', 0.9, [inside])]


def smooth_batches(seed, args):
    """Endless smooth random images: normal ones bright, low ones dark and noisy."""
    import torch
    from torch.nn import functional as F
    generator = torch.Generator().manual_seed(seed)
    shape = args.batch, 3, args.size, args.size
    while True:
        images = [F.interpolate(torch.rand(args.batch, 3, 6, 6, generator=generator), shape[2:], mode='bicubic')
                  for _ in range(2)]
        low = 0.25 * images[0] + 0.02 * torch.randn(shape, generator=generator)
        yield {key: (255 * image.clamp(0, 1)).to(torch.uint8) for key, image in (('lq', low), ('gt', images[1]))}


# ----------------------------------------------------------------------- data


def data(args):
    """Crops per second from the RAM cache, one thread, and decoding at the start in threads against one by one."""
    import cv2
    import numpy as np
    import torch
    from torch.utils.data import DataLoader
    quiet()
    from lowlight_cyclegan.data import EpochSampler, UnpairedImageDataset
    from lowlight_cyclegan.data.data_util import map_threaded
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        low, high = (os.path.join(args.data or folder, name) for name in ('low', 'high'))
        if not args.data:
            rng = np.random.default_rng(0)
            for path in (low, high):
                os.mkdir(path)
                for i in range(24):
                    coarse = rng.integers(0, 256, (50, 75, 3), dtype=np.uint8)
                    cv2.imwrite(os.path.join(path, f'{i}.png'), cv2.resize(coarse, (600, 400)))
        opt = {'name': 'data', 'phase': 'train', 'dataroot_lq': low, 'dataroot_gt': high, 'gt_size': args.size,
               'io_backend': {'type': 'disk'}, 'use_hflip': True, 'manual_seed': 0, 'batch_size_per_gpu': args.batch}
        dataset = UnpairedImageDataset(opt)
        paths = dataset.low.paths
        decoding = []
        for _ in range(args.repeats):
            begin = time.perf_counter()
            for path in paths:
                dataset.low.read(path)
            one_by_one = time.perf_counter() - begin
            begin = time.perf_counter()
            collections.deque(map_threaded(dataset.low.read, paths), maxlen=0)
            decoding.append(one_by_one / (time.perf_counter() - begin))

        samples = max(len(dataset), 512)
        sampler = EpochSampler(dataset, 1, 0, ratio=-(-samples // len(dataset)))
        loader = DataLoader(dataset, args.batch, sampler=sampler)
        rates = []
        for epoch in range(args.repeats + 1):
            sampler.set_epoch(epoch)
            begin, crops = time.process_time(), 0
            for batch in loader:
                crops += 2 * len(batch['lq'])
            rates.append(crops / (time.process_time() - begin))
    cached = sum(chunk.numel() for images in (dataset.low, dataset.normal) for chunk in images.chunks)
    print(f'{len(dataset)} low and {len(dataset.normal)} normal images, crops of {args.size}x{args.size}, batches of '
          f'{args.batch}, {args.repeats} repetitions; the cache takes {cached / 1e9:.3f} GB')
    table([('crops per second and core, from RAM', rates[1:], '.0f'),
           (f'decoding: one by one / {os.cpu_count()} CPUs', decoding, '.2f')])
    return [Target('crops per second and core, from RAM', 2000, rates[1:])]


# ------------------------------------------------------------------ everything


def everything(args):
    """The targets of training, data, inference and large photos, in one table, a JSON file and a plot."""
    begin = time.perf_counter()
    targets = []
    for line in SHORT:
        print(f'\n## {line}', flush=True)
        options = parse().parse_args(line.split())
        options.device = args.device
        targets += run(options)
    targets += enhance_targets(args.output)
    report(targets, args.output)
    print(f'{(time.perf_counter() - begin) / 60:.1f} minutes')


def enhance_targets(output):
    """Run the benchmarks of inference and large photos and read their files in the folder ``output``."""
    targets = []
    for line in ('inference --networks full', 'large'):
        print(f'\n## {line}', flush=True)
        run(parse().parse_args([*line.split(), '--output', output]))
        name = line.split()[0]
        with open(os.path.join(output, f'{name}.json')) as f:
            results = json.load(f)[name]
        if name == 'inference':
            full = results['targets']['full']
            ratio = [a / b for a, b in full['seconds']]
            targets += [Target('inference, full model, 600x400: eager fp32 / ours', 2, ratio),
                        Target('the same: agreement of the two (dB)', 45, [full['agreement_db']])]
        else:
            values = dict(results)
            targets += [Target('12 megapixels, guided, lite (s)', 3, values['guided: 4000x3000 (s)'], True),
                        Target('the same: peak memory (GB)', 1.5, values['guided: peak of the process (GB)'], True)]
    return targets


SHORT = (  # what a small machine does in some minutes
    'step', 'levers --size 128 --blocks 1 --batch 1', 'curve', 'data')


def report(targets, folder):
    """Print the targets, then what was measured beside them, and write both to ``folder`` as benchmark.json and .png.

    What is beside says why a target is missed: what each attempt gains, and what bounds it.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    width = max(len(target.title) for target in targets)
    print(f"\n{'target':<{width}}  {'wanted':>8}  {'median':>8}  {'min':>8}  {'max':>8}  met")
    rows, beside = [], []
    for title, wanted, values, at_most in sorted(targets, key=lambda target: target.wanted is None):
        row = dict(title=title, wanted=wanted, at_most=at_most, values=list(values), median=statistics.median(values))
        if wanted is None:
            beside.append(row)
            end = ''
        else:
            rows.append(row)
            row['met'] = row['median'] <= wanted if at_most else row['median'] >= wanted
            end = 'yes' if row['met'] else 'NO'
        cells = (row['median'], min(values), max(values))
        wanted = '' if wanted is None else f'{wanted:g}'
        print(f'{title:<{width}}  {wanted:>8}  ' + '  '.join(f'{v:>8.4g}' for v in cells) + f'  {end}'.rstrip())
    os.makedirs(folder, exist_ok=True)
    import torch
    machine = dict(python=platform.python_version(), torch=torch.__version__, cpus=os.cpu_count(),
                   machine=platform.machine())
    with open(os.path.join(folder, 'benchmark.json'), 'w') as f:
        json.dump(dict(machine=machine, targets=rows, beside=beside), f, indent=1)
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.2), layout='constrained')
    ratios = [[v / row['wanted'] for v in row['values']] for row in rows]
    medians = [row['median'] / row['wanted'] for row in rows]
    spread = [[m - min(r) for m, r in zip(medians, ratios)], [max(r) - m for m, r in zip(medians, ratios)]]
    colors = ['C0' if row['met'] else 'C3' for row in rows]
    axes.barh([row['title'] for row in rows], medians, xerr=spread, color=colors)
    axes.axvline(1, color='black', linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel('measured / target')
    figure.savefig(os.path.join(folder, 'benchmark.png'), dpi=120)
    plt.close(figure)


def step_arguments(sub, width, size, batch, blocks, opt='options/train_lol.yml'):
    sub.add_argument('--opt', default=opt, help='training options. Default: %(default)s')
    sub.add_argument('--width', type=int, default=width, help='num_feat of all networks. Default: %(default)s')
    sub.add_argument('--blocks', type=int, default=blocks, help='residual blocks. Default: %(default)s')
    sub.add_argument('--size', type=int, default=size, help='crop in pixels. Default: %(default)s')
    sub.add_argument('--batch', type=int, default=batch, help='images of each domain. Default: %(default)s')
    sub.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='Default: %(default)s')
    sub.add_argument('--threads', type=int, default=1, help='CPU threads. Default: %(default)s')
    sub.add_argument('--repeats', type=int, default=5, help='paired repetitions. Default: %(default)s')


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title='benchmarks', required=True, metavar='NAME')

    def add(name, function):
        sub = commands.add_parser(name, help=function.__doc__.split('\n')[0], description=function.__doc__)
        sub.set_defaults(command=function)
        return sub

    sub = add('all', everything)
    sub.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='Default: %(default)s')
    sub.add_argument('--output', default='results/benchmark', help='folder. Default: %(default)s')
    sub = add('step', step)
    step_arguments(sub, width=64, size=128, batch=1, blocks=9)
    sub.add_argument('--compile', action='store_true', help='ours with compile: true')
    sub.add_argument('--channels-last', action='store_true', help='ours with channels_last: true')
    sub = add('levers', levers)
    step_arguments(sub, width=64, size=64, batch=2, blocks=9)
    sub.add_argument('--compile', action='store_true', help='torch.compile too, which takes minutes')
    sub = add('curve', curve)
    step_arguments(sub, width=8, size=32, batch=2, blocks=1)
    sub.add_argument('--iterations', type=int, default=500, help='Default: %(default)s')
    sub.add_argument('--seeds', type=int, default=3, help='Default: %(default)s')
    sub = add('data', data)
    sub.add_argument('--data', help='folder with low/ and high/. Default: random pictures of 600x400')
    sub.add_argument('--size', type=int, default=256, help='crop in pixels. Default: %(default)s')
    sub.add_argument('--batch', type=int, default=8, help='Default: %(default)s')
    sub.add_argument('--repeats', type=int, default=5, help='Default: %(default)s')
    enhance.add_commands(commands)
    sub = add('scaling', scaling)
    sub.add_argument('--opt', default='options/train_lol_lite.yml', help='training options. Default: %(default)s')
    sub.add_argument('--batch-size', type=int, default=8, help='over all processes. Default: %(default)s')
    sub.add_argument('--size', type=int, default=128, help='crop in pixels. Default: %(default)s')
    sub.add_argument('--seconds', type=float, default=20, help='of each measurement. Default: %(default)s')
    sub.add_argument('--repeats', type=int, default=5, help='paired repetitions. Default: %(default)s')
    sub = add('metrics', metrics)
    sub.add_argument('--data', default='datasets/LOL/eval15', help='folder with low/ and high/. Default: %(default)s')
    sub.add_argument('--threads', type=int, default=1, help='of both sides. Default: %(default)s')
    sub.add_argument('--repeats', type=int, default=5, help='paired repetitions. Default: %(default)s')
    return parser


def run(args):
    import torch
    if getattr(args, 'device', None) == 'auto':
        args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.set_num_threads(getattr(args, 'threads', 1))
    return args.command(args)


def main():
    args = parse().parse_args()
    import torch
    print(f'Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} CPUs, {platform.machine()}')
    run(args)


if __name__ == '__main__':
    sys.exit(main())
