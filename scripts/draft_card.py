"""Draft of a model card from a training run and its evaluation: what was measured, and the curves.

    python scripts/draft_card.py RUN RESULTS FILE.yml [KEY=VALUE ...]

RUN is the folder in experiments, RESULTS/eval15 what `lowlight-cyclegan evaluate` wrote; FILE.yml and KEY=VALUE are
what was trained. Writes RESULTS/card.md and RESULTS/curves.png and prints the card.
"""
import argparse
import csv
import glob
import json
import platform
import re
import statistics
import torch
from datetime import datetime
from matplotlib.figure import Figure
from os import path as osp

from lowlight_cyclegan.compat import force_option, load_options

LOSSES = ('l_gan_g', 'l_gan_f', 'l_cycle', 'l_distill', 'l_d_a', 'l_d_b')


def read_log(run):
    """The lines that a run logged, over all its logs where it was resumed."""
    lines = []
    for path in sorted(glob.glob(osp.join(run, 'train_*.log'))):
        with open(path, encoding='utf-8') as f:
            lines += f
    return lines


def read_losses(lines):
    """[(iteration, {loss: value})]"""
    found = ((re.search(r'iter: *([\d,]+)', line), line) for line in lines if '[eta:' in line)
    return [(int(m[1].replace(',', '')), {k: float(v) for k, v in re.findall(r'(l_\w+): (\S+)', line)})
            for m, line in found]


def read_validations(run):
    """{name: [(iteration, {metric: mean over the images for which it is finite})]}"""
    validations = {}
    for path in glob.glob(osp.join(run, 'metrics', '*.csv')):
        name, iteration = osp.splitext(osp.basename(path))[0].rsplit('_', 1)
        with open(path, newline='') as f:
            rows = list(csv.DictReader(f))
        means = {}
        for key in [key for key in rows[0] if key != 'image']:
            values = [v for v in (float(row[key]) for row in rows) if abs(v) < float('inf')]
            means[key] = statistics.fmean(values) if values else float('nan')
        validations.setdefault(name, []).append((int(iteration), means))
    return {name: sorted(points, key=lambda p: p[0]) for name, points in validations.items()}


def draw(losses, validations, path):
    metrics = list(dict.fromkeys(key for points in validations.values() for _, means in points for key in means))
    figure = Figure(figsize=(3.4 * (len(metrics) + 1), 2.9), layout='constrained')
    axes = figure.subplots(1, len(metrics) + 1, squeeze=False)[0]
    for ax, key in zip(axes, metrics):
        for name, points in validations.items():
            ax.plot([i for i, _ in points], [means[key] for _, means in points], 'o-', label=name)
        ax.set(title=key, xlabel='iteration')
        ax.legend(fontsize=7)
    for key in LOSSES:
        share = 0.1 if key == 'l_cycle' else 1
        axes[-1].plot([i for i, _ in losses], [share * v[key] for _, v in losses],
                      label=key if share == 1 else f'{key} / 10')
    axes[-1].set(title='losses', xlabel='iteration', yscale='log')
    axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=80)


def processor():
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = re.findall(r'model name\s*: (.+)', open('/proc/cpuinfo').read()) if osp.exists('/proc/cpuinfo') else []
    return f'{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads'


def main():
    parser = argparse.ArgumentParser(
        description='Draft of a model card.', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    for name in ('run', 'results', 'opt'):
        parser.add_argument(name)
    parser.add_argument('force_yml', nargs='*', metavar='KEY=VALUE')
    args = parser.parse_args()
    opt = load_options(args.opt)
    for entry in args.force_yml:
        force_option(opt, entry)
    lines, validations = read_log(args.run), read_validations(args.run)
    losses = read_losses(lines)
    iterations = max([0, *(i for i, _ in losses), *(i for points in validations.values() for i, _ in points)])
    draw(losses, validations, osp.join(args.results, 'curves.png'))
    stamps = [datetime.strptime(m[0], '%Y-%m-%d %H:%M:%S') for m in (re.match(r'[-\d]+ [:\d]+', line) for line in lines)
              if m]
    train = opt['datasets']['train']
    with open(osp.join(args.results, 'eval15', 'table.json'), encoding='utf-8') as f:
        measured = json.load(f)
    row = measured['tables'][0]['rows'][0]
    figures = ', '.join(f'{key} {row[key][0]:.4f} ± {row[key][1]:.4f}' for key in
                        ('psnr', 'ssim', 'lpips', 'niqe', 'psnr_gt_mean') if row[key][0] is not None)
    held_out = f', without the names in {train["exclude_names"]}' if train.get('exclude_names') else ''
    card = [
        f'| data | {train["dataroot_lq"]} and {train["dataroot_gt"]}, unpaired{held_out} |',
        f'| recipe | `{args.opt}` {" ".join(args.force_yml)}: {iterations} iterations of batch '
        f'{train["batch_size_per_gpu"]}, seed {opt["manual_seed"]}, amp {opt.get("amp") or "off"} |',
        f'| hardware and time | {processor()}, torch {torch.__version__}: {stamps[-1] - stamps[0]} |',
        f'| parameters | {row["params"]:.6f} M |',
        f'| LOL eval15 | {figures} |',
        *(f'| {name}, iteration {points[-1][0]} | {", ".join(f"{k} {v:.4f}" for k, v in points[-1][1].items())} |'
          for name, points in validations.items()),
    ]
    text = '\n'.join(['| | |', '|---|---|', *card, '', measured['protocol'], '', '![Curves](curves.png)', ''])
    with open(osp.join(args.results, 'card.md'), 'w', encoding='utf-8') as f:
        f.write(text)
    print(text)


if __name__ == '__main__':
    main()
