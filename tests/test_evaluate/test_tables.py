import csv
import math
from rich.console import Console

from lowlight_cyclegan.evaluate.tables import Table, to_csv, to_markdown, to_terminal

TABLE = Table('Title_1', [('m', 'method', None, 0), ('n', 'n', None, 0), ('p', 'PSNR', 'higher', 2),
                          ('d', 'Δ', 'lower', 1), ('x', 'x', None, 3)],
              [{'m': 'A_1|', 'n': 15, 'p': (14.861, 0.5), 'd': (0.25, -1.0, 1.5)},
               {'m': 'B', 'n': 1, 'p': (math.inf, math.nan), 'd': (-0.5, math.nan, math.nan), 'x': math.nan}],
              ['a note'])


def test_cells():
    assert TABLE.headings() == ['method', 'n', 'PSNR ↑', 'Δ ↓', 'x']
    assert TABLE.cells() == [['A_1|', '15', '14.86 ± 0.50', '+0.2 [-1.0, 1.5]', '–'],
                             ['B', '1', '∞', '-0.5 [–, –]', '–']]


def test_nothing_to_compare_is_a_dash():
    table = Table('', [('x', 'x', None, 3)], [{'x': (math.nan, ) * 3}, {'x': (math.nan, math.nan)}])
    assert table.cells() == [['–'], ['–']]


def test_markdown():
    assert to_markdown([TABLE]).splitlines() == [
        '**Title_1**', '', '| method | n | PSNR ↑ | Δ ↓ | x |', '| --- | --- | --- | --- | --- |',
        '| A_1\\| | 15 | 14.86 ± 0.50 | +0.2 [-1.0, 1.5] | – |', '| B | 1 | ∞ | -0.5 [–, –] | – |', '', '- a note']


def test_csv_is_unrounded():
    rows = list(csv.reader(to_csv(TABLE).splitlines()))
    assert rows == [['m', 'n', 'p', 'p_spread', 'd', 'd_low', 'd_high', 'x'],
                    ['A_1|', '15', '14.861', '0.5', '0.25', '-1.0', '1.5', ''],
                    ['B', '1', 'inf', '', '-0.5', '', '', '']]


def test_terminal_does_not_cut():
    console = Console(width=120, record=True, file=open('/dev/null', 'w'))
    console.print(to_terminal(TABLE))
    text = console.export_text()
    assert all(cell in text for cells in TABLE.cells() for cell in cells)
