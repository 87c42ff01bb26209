"""Speed and memory on this machine, everything side by side: python scripts/benchmark.py --help

Ratios are what counts: machines differ, and so does their load. What is compared runs in turns, A, B, A, B, ..., and
each figure is a median with its range. What a command takes is measured around a process of its own.
"""
import argparse
import contextlib
import copy
import json
import os
import platform
import psutil
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------- measuring


def process(command, threads=None, until=None, cwd=None, root=ROOT):
    """Run a command in silence.

    Args:
        command (list[str]): Program and arguments.
        threads (int | None): Value of OMP_NUM_THREADS.
        until (callable | None): Ends the process as soon as it returns true; it is asked a hundred times a second.
        cwd (str | None): Folder to run it in. Python looks for modules there first.
        root (str): Checkout whose package it imports.

    Returns:
        tuple[float, float]: Seconds, and the largest resident memory in MB of those seen a hundred times a second; of
            the process or of one that it started, whichever takes more.

    Raises:
        SystemExit: The command fails.
    """
    environment = {**os.environ, 'PYTHONPATH': str(root)}
    if threads:
        environment['OMP_NUM_THREADS'] = str(threads)
    with tempfile.TemporaryFile() as log:
        begin = time.perf_counter()
        child = psutil.Popen([str(c) for c in command], env=environment, cwd=cwd, stdout=log, stderr=log)
        peak, looks, family = 0, 0, []
        while child.poll() is None:
            with contextlib.suppress(psutil.Error):
                if looks % 25 == 0:  # a look at all processes of the machine takes a while
                    family = [child, *child.children(recursive=True)]
                peak = max(peak, *(member.memory_info().rss for member in family))
            looks += 1
            if until is not None and until():
                elapsed = time.perf_counter() - begin
                child.terminate()
                child.wait()
                return elapsed, peak / 1e6
            time.sleep(0.01)
        elapsed = time.perf_counter() - begin
        if child.returncode:
            log.seek(0)
            raise SystemExit(f'{" ".join(map(str, command))}:\n{log.read().decode()[-2000:]}')
    return elapsed, peak / 1e6


def alternate(functions, repeats):
    """{name: [what each call returned]} of functions called in turns, after a round that warms up."""
    results = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            result = function()
            if repeat:
                results[name].append(result)
    return results


def table(rows):
    """Print rows of (title, values, format) as median and range."""
    width = max(len(title) for title, _, _ in rows)
    print(f'{"":<{width}}  {"median":>9}  {"min":>9}  {"max":>9}')
    for title, values, fmt in rows:
        cells = (statistics.median(values), min(values), max(values))
        print(f'{title:<{width}}  ' + '  '.join(f'{cell:>9{fmt}}' for cell in cells), flush=True)
    return [(title, list(values)) for title, values, _ in rows]


def ratio(a, b):
    return [x / y for x, y in zip(a, b)]


def checkouts(args):
    """What is measured side by side: {what is added to names: root of the checkout}."""
    return {', before': args.before.resolve(), ', after': ROOT} if args.before else {'': ROOT}


def cli(root):
    """Code for ``python -c`` that is the command of the package at ``root``, as its setup.py names it."""
    module, function = re.search(r'lowlight-cyclegan=([\w.]+):(\w+)', (root / 'setup.py').read_text()).groups()
    return f'from {module} import {function} as main; main()'


# ------------------------------------------------------------- training step


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
        self.nets = [copy.deepcopy(model.get_bare_model(net)).to(memory_format=torch.contiguous_format)
                     for net in model.networks.values()]
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


def step_model(args, folder):
    """The model of train_lol.yml in the benchmark's size, writing to ``folder``."""
    import logging
    import torch

    import lowlight_cyclegan
    from lowlight_cyclegan.config import load_options
    lowlight_cyclegan.register()
    from basicsr.models import build_model
    from basicsr.utils import set_random_seed
    logging.getLogger('basicsr').setLevel(logging.ERROR)
    opt = load_options(str(ROOT / 'options' / 'train_lol.yml'))
    opt.update(is_train=True, num_gpu=int(args.device == 'cuda'), dist=False, rank=0, world_size=1, auto_resume=False,
               manual_seed=0)
    opt['path'] = dict.fromkeys(('models', 'training_states', 'visualization', 'log'), folder)
    for key in ('network_g', 'network_f', 'network_d_a', 'network_d_b'):
        opt[key]['num_feat'] = args.width
        if key in ('network_g', 'network_f'):
            opt[key].update(ema_factor=min(32, max(1, args.width // 2)), num_block=args.blocks)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    set_random_seed(0)
    return build_model(opt)


def step(args):
    """A training step of train_lol.yml against a textbook CycleGAN step: same networks, same batch.

    On one CPU thread, time is the process's own CPU time, which other processes hardly change.
    """
    import torch
    if args.device == 'auto':
        args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    clock = time.process_time if args.device == 'cpu' and args.threads == 1 else time.perf_counter
    calls = 10 if args.device == 'cuda' else 1
    with tempfile.TemporaryDirectory() as folder:
        model = step_model(args, folder)
        batch = {key: torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8)
                 for key in ('lq', 'gt')}
        textbook = TextbookStep(model)

        def ours(_):
            model.feed_data(batch)
            model.optimize_parameters(1)

        def seconds(function):
            begin = clock()
            for _ in range(calls):
                function(batch)
            if args.device == 'cuda':
                torch.cuda.synchronize()
            return (clock() - begin) / calls

        found = alternate({'textbook': lambda: seconds(textbook), 'ours': lambda: seconds(ours)}, args.repeats)
    print(f'width {args.width}, {args.blocks} blocks, batch {args.batch}, {args.size}x{args.size}, {args.device}, '
          f'{args.threads} thread(s)')
    return table([('textbook (s per step)', found['textbook'], '.3f'), ('ours (s per step)', found['ours'], '.3f'),
                  ('textbook / ours', ratio(found['textbook'], found['ours']), '.2f')])


# ----------------------------------------------------------------- inference


class Worker:
    """A process that enhances one picture again and again: its allocator and its peak of memory are its own."""

    def __init__(self, model, precision, size, threads):
        command = [sys.executable, __file__, '_worker', model, precision, size]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': str(threads)})

    def __call__(self):
        """Seconds of one picture, and the largest memory of the process so far in MB."""
        self.process.stdin.write('\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f'a worker ended with {self.process.wait()}')
        return tuple(map(float, answer.split()))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait()


def work(model, precision, size):
    """What a worker does, a picture for each line that it reads."""
    from lowlight_cyclegan import Enhancer
    width, height = map(int, size.split('x'))
    enhancer, picture = Enhancer.from_pretrained(model, precision=precision), dark_picture(width, height)
    for _ in sys.stdin:
        begin = time.perf_counter()
        enhancer.enhance(picture)
        elapsed = time.perf_counter() - begin
        print(elapsed, peak_memory() / 1e6, flush=True)


def peak_memory():
    """Largest resident memory of this process so far in bytes; what it has now where the system does not keep that."""
    try:
        return 1024 * int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])
    except OSError:
        return psutil.Process().memory_info().rss


def dark_picture(width, height, seed=0):
    """Smooth, dark and noisy: (height, width, 3) uint8."""
    import cv2
    import numpy as np
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((12, 18, 3), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return (60 * coarse + 4 * rng.random((height, width, 1), dtype=np.float32)).clip(0, 255).astype(np.uint8)


def pictures(args):
    """Seconds and memory of one picture, without the start: each model, precision and size in turns."""
    kinds = [(model, precision, size) for size in args.sizes for model in args.models for precision in ('fp32', 'bf16')]
    with contextlib.ExitStack() as stack:
        workers = {' '.join(kind): stack.enter_context(Worker(*kind, args.threads)) for kind in kinds}
        found = alternate(workers, args.repeats)
    rows = []
    for name, values in found.items():
        rows += [(f'{name} (s)', [s for s, _ in values], '.3f'), (f'{name} (MB)', [m for _, m in values], '.0f')]
    return table(rows)


# ------------------------------------------------------------------ commands


def start(args):
    """Cold start of the commands on a small input, and the memory they take, against ``import torch``."""
    with tempfile.TemporaryDirectory() as folder:
        folder, port = Path(folder), 7999
        write_photos(folder / 'photo', 1, 600, 400)
        write_video(folder / 'clip.mp4', 8, 320, 240)

        def served():
            with contextlib.suppress(urllib.error.URLError, OSError):
                return urllib.request.urlopen(f'http://127.0.0.1:{port}', timeout=1).status == 200

        def measured(arguments, root=ROOT, until=None):
            return lambda: process([sys.executable, '-c', *arguments], args.threads, until, folder, root)

        commands = {
            '--help': ['--help'],
            'info': ['info'],
            'enhance, 600x400': ['enhance', folder / 'photo' / '0.jpg', '-o', folder / 'a.jpg', '--overwrite'],
            'video, 8 frames of 320x240': ['video', folder / 'clip.mp4', '-o', folder / 'b.mp4', '--overwrite'],
            'web, until the page is there': ['web', '--port', port],
            'export': ['export', '-o', folder / 'c.onnx', '--overwrite'],
        }
        functions = {'import torch': measured(['import torch'])}
        for name, arguments in commands.items():
            for suffix, root in checkouts(args).items():
                until = served if name.startswith('web') else None
                functions[name + suffix] = measured([cli(root), *arguments], root, until)
        found = alternate(functions, args.repeats)
    base = [s for s, _ in found['import torch']]
    rows = []
    for name, values in found.items():
        rows.append((f'{name} (s)', [s for s, _ in values], '.2f'))
        if name != 'import torch':
            rows.append((f'{name} / import torch', ratio([s for s, _ in values], base), '.2f'))
        rows.append((f'{name} (MB)', [m for _, m in values], '.0f'))
    return table(rows)


def write_photos(folder, count, width, height):
    """JPEGs 0.jpg, 1.jpg, ..."""
    import cv2
    folder.mkdir()
    for i in range(count):
        cv2.imwrite(str(folder / f'{i}.jpg'), dark_picture(width, height, i), [cv2.IMWRITE_JPEG_QUALITY, 95])


def write_video(path, count, width, height):
    """H.264 at 24 frames a second."""
    import av
    import numpy as np
    picture = dark_picture(width, height)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        for i in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, 2 * i, 1), format='rgb24')))
        container.mux(stream.encode())


COPY_PHOTOS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from lowlight_cyclegan.photos.read import read_image
from lowlight_cyclegan.photos.write import write_image
source, target, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
target.mkdir(exist_ok=True)
def copy(path):
    photo = read_image(path)
    if 'read' not in sys.argv:
        write_image(target / path.name, photo)
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(copy, source.iterdir()))
"""
COPY_VIDEO = """
import av, sys
with av.open(sys.argv[1]) as source, av.open(sys.argv[2], 'w') as target:
    stream = source.streams.video[0]
    stream.thread_type = 'AUTO'
    out = target.add_stream('libx264', rate=stream.average_rate, options={'crf': '18', 'bf': '0'})
    out.width, out.height, out.pix_fmt = stream.width, stream.height, 'yuv420p'
    for frame in source.decode(stream):
        target.mux(out.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format='rgb24'), format='rgb24')))
    target.mux(out.encode())
"""


def further(functions, few, many, repeats):
    """What each item after the first ones takes.

    Args:
        functions (dict[str, callable]): Number of items -> what :func:`process` returns of a run over them.
        few, many (int): Numbers of items, whose difference leaves out the start.
        repeats (int): Rounds.

    Returns:
        dict[str, tuple]: Seconds of each further item, and memory in MB of the run over many.
    """
    found = alternate({(name, count): lambda function=function, count=count: function(count)
                       for name, function in functions.items() for count in (few, many)}, repeats)
    return {name: ([(b - a) / (many - few) for (a, _), (b, _) in zip(found[name, few], found[name, many])],
                   [memory for _, memory in found[name, many]]) for name in functions}


def rates(found, unit, reference):
    """Table of what :func:`further` found: items a second, time in relation to the reference's, memory."""
    rows = []
    for name, (seconds, memory) in found.items():
        rows.append((f'{name} ({unit} a second)', [1 / s for s in seconds], '.2f'))
        if name != reference:
            rows.append((f'{name} / {reference}, time', ratio(seconds, found[reference][0]), '.2f'))
        rows.append((f'{name} (MB)', memory, '.0f'))
    return table(rows)


def folder(args):
    """Photos of 12 megapixels a second of a folder, each after the first two, against decoding and encoding alone;
    and the folder shared out to two processes, which have half of the threads each."""
    with tempfile.TemporaryDirectory() as place:
        place, few, many = Path(place), 2, args.photos
        for count in (few, many):
            write_photos(place / f'{count}', count, 4000, 3000)

        def copied(count, *what):
            return process([sys.executable, '-c', COPY_PHOTOS, place / f'{count}', place / 'copy', args.threads, *what],
                           args.threads, cwd=place)

        def enhanced(count, root, processes):
            shutil.rmtree(place / 'out', ignore_errors=True)
            launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '--no-python',
                        sys.executable] if processes == 2 else []
            return process([sys.executable, *launcher, '-c', cli(root), 'enhance', place / f'{count}', '-o',
                            place / 'out', '--format', 'jpg', *model(args)], args.threads // processes, cwd=place,
                           root=root)

        functions = {'decoding alone': lambda count: copied(count, 'read'), 'decoding and encoding alone': copied}
        for suffix, root in checkouts(args).items():
            for name, processes in (('enhance', 1), ('enhance, two processes', 2)):
                functions[name + suffix] = partial(enhanced, root=root, processes=processes)
        found = further(functions, few, many, args.repeats)
    return rates(found, 'photos', 'decoding and encoding alone')


def model(args):
    return ['--model', args.model] if args.model else []


def video(args):
    """Frames of 1080p video a second, each after the first ones, against decoding and encoding alone."""
    with tempfile.TemporaryDirectory() as place:
        place, few, many = Path(place), 12, args.frames
        for count in (few, many):
            write_video(place / f'{count}.mp4', count, 1920, 1080)

        functions = {'decoding and encoding alone': lambda count: process(
            [sys.executable, '-c', COPY_VIDEO, place / f'{count}.mp4', place / 'copy.mp4'], args.threads, cwd=place)}
        for suffix, root in checkouts(args).items():
            functions['video' + suffix] = lambda count, root=root: process(
                [sys.executable, '-c', cli(root), 'video', place / f'{count}.mp4', '-o', place / 'out.mp4',
                 '--overwrite', *model(args)], args.threads, cwd=place, root=root)
        found = further(functions, few, many, args.repeats)
    return rates(found, 'frames', 'decoding and encoding alone')


def everything(args):
    """All of the others with their defaults."""
    results = {}
    for name in BENCHMARKS:
        if name != 'all':
            print(f'\n## {name}', flush=True)
            results[name] = BENCHMARKS[name](parse([name, '--repeats', str(args.repeats)]))
    return results


BENCHMARKS = {'step': step, 'pictures': pictures, 'start': start, 'folder': folder, 'video': video,
              'all': everything}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title='benchmarks', required=True, metavar='NAME', dest='name')
    subs = {}
    for name, function in BENCHMARKS.items():
        subs[name] = sub = commands.add_parser(name, help=' '.join(function.__doc__.split('\n\n')[0].split()),
                                               description=function.__doc__)
        sub.add_argument('--repeats', type=int, default=5, help='Default: %(default)s')
        sub.add_argument('--threads', type=int, default=1 if name == 'step' else os.cpu_count(),
                         help='CPU threads. Default: %(default)s')
        sub.add_argument('--json', metavar='FILE', help='write the values there, too')
    for flag, value, text in (('width', 64, 'num_feat of all networks'), ('blocks', 9, 'residual blocks'),
                              ('size', 128, 'crop in pixels'), ('batch', 1, 'images of each domain')):
        subs['step'].add_argument(f'--{flag}', type=int, default=value, help=f'{text}. Default: %(default)s')
    subs['step'].add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='Default: %(default)s')
    subs['pictures'].add_argument('--models', nargs='+', default=['lite', 'full'], help='Default: lite full')
    subs['pictures'].add_argument('--sizes', nargs='+', default=['600x400', '4000x3000'],
                                  help='Default: 600x400 4000x3000')
    for name in ('start', 'folder', 'video'):
        subs[name].add_argument('--before', type=Path, metavar='CHECKOUT',
                                help='measure the commands of this one, too, side by side')
    for name in ('folder', 'video'):
        subs[name].add_argument('--model', help='of each command. Default: its own')
    subs['folder'].add_argument('--photos', type=int, default=12, help='Default: %(default)s')
    subs['video'].add_argument('--frames', type=int, default=60, help='Default: %(default)s')
    return parser.parse_args(arguments)


def main():
    if sys.argv[1:2] == ['_worker']:
        return work(*sys.argv[2:])
    args = parse()
    machine = f'Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.machine()}, {args.repeats} repeats'
    print(machine)
    results = BENCHMARKS[args.name](args)
    if args.json:
        Path(args.json).write_text(json.dumps({'machine': machine, args.name: results}, indent=1))


if __name__ == '__main__':
    main()
