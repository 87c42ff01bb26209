"""Put the archs, data, metrics and the model into a BasicSR source tree, under its own names and conventions.

    python scripts/contribute_upstream.py PATH_TO_BASICSR                  # writes into the tree
    python scripts/contribute_upstream.py PATH_TO_BASICSR --patch FOLDER   # writes a git patch series, leaves the tree

The repairs that a BasicSR of 2022 to 2024 needs today come along as changes to its own sources, each by itself and only
where it is needed. Everything is computed from the tree's last commit (from its files where it is no git repository),
so a second run changes nothing. New files are formatted by the yapf and isort settings in the tree's setup.cfg.
"""
import argparse
import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'lowlight_cyclegan'
PARTS = ('archs', 'data', 'losses', 'metrics', 'models')
WIDTH = 120
SHARED_MODULES = ('basicsr/data/data_sampler.py', 'basicsr/data/data_util.py', 'basicsr/metrics/metric_util.py',
                  'basicsr/models/lr_scheduler.py')

# What names the plugin outside of imports, and what a BasicSR tree says in its place.
REWRITES = (
    (rf'{PACKAGE}\.({"|".join(PARTS)})\.', r'basicsr.\1.'),
    (rf'pip install "{PACKAGE}\\?\[pyiqa\\?\]"', 'pip install pyiqa'),
    (rf'python -m {PACKAGE}\.(train|test) -opt options/(\w+\.yml)',
     r'CUDA_VISIBLE_DEVICES=0 python basicsr/\1.py -opt options/\1/LowLightCycleGAN/\2'),
    # num_gpu: auto without a launcher; the plugin takes one there.
    ('one GPU if there is one, else the CPU; several GPUs: use torchrun',
     'the visible GPUs or the CPU; several GPUs: use torchrun'),
    (r'\boptions/(\w+\.txt)(?: +(?=  #))?', r'basicsr/data/meta_info/meta_info_\1'),
    # Where the tests look for LOL.
    (r"ROOT\.parent / 'shared' / 'data' / 'LOLv1'", "ROOT / 'datasets' / 'LOL'"),
    (r'\.\./shared/data/LOLv1', 'datasets/LOL'),
    (r"\.parents\[2\]\.parent / 'shared'", ".parents[2] / 'datasets'"),
    (r"SHARED / 'data' / 'LOLv1'", "SHARED / 'LOL'"),
    (r"SHARED / 'weights'", "SHARED.parent / 'experiments' / 'pretrained_models'"),
)
LEFTOVERS = re.compile(rf"{PACKAGE}(?!_model)|lowlight-cyclegan|LOLv1|'shared'")


class Refusal(Exception):
    """What is wrong, in one line."""


# -------------------------------------------------------------- Python sources


def import_nodes(tree):
    return [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]


def is_registration(node):
    return isinstance(node, ast.Expr) and ast.unparse(node) == f'{PACKAGE}.register()'


def exports(part):
    """name -> module of what ``lowlight_cyclegan.<part>`` offers."""
    tree = ast.parse((ROOT / PACKAGE / part / '__init__.py').read_text(encoding='utf-8'))
    return {alias.name: node.module for node in import_nodes(tree) for alias in node.names}


def upstream_imports(node):
    """An import statement as (module, name, alias) triples of a BasicSR tree; name is None for a plain import."""
    if isinstance(node, ast.Import):
        return [(alias.name, None, alias.asname) for alias in node.names if alias.name != PACKAGE]
    module = '.' * node.level + (node.module or '')
    if module == f'{PACKAGE}.registry':
        return []
    package, _, part = module.partition('.')
    if package == PACKAGE and part.split('.')[0] in PARTS:
        modules = exports(part) if part in PARTS else {}
        return [('.'.join(filter(None, ('basicsr', part, modules.get(alias.name)))), alias.name, alias.asname)
                for alias in node.names]
    return [(module, alias.name, alias.asname) for alias in node.names]


def import_block(triples):
    """The statements in BasicSR's order: all others, then its own, then relative ones."""
    lines = []
    for group in (lambda m: not re.match(r'basicsr\b|\.', m), lambda m: re.match(r'basicsr\b', m),
                  lambda m: m.startswith('.')):
        chosen = sorted({t for t in triples if group(t[0])}, key=lambda t: t[0].lower())
        if chosen and lines and not chosen[0][0].startswith('.'):
            lines.append('')
        lines += [f'import {module}' + (f' as {alias}' if alias else '')
                  for module, name, alias in chosen if name is None]
        for module in dict.fromkeys(module for module, name, _ in chosen if name):
            names = sorted(((name, alias) for m, name, alias in chosen if m == module and name), key=name_order)
            statements = {name: f'from {module} import {name} as {alias}' for name, alias in names if alias}
            plain = [name for name, alias in names if not alias]
            if plain:
                line = f'from {module} import {", ".join(plain)}'
                if len(line) > WIDTH:
                    start = f'from {module} import ('
                    line = textwrap.fill(f'{start}{", ".join(plain)})', WIDTH, subsequent_indent=' ' * len(start))
                statements[plain[0]] = line
            lines += [statements[name] for name, _ in names if name in statements]
    return '\n'.join(lines)


def name_order(name):
    """isort's: constants, classes, functions."""
    name = name[0]
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name.lower()


def split_imports(text):
    """Python source -> (what precedes the imports, triples, the rest)."""
    tree = ast.parse(text)
    lines = text.splitlines()
    nodes = import_nodes(tree)
    triples = [triple for node in nodes for triple in upstream_imports(node)]
    dropped = {number for node in nodes for number in range(node.lineno, node.end_lineno + 1)}
    dropped |= {node.lineno for node in tree.body if is_registration(node)}
    first = min(dropped, default=1)
    rest = '\n'.join(line for number, line in enumerate(lines, 1) if number >= first and number not in dropped)
    return '\n'.join(lines[:first - 1]).strip('\n'), triples, rest.strip('\n')


def join_imports(head, triples, rest):
    # Two blank lines before a definition, one before anything else.
    gap = '\n\n\n' if re.match(r'@|def |class |#', rest) else '\n\n'
    body = gap.join(filter(None, (import_block(triples), rest)))
    return (f'{head}\n{body}' if head else body) + '\n'


def upstream_module(text):
    """One of our modules or tests as one of BasicSR's."""
    text = re.sub(r'@register_once\((\w+)\)', r'@\1.register()', text)
    lines = text.splitlines()
    inner = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt) and node.col_offset]
    for node in sorted(inner, key=lambda node: -node.lineno):
        if isinstance(node, (ast.Import, ast.ImportFrom)) or is_registration(node):
            block = import_block(upstream_imports(node)) if not is_registration(node) else ''
            lines[node.lineno - 1:node.end_lineno] = textwrap.indent(block, ' ' * node.col_offset).splitlines()
    head, triples, rest = split_imports(leave_out_plugin_tests(rewrite('\n'.join(lines))))
    return join_imports(head, used(triples, rest), rest)


def leave_out_plugin_tests(text):
    """Without the test functions that speak of the plugin's own half."""
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        if isinstance(node, ast.FunctionDef) and node.name.startswith('test_'):
            first = min([node, *node.decorator_list], key=lambda n: n.lineno).lineno
            if LEFTOVERS.search('\n'.join(lines[first - 1:node.end_lineno])):
                end = node.end_lineno
                while end < len(lines) and not lines[end]:
                    end += 1
                del lines[first - 1:end]
    return '\n'.join(lines)


def used(triples, text):
    """Those import triples whose names occur in the text."""
    return [t for t in triples if re.search(rf"\b{t[2] or t[1] or t[0].split('.')[0]}\b", text)]


def rewrite(text):
    for pattern, replacement in REWRITES:
        text = re.sub(pattern, replacement, text)
    return text


def upstream_conftest(text, tests):
    """Of tests/conftest.py: hooks, automatic fixtures and what the tests that go upstream use."""
    tree = ast.parse(text)
    lines = text.splitlines()
    segments = {}
    for node in tree.body:
        name = getattr(node, 'name', None)
        if isinstance(node, ast.Assign):
            name = node.targets[0].id
        if name:
            first = min([node.lineno, *(d.lineno for d in getattr(node, 'decorator_list', ()))])
            segments[name] = '\n'.join(lines[first - 1:node.end_lineno])
    chosen = {name for name, segment in segments.items() if name.startswith('pytest_') or 'autouse' in segment}
    while True:
        seen = '\n'.join([*tests, *(segments[name] for name in chosen)])
        # a fixture is used as an argument, anything else as a word
        patterns = {name: rf'def \w+\([^)]*\b{name}\b' if 'fixture' in segment else rf'\b{name}\b'
                    for name, segment in segments.items()}
        more = {name for name, pattern in patterns.items() if re.search(pattern, seen)} - chosen
        if not more:
            break
        chosen |= more
    rest = '\n\n\n'.join(segment for name, segment in segments.items() if name in chosen)
    triples = [triple for node in import_nodes(tree) for triple in upstream_imports(node)]
    return rewrite(join_imports('', used(triples, rest), rest))


def add(text):
    """Edit: the file holds this text, or gets it appended where it is one of the modules that both have."""

    def edit(old, path):
        if old is None or old == text:
            return text
        if path in SHARED_MODULES:
            return merge(old, text, path)
        raise Refusal(f'{path}: is there already and differs from what would be written')

    return edit


def merge(target, text, path):
    """Append our module to the tree's module of the same name.

    Raises:
        Refusal: It has a definition of ours that differs.
    """
    _, triples, rest = split_imports(text)
    rest = re.sub(r'__all__ = \[.*?\]\n+', '', rest, flags=re.DOTALL)
    if rest in target:
        return target
    names = re.findall(r'^(?:def|class) (\w+)', rest, re.MULTILINE)
    taken = [name for name in names if re.search(rf'^(def|class) {name}\b', target, re.MULTILINE)]
    if taken:
        raise Refusal(f'{path}: has another {taken[0]} already')
    module = path.removesuffix('.py').replace('/', '.')
    head, theirs, body = split_imports(target)
    ours = [triple for triple in triples if triple[0] != module]
    return join_imports(head, theirs + ours, f'{body}\n\n\n{rest}')


# ------------------------------------------------------- changes to the tree's


def replace(old, new):
    """Edit: put `new` in the place of `old`, which must be there once."""

    def edit(text, path):
        if text is None and not path.startswith('basicsr/'):
            return None  # a page that this tree does not have
        text = text or ''
        if new in text:
            return text
        if text.count(old) != 1:
            raise Refusal(f'{path}: cannot be repaired, found {text.count(old)} times instead of once: '
                          f'{old.strip().splitlines()[0]}')
        return text.replace(old, new)

    return edit


def after(anchor, addition):
    return replace(anchor, anchor + addition)


def before(anchor, addition):
    return replace(anchor, addition + anchor)


def where_needed(old, new):
    """Edit: put `new` in the place of `old`, if that is there."""
    return lambda text, path: text and text.replace(old, new)


def export(module, name):
    """Edit of a package's ``__init__``: import a name and list it in ``__all__``."""

    def edit(text, path):
        found = re.search(r'__all__ = (\[.*?\])', text or '', re.DOTALL)
        if not found:
            raise Refusal(f'{path}: cannot be extended, it has no __all__')
        names = ast.literal_eval(found[1])
        if name in names:
            return text
        quoted = ', '.join(repr(n) for n in [*names, name])
        line = f'__all__ = [{quoted}]'
        if len(line) > WIDTH:
            line = '__all__ = [\n' + textwrap.indent(textwrap.fill(quoted, WIDTH - 4), '    ') + '\n]'
        head, triples, rest = split_imports(text.replace(found[0], line))
        return join_imports(head, [*triples, (f'.{module}', name, None)], rest)

    return edit


@dataclass
class Change:
    """One commit.

    Attributes:
        message (str): Subject, blank line, reason.
        edits (tuple): (path in the tree, edit); an edit is a function of a file's text, None where there is no such
            file, and its path to the new text.
        sources (tuple): Our modules and tests that come with it, as paths in this repository.
    """
    message: str
    edits: tuple = ()
    sources: tuple = ()


FORCE_YML = """\
    # force to update yml options
    if args.force_yml is not None:
        for entry in args.force_yml:
            # now do not support creating new keys
            keys, value = entry.split('=')
            keys, value = keys.strip(), value.strip()
            value = _postprocess_yml_value(value)
            eval_str = 'opt'
            for key in keys.split(':'):
                eval_str += f'["{key}"]'
            eval_str += '=value'
            # using exec function
            exec(eval_str)

"""
RANDOM_SEED = """\
    # random seed
    seed = opt.get('manual_seed')
    if seed is None:
        seed = random.randint(1, 10000)
        opt['manual_seed'] = seed
    set_random_seed(seed + opt['rank'])

"""
SHARED_SEED = """\
    # random seed, the same for all processes
    seed = opt.get('manual_seed')
    if seed is None:
        drawn = [random.randint(1, 10000)]
        if opt['dist']:
            torch.distributed.broadcast_object_list(drawn)
        seed = opt['manual_seed'] = drawn[0]
    set_random_seed(seed + opt['rank'])

"""

MODELS_ROW = """\
| [LowLightModel](../basicsr/models/lowlight_model.py) | Base low-light enhancement class | |
| [LowLightCycleGANModel](../basicsr/models/lowlight_cyclegan_model.py) | Unpaired low-light enhancement class | \
CycleGAN, EMA-ResNet CycleGAN |
| [ZeroReferenceModel](../basicsr/models/zero_reference_model.py) | Low-light enhancement without references | \
Zero-DCE, SCI |
"""
DATASET_CONTENTS = """\
1. [Low-Light Image Enhancement](#Low-Light-Image-Enhancement)
    1. [LOL](#LOL)
"""
DATASET_SECTION = """\
## Low-Light Image Enhancement

### LOL

[LOL v1](https://daooshee.github.io/BMVC2018website/) has 485 pairs for training (`our485`) and 15 for testing \
(`eval15`), 600x400 pixels each.

1. Download the dataset and put it at `datasets/LOL`, so that there are `datasets/LOL/our485/low`, \
`datasets/LOL/our485/high`, `datasets/LOL/eval15/low` and `datasets/LOL/eval15/high`.
1. Forty pairs of `our485`, whole scenes that no other pair shows, are held out for validation: \
[meta_info_lol_val40.txt](../basicsr/data/meta_info/meta_info_lol_val40.txt). `UnpairedImageDataset` leaves them out \
(`exclude_names`), `PairedNameListDataset` takes nothing else (`names`).
1. [Optional] Make LMDB files when necessary, one for each folder. Please refer to \
[LMDB Description](#LMDB-Description).

"""
ZOO_CONTENTS = '1. [Low-Light Image Enhancement](#Low-Light-Image-Enhancement)\n'
ZOO_SECTION = """\
## Low-Light Image Enhancement

Training on LOL ([dataset](DatasetPreparation.md#LOL)) without pairs: `LowLightCycleGANModel` takes low-light and \
normal-light images, `ZeroReferenceModel` low-light images alone. The options are in `options/train/LowLightCycleGAN` \
and `options/test/LowLightCycleGAN`.

| Exp Name | Model | Generator | Parameters of G |
| :------------- | :----------: | :----------: | :----------: |
| train_lol | LowLightCycleGANModel | EMA residual blocks and ASPP (dilations 4, 8, 16) | 13.613 M |
| train_lol_ema | LowLightCycleGANModel | EMA residual blocks | 11.384 M |
| train_lol_aspp | LowLightCycleGANModel | ASPP | 13.607 M |
| train_lol_cyclegan | LowLightCycleGANModel | CycleGAN ResNet-9 | 11.378 M |
| train_lol_lite | LowLightCycleGANModel | small, with a tone curve for the whole picture; for CPUs | 0.134 M |
| train_lol_zero_dce | ZeroReferenceModel | Zero-DCE | 0.079 M |
| train_lol_sci | ZeroReferenceModel | SCI | 0.006 M |

"""
LPIPS_DOC = """\
## LPIPS

`calculate_lpips` compares two images in the features of AlexNet, VGG16 or SqueezeNet (`net: alex | vgg | squeeze`), \
lower is better. torchvision downloads the network's weights, or `trunk` names their file.

- [The Unreasonable Effectiveness of Deep Features as a Perceptual Metric](https://arxiv.org/abs/1801.03924)

"""
NIQE_DOC = """
`calculate_niqe_tolerant` is `calculate_niqe`, but gives nan in the place of an error for images that are flat or have \
fewer than two 96x96 blocks.
"""
FAST_DOC = """
`calculate_psnr_fast` and `calculate_ssim_fast` give the values of `calculate_psnr` and `calculate_ssim`, in PyTorch \
and several times faster.
"""
FAST_NIQE_DOC = """
`calculate_niqe_fast` gives the values of `calculate_niqe_tolerant`, in PyTorch and several times faster.
"""
PYIQA_DOC = """\
## Metrics of pyiqa

`calculate_pyiqa` takes any metric of [pyiqa](https://github.com/chaofengc/IQA-PyTorch) by name (`metric: musiq`). \
`pip install pyiqa` installs it; its licence is for non-commercial use.

"""

REPAIRS = (
    Change(
        """Import what today's torchvision and scipy have

        torchvision 0.17 removed transforms.functional_tensor, scipy.ndimage.filters is deprecated. Both functions have
        had their present place for years.""",
        (('basicsr/data/degradations.py',
          where_needed('torchvision.transforms.functional_tensor import', 'torchvision.transforms.functional import')),
         ('basicsr/metrics/niqe.py', where_needed('scipy.ndimage.filters import', 'scipy.ndimage import')))),
    Change(
        """Build on Python 3.13

        There, exec() no longer writes into what locals() returns, and setup.py ended in a KeyError.""",
        (('setup.py',
          replace(
              "        exec(compile(f.read(), version_file, 'exec'))\n    return locals()['__version__']\n",
              "        namespace = {}\n        exec(compile(f.read(), version_file, 'exec'), namespace)\n"
              "    return namespace['__version__']\n")), )),
    Change(
        """Resume without a GPU and from the experiment's own folder

        The training state is loaded to the CPU; load_state_dict moves it to where the parameters are. --auto_resume
        looked below the current folder, wherever the experiment was.""",
        (('basicsr/train.py',
          replace(
              '        device_id = torch.cuda.current_device()\n        resume_state = torch.load(resume_state_path, '
              'map_location=lambda storage, loc: storage.cuda(device_id))\n',
              "        resume_state = torch.load(resume_state_path, map_location='cpu')\n")),
         ('basicsr/train.py',
          replace("state_path = osp.join('experiments', opt['name'], 'training_states')",
                  "state_path = opt['path']['training_states']")))),
    Change(
        """Launch distributed training without GPUs, over gloo

        The launchers divided by the number of GPUs, and DistributedDataParallel was given a GPU. With several machines
        the GPU follows from the local rank. --local-rank is how torch.distributed.launch spells it since torch 2.0.""",
        (('basicsr/utils/dist_util.py',
          replace(
              '    num_gpus = torch.cuda.device_count()\n    torch.cuda.set_device(rank % num_gpus)\n'
              '    dist.init_process_group(backend=backend, **kwargs)\n',
              '    if torch.cuda.is_available():\n'
              "        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', rank)) % torch.cuda.device_count())\n"
              '    else:\n'
              "        backend = 'gloo'\n"
              '    dist.init_process_group(backend=backend, **kwargs)\n')),
         ('basicsr/utils/dist_util.py',
          replace(
              '    num_gpus = torch.cuda.device_count()\n    torch.cuda.set_device(proc_id % num_gpus)\n    addr',
              '    num_gpus = max(1, torch.cuda.device_count())\n    if torch.cuda.is_available():\n'
              "        torch.cuda.set_device(proc_id % num_gpus)\n    else:\n        backend = 'gloo'\n    addr")),
         ('basicsr/models/base_model.py',
          replace(
              '            net = DistributedDataParallel(\n'
              '                net, device_ids=[torch.cuda.current_device()], '
              'find_unused_parameters=find_unused_parameters)\n',
              "            device_ids = [torch.cuda.current_device()] if self.device.type == 'cuda' else None\n"
              '            net = DistributedDataParallel(net, device_ids=device_ids, '
              'find_unused_parameters=find_unused_parameters)\n')),
         ('basicsr/utils/options.py',
          replace("argument('--local_rank', type", "argument('--local_rank', '--local-rank', type")))),
    Change(
        """Ignore persistent_workers where there are no workers

        torch refuses the two together, so that num_worker_per_gpu: 0 needed a second change in the options, and
        validation, which has no workers, could not inherit them.""",
        (('basicsr/data/__init__.py',
          replace("    dataloader_args['persistent_workers'] = dataset_opt.get('persistent_workers', False)\n",
                  "    persistent_workers = dataset_opt.get('persistent_workers', False)\n"
                  "    dataloader_args['persistent_workers'] = persistent_workers and "
                  "dataloader_args['num_workers'] > 0\n")), )),
    Change(
        """Seed the training sampler, with whole epochs and exact resuming

        EnlargedSampler ignored manual_seed. Together with drop_last it made one batch less than the trainer counts,
        so that runs ended before total_iter; a resumed run began its epoch again. EpochSampler orders by manual_seed
        and epoch, fills the last batch, and continues inside an epoch. Its indices carry epoch and position, from
        which a dataset can derive augmentations that do not depend on workers.

        manual_seed reaches the training dataset, follows --force_yml, and where it is drawn all processes share it.""",
        (('basicsr/utils/options.py', replace(RANDOM_SEED + FORCE_YML, FORCE_YML + SHARED_SEED)),
         ('basicsr/utils/options.py',
          after("        dataset['phase'] = phase\n",
                "        if phase == 'train':\n            dataset['manual_seed'] = opt['manual_seed']\n")),
         ('basicsr/train.py',
          replace('from basicsr.data.data_sampler import EnlargedSampler\n',
                  'from basicsr.data.data_sampler import EpochSampler\n')),
         ('basicsr/train.py', replace('train_sampler = EnlargedSampler(', 'train_sampler = EpochSampler(')),
         ('basicsr/train.py',
          replace("        start_epoch = resume_state['epoch']\n        current_iter = resume_state['iter']\n",
                  "        current_iter = resume_state['iter']\n"
                  '        start_epoch = train_sampler.start_from(current_iter)\n'))),
        (f'{PACKAGE}/data/data_sampler.py', 'tests/test_data/test_data_sampler.py')),
    Change(
        """Add calculate_niqe_tolerant

        NIQE is undefined for flat images and raises below two blocks; a diverged network should not end a run so.""",
        (('basicsr/metrics/__init__.py', export('niqe_tolerant', 'calculate_niqe_tolerant')),
         ('docs/Metrics.md', after('## NIQE\n', NIQE_DOC))),
        (f'{PACKAGE}/metrics/niqe_tolerant.py', 'tests/test_metrics/test_niqe_tolerant.py')),
    Change(
        """Add LPIPS

        The metric most papers on enhancement report, by the package lpips, with torchvision's trunk.""",
        (('basicsr/metrics/__init__.py', export('lpips_metric', 'calculate_lpips')),
         ('requirements.txt', before('numpy>=', 'lpips\n')),
         ('docs/Metrics.md', before('## FID\n', LPIPS_DOC))),
        (f'{PACKAGE}/metrics/metric_util.py', f'{PACKAGE}/metrics/lpips_metric.py',
         'tests/test_metrics/test_lpips_metric.py')),
    Change(
        """Add fast PSNR, SSIM and NIQE

        The values of calculate_psnr, calculate_ssim and calculate_niqe, several times faster: in PyTorch, on any
        device, the functions below them in batches.""",
        (*(('basicsr/metrics/__init__.py', export('fast_metrics', f'calculate_{name}_fast'))
           for name in ('psnr', 'ssim', 'niqe')),
         ('docs/Metrics.md', after('## PSNR and SSIM\n', FAST_DOC)),
         ('docs/Metrics.md', after(NIQE_DOC, FAST_NIQE_DOC))),
        (f'{PACKAGE}/metrics/fast_metrics.py', 'tests/test_metrics/test_fast_metrics.py')),
    Change(
        """Add the metrics of pyiqa

        calculate_pyiqa takes any of them by name. pyiqa is imported on use: its licence is for non-commercial use.""",
        (('basicsr/metrics/__init__.py', export('pyiqa_metric', 'calculate_pyiqa')),
         ('docs/Metrics.md', before('## LPIPS\n', PYIQA_DOC))),
        (f'{PACKAGE}/metrics/pyiqa_metric.py', 'tests/test_metrics/test_pyiqa_metric.py')),
)
MODEL = Change(
    """Add LowLightCycleGANModel, unpaired low-light enhancement

    CycleGAN between low-light and normal-light images, with efficient multi-scale attention (EMA) in the residual
    blocks of its generators and ASPP at the end of their encoders (Kuang et al., "Research on Low-Light Image
    Enhancement Algorithm Based on GANs"). ZeroReferenceModel, of the same base class, trains Zero-DCE and SCI; other
    methods come for comparison. With UnpairedImageDataset, whose samples are a function of manual_seed, epoch and
    position, checkpoints that are whole or absent, and resuming to the bit. Validation is shared by all processes.

    Needs Python 3.10 and torch 2.1.""",
    (('requirements.txt', replace('torch>=1.7\n', 'torch>=2.1\n')),
     ('setup.py', after("        license='Apache License 2.0',\n", "        python_requires='>=3.10',\n")),
     ('docs/Models.md', before('\n## Inheritance Relationship\n', MODELS_ROW)),
     ('docs/Models.md',
      replace('└── StyleGAN2Model\n',
              '├── StyleGAN2Model\n└── LowLightModel\n    ├── LowLightCycleGANModel\n    └── ZeroReferenceModel\n')),
     ('docs/DatasetPreparation.md', before('1. [StylgeGAN2](#StyleGAN2)\n', DATASET_CONTENTS)),
     ('docs/DatasetPreparation.md', before('## StyleGAN2\n', DATASET_SECTION)),
     ('docs/ModelZoo.md', before('1. [Video Super-Resolution](#Video-Super-Resolution)\n', ZOO_CONTENTS)),
     ('docs/ModelZoo.md', before('## Video Super-Resolution\n', ZOO_SECTION))))


# ------------------------------------------------------------------ the result


def model_sources():
    """What the other changes leave: modules, tests, options, lists."""
    ours = [path for part in PARTS for folder in (f'{PACKAGE}/{part}', f'tests/test_{part}')
            for path in sorted((ROOT / folder).glob('*.py')) if path.name != '__init__.py']
    options = [path for pattern in ('train_*.yml', 'test_*.yml', '*.txt')
               for path in sorted(ROOT.glob(f'options/{pattern}'))]
    names = [path.relative_to(ROOT).as_posix() for path in ours + options]
    taken = {source for change in REPAIRS for source in change.sources}
    return ('tests/conftest.py', *(name for name in names if name not in taken))


def target_path(source):
    """Where a file of ours goes in the tree."""
    name = Path(source).name
    if source.startswith(PACKAGE):
        return source.replace(PACKAGE, 'basicsr', 1)
    if source.endswith('.yml'):
        return f"options/{name.split('_')[0]}/LowLightCycleGAN/{name}"
    return f'basicsr/data/meta_info/meta_info_{name}' if source.endswith('.txt') else source


def upstream_sources(sources):
    """Our files as they go upstream, {source: text}.

    Raises:
        Refusal: One still speaks of the plugin.
    """
    texts = {source: (ROOT / source).read_text(encoding='utf-8') for source in sources}
    tests = [text for source, text in texts.items() if source.startswith('tests/test_')]
    result = {}
    for source, text in texts.items():
        if source == 'tests/conftest.py':
            result[source] = upstream_conftest(text, tests)
        else:
            result[source] = upstream_module(text) if source.endswith('.py') else rewrite(text)
        left = next((line.strip() for line in result[source].splitlines() if LEFTOVERS.search(line)), None)
        if left:
            raise Refusal(f'{source}: cannot go upstream, it speaks of the plugin: {left}')
    return result


def format_python(texts, settings):
    """Run the tree's yapf and isort settings over {path: text} and say what flake8 finds."""
    missing = [tool for tool in ('yapf', 'isort', 'flake8') if tool_path(tool) is None]
    if missing:
        print(f'not formatted by {", ".join(missing)}: not installed')
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / 'setup.cfg').write_text(settings)
        python = [path for path in texts if path.endswith('.py')]
        for path in python:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(texts[path], encoding='utf-8')
        for tool, flags in (('isort', ['--quiet']), ('yapf', ['--in-place']), ('flake8', [])):
            if tool not in missing:
                done = subprocess.run([tool_path(tool), *flags, *python], cwd=folder, capture_output=True, text=True)
                if done.returncode and tool != 'flake8':
                    raise Refusal(f'{tool}: {(done.stdout + done.stderr).strip().splitlines()[-1]}')
                print(done.stdout, end='')
        return {**texts, **{path: (folder / path).read_text(encoding='utf-8') for path in python}}


def tool_path(name):
    return shutil.which(name, path=os.pathsep.join((os.path.dirname(sys.executable), os.environ.get('PATH', ''))))


def contribute(read):
    """All changes to a tree.

    Args:
        read (callable): Path in the tree -> text, or None where there is no such file.

    Returns:
        list[tuple[str, dict[str, str]]]: Message and {path: new text} of each change that the tree needs.

    Raises:
        Refusal: Something in the tree is not as expected.
    """
    others = [('basicsr/metrics/__init__.py', export(module, name)) for name, module in exports('metrics').items()
              if name.startswith('calculate_')]
    changes = [*REPAIRS, Change(MODEL.message, (*MODEL.edits, *others), model_sources())]
    texts = upstream_sources([source for change in changes for source in change.sources])
    texts = {target_path(source): text for source, text in texts.items()}
    settings = read('setup.cfg')
    if settings is None:
        print('not formatted: the tree has no setup.cfg')
    else:
        texts = format_python(texts, settings)

    result, now = [], {}  # now: files as the changes so far left them
    for change in changes:
        changed = {}
        edits = [*change.edits, *((path, add(texts[path])) for path in map(target_path, change.sources))]
        for path, edit in edits:
            old = now[path] if path in now else read(path)
            new = edit(old, path)
            if new != old:
                now[path] = changed[path] = new
        if changed:
            result.append((inspect.cleandoc(change.message), changed))
    return result


# -------------------------------------------------------------------- the tree


class Tree:
    """A BasicSR source tree, with or without git.

    Raises:
        Refusal: It is none.
    """

    def __init__(self, root):
        self.root = Path(root).expanduser().resolve()
        for name in ('train.py', 'utils/registry.py', 'models/base_model.py'):
            if not (self.root / 'basicsr' / name).is_file():
                raise Refusal(f'{self.root}: is no BasicSR source tree, it has no basicsr/{name}')
        if (self.root / 'basicsr').is_symlink() or list(self.root.glob('basicsr-*.dist-info')):
            raise Refusal(f'{self.root}: holds an installed basicsr, give a source tree')
        top = self._git('rev-parse', '--show-toplevel', check=False).strip()
        self.has_git = bool(top) and os.path.samefile(top, self.root)
        if self.has_git and not self._git('rev-parse', '--verify', '--quiet', 'HEAD', check=False):
            raise Refusal(f'{self.root}: has no commit yet')
        status = ('status', '--porcelain', '-z', '--no-renames', '--untracked-files=all')
        self.dirty = [entry[3:] for entry in self._git(*status).split('\0') if entry] if self.has_git else []

    def _git(self, *args, check=True, **kwargs):
        return git(self.root, *args, check=check, **kwargs)

    def read(self, path):
        """Text of a file as it was committed, or as it is where there is no git; None without such a file."""
        if path not in self.dirty:
            return read_text(self.root / path)
        return self._git('show', f'HEAD:{path}', check=False) or None

    def refuse_if_dirty(self, wanted):
        """Refuse changes that are not committed, but for those that are `wanted` ({path: text}) anyway."""
        for path in self.dirty:
            if path not in wanted or read_text(self.root / path) != wanted[path]:
                raise Refusal(f'{self.root / path}: is not committed, commit or stash it first')

    def write(self, wanted):
        """Write the files that differ and name them."""
        for path, text in wanted.items():
            if read_text(self.root / path) != text:
                write_text(self.root / path, text)
                print(f'wrote {path}')

    def write_patches(self, changes, folder):
        """Commit the changes in a clone and write them as ``folder/0001-....patch`` and so on.

        Raises:
            Refusal: No git, git does not know who commits, or the folder holds other patches.
        """
        if not self.has_git:
            raise Refusal(f'{self.root}: is no git repository, so there is no patch series to make')
        folder = Path(folder).expanduser().resolve()
        # The same dates every time, so that the patches are the same too.
        date = git(ROOT, 'log', '-1', '--format=%cI', check=False) or self._git('log', '-1', '--format=%cI')
        env = {**os.environ, 'GIT_AUTHOR_DATE': date.strip(), 'GIT_COMMITTER_DATE': date.strip()}
        with tempfile.TemporaryDirectory() as temporary:
            clone, series = Path(temporary, 'tree'), Path(temporary, 'series')
            self._git('clone', '--quiet', str(self.root), str(clone))
            for message, changed in changes:
                for path, text in changed.items():
                    write_text(clone / path, text)
                git(clone, 'add', '--force', '--', *changed)
                git(clone, 'commit', '--quiet', '--no-verify', '--no-gpg-sign', '-m', message, env=env)
            git(clone, 'format-patch', '--quiet', '--no-signature', '-o', str(series), f'HEAD~{len(changes)}')
            patches = sorted(series.iterdir())
            others = {path.name for path in folder.glob('*.patch')} - {path.name for path in patches}
            if others:
                raise Refusal(f'{folder}: holds other patches, such as {min(others)}; name another folder')
            for patch in patches:
                write_text(folder / patch.name, patch.read_text(encoding='utf-8'))
                print(f'wrote {folder / patch.name}')


def git(folder, *args, check=True, **kwargs):
    """Output of a git command, empty where it fails and need not succeed."""
    try:
        done = subprocess.run(['git', '-C', str(folder), *args], capture_output=True, encoding='utf-8', **kwargs)
    except FileNotFoundError:
        if check:
            raise Refusal('git is not installed') from None
        return ''
    if done.returncode and check:
        raise Refusal(f'git {args[0]}: {" ".join(done.stderr.split())}')
    return '' if done.returncode else done.stdout


def read_text(path):
    return path.read_bytes().decode() if path.is_file() else None


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('tree', help='BasicSR source tree')
    parser.add_argument('--patch', metavar='FOLDER', help='write a patch series for git am there, leave the tree alone')
    args = parser.parse_args(argv)
    try:
        tree = Tree(args.tree)
        changes = contribute(tree.read)
        wanted = {path: text for _, changed in changes for path, text in changed.items()}
        tree.refuse_if_dirty(wanted)
        if not changes:
            print(f'{tree.root} has everything already')
        elif args.patch:
            tree.write_patches(changes, args.patch)
        else:
            tree.write(wanted)
            if not (tree.root / 'basicsr' / 'version.py').is_file():
                print('basicsr/version.py is not there yet: pip install --no-build-isolation -e . makes it')
            print(f'ready: cd {tree.root} && PYTHONPATH=. python basicsr/train.py '
                  '-opt options/train/LowLightCycleGAN/train_lol.yml')
    except Refusal as refusal:
        raise SystemExit(str(refusal)) from None
    except OSError as error:
        raise SystemExit(f'{error.filename}: {error.strerror}') from None


if __name__ == '__main__':
    main()
