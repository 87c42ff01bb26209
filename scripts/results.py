"""The evidence: options/RESULTS.md, the paper's tables 2 to 5 and those of everyday photographs.

    python scripts/results.py [--shared ../shared] [--minutes 60] [--train] [--figures]

Figures per image lie in options/results/<set>.csv, each with the hash of its recipe (weights, images, protocol) and the
commit that measured it. What is there is not measured again, so that an interrupted run or one that ran out of minutes
is continued by the same command. RESULTS.md is made of all of them each time. What is measured, and what the paper
prints, is in results.yml beside this file.
"""
import argparse
import csv
import glob
import hashlib
import io
import json
import math
import os
import statistics
import subprocess
import time
import yaml
from dataclasses import asdict, dataclass, field, replace
from os import path as osp

import lowlight_cyclegan
from lowlight_cyclegan.config import force_option, load_options, options_dir
from lowlight_cyclegan.data.data_util import decode_image, map_threaded
from lowlight_cyclegan.evaluate.cache import Cache
from lowlight_cyclegan.evaluate.figures import draw_all
from lowlight_cyclegan.evaluate.measure import Meter
from lowlight_cyclegan.evaluate.methods import load_method
from lowlight_cyclegan.evaluate.pairs import Pair, find_pairs
from lowlight_cyclegan.evaluate.protocol import Protocol
from lowlight_cyclegan.evaluate.statistics import bootstrap_interval, mean_and_error
from lowlight_cyclegan.evaluate.tables import Table, to_markdown
from lowlight_cyclegan.files import atomic_write, file_sha256
from lowlight_cyclegan.messages import explain
from lowlight_cyclegan.prepare.darken import darken
from lowlight_cyclegan.prepare.fingerprint import pixel_hash
from lowlight_cyclegan.prepare.fuse import fuse
from lowlight_cyclegan.training.ablation import ROWS, TITLES, ablate

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
FIGURES = ('psnr', 'ssim', 'lpips', 'delta_e', 'chroma', 'niqe')  # NIQE, which is slow, for the paper's sets alone
NEW_IN_V2 = ('00705', '00706', '00707', '00742', '00749', '00753', '00754', '00755', '00756', '00767', '00768')


@dataclass
class TestSet:
    """A test set: its heading, its images (none where it is not here) and how it is measured.

    ``made`` says how images were made here, of ``sources``: their last bits depend on the processor.
    """
    name: str
    title: str
    pairs: list[Pair]
    protocol: Protocol
    family: str = 'paper'
    made: str = ''
    sources: list[str] = field(default_factory=list)
    rows: dict[str, list[dict]] = field(default_factory=dict)  # method -> figures of its images

    def fingerprint(self) -> str:
        def look(file):
            with open(file, 'rb') as f:
                return pixel_hash(decode_image(f.read()))

        files = self.sources or [file for pair in self.pairs for file in (pair.low, pair.high)]
        # The last four were options when most of the figures were measured, and are in their recipes.
        settings = {**asdict(self.protocol), 'lpips_trunk': None, 'color': 'rgb', 'border': 0, 'rounding': 'nearest',
                    'resize': None}
        return digest(json.dumps(settings, sort_keys=True), self.made, *map_threaded(look, files))


def digest(*parts) -> str:
    return hashlib.sha256('\n'.join(map(str, parts)).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------- sets


def find_sets(shared: str, work: str) -> list[TestSet]:
    """The test sets, laid out under ``work`` where they have to be made first."""
    trunk = osp.join(shared, 'weights', 'lpips_alexnet_features.pth')
    plain = Protocol(lpips_trunk=trunk if osp.isfile(trunk) else None)
    capped = replace(plain, ssim='uniform', psnr_cap=40)

    def pairs(*folders):
        folder = next((f for f in folders if osp.isdir(f)), None)
        return find_pairs(f'set={folder}')[1] if folder else []

    script = osp.join(shared, 'scripts', 'lolv2_real_test.sh')
    if osp.isfile(script):
        subprocess.run(['bash', script, osp.join(work, 'LOL-v2-real')], check=True, stdout=subprocess.DEVNULL)
        v2 = find_pairs(f'LOL-v2-real={work}/LOL-v2-real/Test/Low:{work}/LOL-v2-real/Test/Normal')[1]
    else:
        v2 = pairs('datasets/LOL-v2-real/test')
    sets = [TestSet('LOL', 'Table 2: LOL, the 15 test pairs', pairs(f'{shared}/data/LOLv1/eval15',
                                                                   'datasets/LOL/eval15'), plain),
            TestSet('LOL-v2-real', 'Table 3: LOL-v2-real, the 100 test pairs', v2, plain),
            TestSet('LSRW', 'Table 4: LSRW, 30 test pairs', pairs('datasets/LSRW/test'), plain)]
    photos, exposures = osp.join(shared, 'data', 'photos', 'val'), osp.join(shared, 'data', 'exposures')
    everyday = {'ev0': 'as they are', 'ev-2': '-2 EV', 'ev-4': '-4 EV', 'partial': 'dark in part'}
    unseen = {'noise/ev0': '0 EV with noise', 'clean/ev-2': '-2 EV without noise', 'dark/vignette': 'vignette',
              'dark/shadow': 'hard shadow', 'jpeg/ev-2': '-2 EV, noise in JPEG'}
    if osp.isdir(photos):
        darken(photos, f'{work}/dark', (0, 2, 4), ('ramp', 'backlight', 'vignette', 'shadow'))
        darken(photos, f'{work}/noise', (0, ), noise=True)
        darken(photos, f'{work}/clean', (2, ), noise=False)
        darken(photos, f'{work}/jpeg', (2, ), jpeg=True)
    for family, conditions in (('everyday', {f'dark/{key}': title for key, title in everyday.items()}),
                               ('unseen', unseen)):
        for folder, title in conditions.items():
            found = pairs(f'{work}/{folder}')
            sets.append(TestSet(folder.replace('/', '_'), title, found, capped, family, f'darken {folder}',
                                [pair.high for pair in found]))
    if osp.isdir(exposures):
        for kind in ('under', 'over'):  # every other scene: the rest is for training
            os.makedirs(f'{work}/scenes/{kind}', exist_ok=True)
            for file in sorted(glob.glob(f'{exposures}/{kind}/*'))[1::2]:
                link = f'{work}/scenes/{kind}/{osp.basename(file)}'
                if not osp.lexists(link):
                    os.symlink(osp.abspath(file), link)
        fuse(f'{work}/scenes/under', f'{work}/scenes/over', f'{work}/scenes/fused')
    scenes = TestSet('scenes', 'real scenes', pairs(f'{work}/scenes/fused'), capped, 'everyday', 'fuse',
                     sorted(glob.glob(f'{work}/scenes/*er/*')))
    return [*sets[:7], scenes, *sets[7:]]


# ---------------------------------------------------------------------------------------------------------- figures


def read_rows(path: str) -> dict[str, list[dict]]:
    if not osp.isfile(path):
        return {}
    rows: dict[str, list[dict]] = {}
    with open(path, newline='') as f:
        for row in csv.DictReader(f):
            rows.setdefault(row['method'], []).append(
                {key: float(value or 'nan') if key in FIGURES else value for key, value in row.items()})
    return rows


def write_rows(path: str, rows: dict[str, list[dict]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ('method', 'recipe', 'commit', 'image', *FIGURES), lineterminator='\n')
    writer.writeheader()
    for row in (row for method in rows.values() for row in method):
        writer.writerow({key: '' if isinstance(value, float) and math.isnan(value) else value
                         for key, value in row.items()})
    os.makedirs(osp.dirname(path), exist_ok=True)
    atomic_write(path, text.getvalue().encode())


def source(weights: list[str], label: str) -> str:
    """Hash of what a method is: its files, or its name where it is a rule or packaged."""
    packaged = osp.join(osp.dirname(lowlight_cyclegan.__file__), 'weights', f'{label.split("+")[0]}.safetensors')
    files = weights or ([packaged] if osp.isfile(packaged) else [])
    return digest(label.partition('+')[2] if files else label, *map(file_sha256, files))


class Bench:
    """Measures what lacks figures, while there is time.

    Args:
        sets: With the rows that are there.
        folder: Of the CSV files.
        work: Folder of pictures.
        end: Of the time, by ``time.monotonic``.
    """

    def __init__(self, sets: list[TestSet], folder: str, work: str, end: float) -> None:
        self.sets, self.folder, self.end = sets, folder, end
        self.cache = Cache(osp.join(work, 'cache'))
        self.prints = {s.name: s.fingerprint() for s in sets if s.pairs}
        self.commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True,
                                     text=True).stdout.strip() or 'unknown'

    def measure(self, label: str, text: str, made_of: str, sets: list[TestSet]) -> None:
        """Figures of a method on each of the sets, where they are missing or of another recipe."""
        method = None
        for test_set in sets:
            recipe = test_set.pairs and digest(made_of, self.prints[test_set.name])[:12]
            known = test_set.rows.get(label)
            if not test_set.pairs or known and known[0]['recipe'] == recipe or time.monotonic() > self.end:
                continue
            method = method or load_method(text)
            figures = FIGURES if test_set.family == 'paper' else FIGURES[:-1]
            meter, begin, rows = Meter(test_set.protocol, self.cache, figures), time.monotonic(), []
            for pair in test_set.pairs:
                record = meter.measure(method, pair)
                rows.append({'method': label, 'recipe': recipe, 'commit': self.commit, 'image': pair.name,
                             **{key: float(f'{record[key]:.6g}') for key in figures}})
            test_set.rows[label] = rows
            write_rows(osp.join(self.folder, f'{test_set.name}.csv'), test_set.rows)
            print(f'{label} on {test_set.name}: {len(rows)} images, {time.monotonic() - begin:.0f} s', flush=True)

    def draw(self, texts: dict[str, str], output: str) -> None:
        """Figures of up to twenty images of each set, with all methods."""
        methods = [load_method(text) for text in texts.values()]
        for test_set in (s for s in self.sets if s.pairs):
            meter = Meter(test_set.protocol, self.cache, ['psnr'])
            chosen = test_set.pairs[::max(1, len(test_set.pairs) // 20)][:20]
            records = [{'data': test_set.name, 'method': method.label, 'image': pair.name,
                        **meter.measure(method, pair)} for method in methods for pair in chosen]
            draw_all(output, {test_set.name: chosen}, list(texts), records)


def run_ablation(name: str, options: dict, bench: Bench, shared: str, work: str, train: bool) -> None:
    """Train, where that is wanted and rows are missing, and measure the variants of each seed on LOL."""
    lol = bench.sets[0]
    forced = list(options.get('force_yml', ()))
    data = osp.join(osp.abspath(shared), 'data')
    for key, value in options['data'].items():  # a folder, or several
        folders = osp.join(data, value) if isinstance(value, str) else [osp.join(data, folder) for folder in value]
        forced.append(f'datasets:{key}={json.dumps(folders)}')
    base = load_options(osp.join(options_dir(), options['opt']))
    for entry in options.get('force_yml', ()):
        force_option(base, entry)
    output = osp.join(work, f'ablation_{digest(name)[:8]}')
    for seed in options['seeds']:
        labels = {row: f'{name}, {row}, seed {seed}' for row in ROWS}
        made_of = {row: digest(json.dumps(base, sort_keys=True), options['budget'], row, seed) for row in ROWS}
        missing = [row for row in ROWS if lol.pairs and not (
            (known := lol.rows.get(labels[row])) and
            known[0]['recipe'] == digest(made_of[row], bench.prints[lol.name])[:12])]
        if missing and train and time.monotonic() < bench.end:
            ablate(options['opt'], options['budget'], [seed], output, force_yml=forced)
        for row in missing:
            weights = osp.join(output, 'experiments', f'{row}_seed{seed}', 'models', 'net_g_latest.pth')
            if osp.isfile(weights):
                bench.measure(labels[row], f'{row}={weights}', made_of[row], [lol])


# ---------------------------------------------------------------------------------------------------------- tables


def paper_table(test_set: TestSet, recipes: dict, images: tuple[str, ...] | None = None) -> Table:
    """Mean and standard error of a set's images, beside the paper's printed figures."""
    printed = recipes['paper'].get(test_set.name, {}) if images is None else {}
    columns = [('method', 'method', None, 0), ('data', 'learned from', None, 0), ('n', 'n', None, 0)]
    metrics = [('psnr', 'PSNR', 'higher', 2), ('ssim', 'SSIM', 'higher', 3), ('lpips', 'LPIPS', 'lower', 3),
               ('niqe', 'NIQE', 'lower', 2), ('delta_e', 'CIEDE2000', 'lower', 2), ('chroma', 'chroma', None, 2)]
    columns += metrics + [(f'paper_{key}', f'paper: {heading}', None, digits)
                          for key, heading, _, digits in metrics[:4] if printed]
    rows = []
    for label in [*recipes['methods'], *(name for name in printed if name not in recipes['methods'])]:
        found = [row for row in test_set.rows.get(label, ()) if images is None or row['image'] in images]
        row = {'method': label, 'data': recipes['methods'].get(label, {}).get('learned from', ''), 'n': len(found)}
        for key, *_ in metrics:
            row[key] = mean_and_error([r[key] for r in found])[:2]
        row |= {f'paper_{metrics[i][0]}': float(value) for i, value in enumerate(printed.get(label, ())) if value}
        if found or label in printed:
            rows.append(row)
    if not rows:
        rows = [{'method': 'the set is not here, nothing was measured'}]
    notes = [test_set.protocol.describe()] if images is None else []
    return Table(test_set.title if images is None else f'{test_set.title}: the {len(images)} in no part of LOL-v1',
                 columns, rows, notes)


def everyday_tables(sets: list[TestSet], methods: dict) -> list[Table]:
    """PSNR with LPIPS, and colour error with chroma, a column for each condition."""
    tables = []
    for title, one, two, digits in (('PSNR (dB), LPIPS', 'psnr', 'lpips', (2, 3)),
                                    ('CIEDE2000, chroma of the reference = 1', 'delta_e', 'chroma', (2, 2))):
        columns = [('method', 'method', None, 0)] + [
            (s.name, f'{s.title} ({len(next(iter(s.rows.values()), s.pairs))})', None, 0) for s in sets]
        rows = [{'method': label, **{s.name: ', '.join(
            f'{mean_and_error([r[key] for r in s.rows[label]])[0]:.{d}f}' for key, d in zip((one, two), digits))
            for s in sets if label in s.rows}} for label in methods]
        tables.append(Table(title, columns, [row for row in rows if len(row) > 1]))
    tables[0].notes.append(sets[0].protocol.describe())
    return tables


def ablation_table(name: str, options: dict, rows: dict[str, list[dict]]) -> Table:
    """Mean over images and seeds with the deviation over seeds, and the paired difference to the plain generator."""
    metrics = [('psnr', 'PSNR', 'higher', 2), ('ssim', 'SSIM', 'higher', 4), ('lpips', 'LPIPS', 'lower', 4)]
    columns = [('variant', 'variant', None, 0), ('seeds', 'seeds', None, 0)]
    for key, heading, better, digits in metrics:
        columns += [(key, heading, better, digits), (f'{key}_difference', f'Δ {heading}', better, digits)]
    table = []
    for row in ROWS:
        runs = [(rows.get(f'{name}, {row}, seed {seed}'), rows.get(f'{name}, plain, seed {seed}'))
                for seed in options['seeds']]
        runs = [(own, plain) for own, plain in runs if own and plain]
        cells = {'variant': TITLES[row], 'seeds': len(runs)}
        for key, *_ in metrics:
            means = [statistics.fmean(r[key] for r in own) for own, _ in runs]
            cells[key] = (statistics.fmean(means) if means else math.nan,
                          statistics.stdev(means) if len(means) > 1 else math.nan)
            if row != 'plain':
                cells[f'{key}_difference'] = bootstrap_interval(
                    *([r[key] for pair in runs for r in pair[side]] for side in (0, 1)))
        table.append(cells)
    return Table(f"Table 5: {name}, {options['budget']} each, on LOL's 15 test pairs", columns, table,
                 ['± standard deviation over seeds; Δ: paired difference to CycleGAN, with its 95% bootstrap interval '
                  'over images and seeds'])


def report(sets: list[TestSet], recipes: dict) -> str:
    by_name = {s.name: s for s in sets}
    tables = []
    for test_set in (s for s in sets if s.family == 'paper'):
        tables.append(paper_table(test_set, recipes))
        if test_set.name == 'LOL-v2-real' and test_set.rows:
            tables.append(paper_table(test_set, recipes, NEW_IN_V2))
            tables[-2].notes.append('86 of the 100 inputs are training images of LOL and 3 are test images of it')
    tables += [ablation_table(name, options, by_name['LOL'].rows) for name, options in recipes['ablations'].items()]
    lines = ['# Results', '', 'Made by `python scripts/results.py` from the figures per image in `options/results/`; '
             'every row there has the hash of its recipe and the commit that measured it. Mean ± standard error over '
             'images. A figure on data that a method has learned from is no comparison: see the second column.', '',
             "## The paper's tables", '', to_markdown(tables)]
    for title, family in (('Everyday photographs', 'everyday'),
                          ('Darkness and noise that no training here has seen', 'unseen')):
        chosen = [s for s in sets if s.family == family]
        lines += [f'## {title}', '', to_markdown(everyday_tables(chosen, recipes['methods']))]
    lines += [f'{text}\n' for text in recipes['notes'].values()]
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shared', default=osp.join(osp.dirname(ROOT), 'shared'), help='folder of data and weights')
    parser.add_argument('--recipes', default=osp.join(ROOT, 'scripts', 'results.yml'), metavar='FILE.yml')
    parser.add_argument('--output', default=osp.join(ROOT, 'options'), help='of RESULTS.md and results/')
    parser.add_argument('--work', default='results/evidence', help='pictures, test sets and trainings')
    parser.add_argument('--minutes', type=float, default=math.inf, help='nothing new is begun after them')
    parser.add_argument('--train', action='store_true', help='train the ablations that lack figures')
    parser.add_argument('--figures', action='store_true', help='draw comparisons into --work')
    args = parser.parse_args()
    lowlight_cyclegan.register()
    end = time.monotonic() + 60 * args.minutes
    os.makedirs(args.work, exist_ok=True)
    with open(args.recipes, encoding='utf-8') as f:
        recipes = yaml.safe_load(f)
    folder = osp.join(args.output, 'results')
    try:
        sets = find_sets(args.shared, args.work)
        for test_set in sets:
            test_set.rows = read_rows(osp.join(folder, f'{test_set.name}.csv'))
        bench, texts = Bench(sets, folder, args.work, end), {}
        for label, method in recipes['methods'].items():
            weights = method.get('weights')
            path = osp.join(args.shared, 'weights', 'baselines', weights) if weights else ''
            if weights and not osp.exists(path):
                print(f'{label}: {path} is not here')
                continue
            files = sorted(glob.glob(f'{path}/*')) if osp.isdir(path) else [path] if path else []
            texts[label] = f'{label}={path}' if path else label
            bench.measure(label, texts[label], source(files, label), sets)
        for name, options in recipes['ablations'].items():
            run_ablation(name, options, bench, args.shared, args.work, args.train)
        if args.figures:
            bench.draw(texts, osp.join(args.work, 'figures'))
        atomic_write(osp.join(args.output, 'RESULTS.md'), report(sets, recipes).encode())
    except (ValueError, OSError) as error:
        raise SystemExit(explain(error)) from None
    print(f'written {osp.join(args.output, "RESULTS.md")}')


if __name__ == '__main__':
    main()
