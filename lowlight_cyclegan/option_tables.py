"""The tables of ``options/README.md``, from ``schema`` and from the docstrings of what a ``type`` names.

    python -m lowlight_cyclegan.option_tables    # writes them anew, in a checkout
"""
from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from os import path as osp

from .config import options_dir
from .schema import DATASETS, SECTIONS, Table, shown

BEGIN, END = '<!-- tables: python -m lowlight_cyclegan.option_tables -->', '<!-- end of the tables -->'
HEADINGS = {'': 'Top level', 'path': '`path`', 'train': '`train`', 'val': '`val`', 'logger': '`logger`'}


def tables() -> str:
    """All tables, in Markdown."""
    lines = []
    for section, table in SECTIONS.items():
        lines += [f'### {HEADINGS[section]}', '', *_rows(table), '']
    for name, table in DATASETS.items():
        lines += [f'### Dataset `{name}`', '', *_rows(table), '']
    for heading, cls in _classes():
        lines += [f'### {heading} `{cls.__name__}`', '', '| key | default | what it does |', '|---|---|---|']
        lines += [f'| `{key}` | {default} | {text} |' for key, default, text in _arguments(cls)] + ['']
    return '\n'.join(lines)


def _rows(table: Table) -> Iterator[str]:
    yield from ('| key | default | values | what it does |', '|---|---|---|---|')
    for key, option in table.items():
        default = 'required' if option.required else '' if option.default is None else f'`{shown(option.default)}`'
        yield f'| `{key}` | {default} | {option.describe()} | {option.text} |'


def _classes() -> Iterator[tuple[str, type]]:
    from . import losses
    from .archs import EMAResNetGenerator, PatchGANDiscriminator
    from .data.camera import Camera
    from .models import ExposureJitter, LinearDecayLR
    yield from (('Network', EMAResNetGenerator), ('Network', PatchGANDiscriminator), *(
        ('Loss', getattr(losses, name)) for name in losses.__all__), ('Schedule', LinearDecayLR),
        ('`train: cycle_jitter`:', ExposureJitter), ('`train: camera`, beside `share`:', Camera))


def _arguments(cls: type) -> Iterator[tuple[str, str, str]]:
    """Name, default and description of each argument that an option file gives."""
    described = dict(re.findall(r'^    (\w+) \(.*?\): ((?:.|\n        )*)', inspect.getdoc(cls) or '', re.MULTILINE))
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.name in ('optimizer', 'total_iter'):
            continue
        default = '' if parameter.default is parameter.empty else f'`{shown(parameter.default)}`'
        text = ' '.join(described.get(parameter.name, '').split())
        yield parameter.name, default, re.sub(r' ?Default: [^ ]+$', '', re.sub(r':class:`(\w+)`', r'\1', text))


def renewed(text: str) -> str:
    """The text of the README with its tables written anew."""
    before, rest = text.split(BEGIN)
    return f'{before}{BEGIN}\n\n{tables()}\n{END}{rest.split(END)[1]}'


def main() -> None:
    path = osp.join(options_dir(), 'README.md')
    with open(path, encoding='utf-8') as f:
        text = renewed(f.read())
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)


if __name__ == '__main__':
    import lowlight_cyclegan
    lowlight_cyclegan.register()
    main()
