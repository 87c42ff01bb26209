"""Rows of figures, and how they are written: terminal, Markdown, CSV, all from the same cells."""
from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from typing import TYPE_CHECKING, Any

from .statistics import bootstrap_interval, mean_and_error

if TYPE_CHECKING:
    from .metrics import Metric

__all__ = ['Table', 'difference_table', 'quality_table', 'show', 'to_csv', 'to_markdown', 'to_terminal']

ARROWS = {'higher': '↑', 'lower': '↓', None: ''}


class Table:
    """Columns and rows of values, and how a value is written.

    Args:
        title: Caption.
        columns: (key, heading, 'higher', 'lower' or None, decimals). Values are numbers, text, tuples of
            a number and its spread (written with ±), or of a number and its interval.
        rows: key -> value; what is missing or not finite is written as a dash.
        notes: Printed below the table.
    """

    def __init__(self, title: str, columns: list[tuple], rows: list[dict], notes: Sequence[str] = ()) -> None:
        self.title, self.columns, self.rows, self.notes = title, columns, rows, list(notes)

    def headings(self) -> list[str]:
        """Headings of the columns, an arrow saying which way is better."""
        return [f'{heading} {ARROWS[better]}'.strip() for _, heading, better, _ in self.columns]

    def cells(self) -> list[list[str]]:
        """Values of the rows as text."""
        return [[_text(row.get(key), decimals) for key, _, _, decimals in self.columns] for row in self.rows]


def _text(value: Any, decimals: int) -> str:
    if value is None:
        return '–'
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and math.isnan(value[0]):
        return '–'
    if isinstance(value, tuple) and len(value) == 3:
        mean, low, high = (_text(v, decimals) for v in value)
        sign = '+' if value[0] > 0 else ''
        return f'{sign}{mean} [{low}, {high}]'
    if isinstance(value, tuple):
        mean, spread = (_text(v, decimals) for v in value)
        return mean if spread == '–' else f'{mean} ± {spread}'
    if isinstance(value, int):
        return str(value)
    return f'{value:.{decimals}f}' if math.isfinite(value) else '∞' if value > 0 else '–'


def _groups(records: list[dict], subsets: dict) -> Iterator[tuple[str, str, dict[str, list[dict]]]]:
    """(data, subset's title, {method: its records}) for whole datasets and their clean subsets."""
    for name in dict.fromkeys(record['data'] for record in records):
        for title, images in {'': None, **subsets.get(name, {})}.items():
            group: dict[str, list[dict]] = {}
            for record in records:
                if record['data'] == name and (images is None or record['image'] in images):
                    group.setdefault(record['method'], []).append(record)
            yield name, title, group


def quality_table(records: list[dict], labels: list[str], metrics: dict[str, Metric],
                  subsets: dict[str, dict[str, list[str]]], costs: dict[str, tuple[float, float]],
                  notes: list[str]) -> Table:
    """Mean and standard error of each metric, cost of each method; clean subsets below their dataset.

    Args:
        records: See :func:`~lowlight_cyclegan.evaluate.comparison.measure_all`.
        labels: Methods in the table's order.
        metrics: Columns.
        subsets: Dataset -> title -> images, see ``comparison.clean_subsets``.
        costs: Method -> parameters in millions, GMACs.
        notes: For below the table.
    """
    columns: list[tuple] = [('data', 'data', None, 0), ('method', 'method', None, 0), ('n', 'n', None, 0)]
    columns += [(key, m.heading, m.better, m.decimals) for key, m in metrics.items()]
    columns += [('params', 'params (M)', None, 4), ('gmacs', 'GMACs', None, 2), ('ms', 'ms', None, 1)]
    rows = []
    for name, title, group in _groups(records, subsets):
        for label in labels:
            images = group.get(label, [])
            row = {'data': f'{name}, {title}' if title else name, 'method': label, 'n': len(images),
                   'params': costs[label][0], 'gmacs': costs[label][1]}
            row['ms'] = statistics.median(r['ms'] for r in images) if images else None
            for key in metrics:
                row[key] = mean_and_error([r.get(key, math.nan) for r in images])[:2]
            rows.append(row)
    return Table('Mean ± standard error over images', columns, rows, notes)


def difference_table(records: list[dict], labels: list[str], metrics: dict[str, Metric], baseline: str,
                     subsets: dict) -> Table:
    """Mean paired difference of each metric to the baseline, with its bootstrap interval."""
    columns: list[tuple] = [('data', 'data', None, 0), ('method', 'method', None, 0)]
    columns += [(key, f'Δ {m.heading}', m.better, m.decimals) for key, m in metrics.items()]
    rows = []
    for name, title, group in _groups(records, subsets):
        for label in labels:
            if label == baseline or not group:
                continue
            row: dict[str, Any] = {'data': f'{name}, {title}' if title else name, 'method': label}
            for key in metrics:
                own, other = ([r.get(key, math.nan) for r in group[method]] for method in (label, baseline))
                row[key] = bootstrap_interval(own, other)
            rows.append(row)
    return Table(f'Difference to {baseline}: mean [95% bootstrap interval over images]', columns, rows)


def to_terminal(table: Table) -> RichTable:
    """A rich table."""
    drawn = RichTable(title=table.title, box=box.SIMPLE_HEAD, title_justify='left', pad_edge=False)
    for index, heading in enumerate(table.headings()):
        numeric = any(not isinstance(row.get(table.columns[index][0]), str) for row in table.rows)
        drawn.add_column(heading, justify='right' if numeric else 'left', no_wrap=True)
    for cells in table.cells():
        drawn.add_row(*cells)
    return drawn


def show(tables: Sequence[Table]) -> None:
    """Print tables with their notes."""
    # a table is for reading across: in a file or a pipe it takes the width that it needs
    console = Console(width=None if os.isatty(1) else 400)
    for table in tables:
        console.print(to_terminal(table))
        for note in table.notes:
            console.print(note, highlight=False, soft_wrap=True)


def to_markdown(tables: Sequence[Table]) -> str:
    """Tables with their notes, as one Markdown text."""
    lines = []
    for table in tables:
        headings = table.headings()
        lines += [f'**{table.title}**', '', _md_row(headings), _md_row(['---'] * len(headings))]
        lines += [_md_row(cells) for cells in table.cells()]
        lines += ['', *(f'- {note}' for note in table.notes), '']
    return '\n'.join(lines).rstrip() + '\n'


def _md_row(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def to_csv(table: Table) -> str:
    """Unrounded numbers, nothing where there is none; a value with a spread or interval has a column for each."""
    spreads = {}
    for key, *_ in table.columns:
        width = max((len(row[key]) for row in table.rows if isinstance(row.get(key), tuple)), default=1)
        spreads[key] = {1: [key], 2: [key, f'{key}_spread'], 3: [key, f'{key}_low', f'{key}_high']}[width]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([name for names in spreads.values() for name in names])
    for row in table.rows:
        cells = []
        for key, names in spreads.items():
            value = row.get(key)
            value = value if isinstance(value, tuple) else (value, )
            cells += ['' if v is None or v != v else v for v in value] + [''] * (len(names) - len(value))
        writer.writerow(cells)
    return text.getvalue()
