import cv2
import numpy as np

from lowlight_cyclegan.evaluate import figures
from lowlight_cyclegan.evaluate.figures import _spread, comparison_figure, contact_sheet, pick_crop
from lowlight_cyclegan.evaluate.metrics import METRICS
from lowlight_cyclegan.evaluate.pairs import Pair


def test_crop_lies_where_the_detail_is():
    img = np.full((100, 150, 3), 90, np.uint8)
    img[60:80, 100:130] = np.random.default_rng(0).integers(0, 255, (20, 30, 3))
    x, y, w, h = pick_crop(img)
    assert (w, h) == (30, 20) and abs(x - 100) <= 2 and abs(y - 60) <= 2
    assert pick_crop(img[:3, :4])[2:] == (1, 1)


def test_rows_lie_evenly():
    assert _spread(list(range(15)), 3) == [2, 7, 12] and _spread([5], 3) == [5]


def test_comparison_has_a_column_for_each_method(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, 'pick_crop', lambda reference: (3, 4, 10, 6))
    img = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), img)
    file = str(tmp_path / 'a.png')
    records = [{'method': m, 'image': 'a', 'picture': file, **dict.fromkeys(METRICS, 7.0)} for m in ('input', 'm')]
    figure = comparison_figure([Pair('a', file, file)], ['input', 'm'], records)
    axes = figure.axes
    assert [ax.get_title() for ax in axes[:3]] == ['input', 'm', 'reference'] and len(axes) == 6
    np.testing.assert_array_equal(axes[4].images[0].get_array(), img[4:10, 3:13, ::-1])
    assert axes[4].get_xlabel() == '7.00 dB'


def test_sheet_has_a_row_for_each_image(tmp_path):
    img = np.random.default_rng(0).integers(0, 255, (20, 40, 3), dtype=np.uint8)
    dark = str(tmp_path / 'a.png')
    bright = str(tmp_path / 'b.png')
    cv2.imwrite(dark, img // 9)
    cv2.imwrite(bright, img)
    records = [{'method': 'm', 'image': name, 'picture': bright} for name in 'ab']
    sheet = contact_sheet([Pair('a', dark), Pair('b', dark)], ['input', 'm'], records)
    assert sheet.shape == (2 * 160, 2 * 320, 3)
    small = cv2.resize(img, (320, 160), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(sheet[160:, 320:], small)
    assert contact_sheet([Pair('a', dark, bright)], ['m'], records).shape == (160, 3 * 320, 3)
