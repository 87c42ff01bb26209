import cv2
import numpy as np

from lowlight_cyclegan.evaluate import figures
from lowlight_cyclegan.evaluate.figures import _spread, contact_sheet, pick_crop
from lowlight_cyclegan.evaluate.pairs import Pair


def test_crop_lies_where_the_detail_is():
    img = np.full((100, 150, 3), 90, np.uint8)
    img[60:80, 100:130] = np.random.default_rng(0).integers(0, 255, (20, 30, 3))
    x, y, w, h = pick_crop(img)
    assert (w, h) == (30, 20) and abs(x - 100) <= 2 and abs(y - 60) <= 2
    assert pick_crop(img[:3, :4])[2:] == (1, 1)


def test_rows_lie_evenly():
    assert _spread(list(range(15)), 3) == [2, 7, 12] and _spread([5], 3) == [5]


def test_comparison_enlarges_the_same_part_of_each(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, 'pick_crop', lambda reference: (3, 4, 10, 5))
    img = np.random.default_rng(0).integers(0, 255, (20, 40, 3), dtype=np.uint8)
    file = str(tmp_path / 'a.png')
    cv2.imwrite(file, img)
    records = [{'method': m, 'image': 'a', 'picture': file, 'psnr': 7.0} for m in ('input', 'm')]
    sheet = contact_sheet([Pair('a', file, file)], ['input', 'm'], records, 80, crops=True)
    assert sheet.shape == (40 + 40, 3 * 80, 3)
    part = cv2.resize(img[4:9, 3:13], (80, 40), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(sheet[40:, :80], part)
    np.testing.assert_array_equal(sheet[40:, 160:], part)
    assert (sheet[40:, 80:160] != part).any()  # the PSNR is written there
    assert (sheet[8, 6:27] == (0, 0, 255)).all()


def test_sheet_has_a_row_for_each_image(tmp_path):
    img = np.random.default_rng(0).integers(0, 255, (20, 40, 3), dtype=np.uint8)
    dark = str(tmp_path / 'a.png')
    bright = str(tmp_path / 'b.png')
    cv2.imwrite(dark, img // 9)
    cv2.imwrite(bright, img)
    records = [{'method': 'm', 'image': name, 'picture': bright, 'psnr': 7.0} for name in 'ab']
    sheet = contact_sheet([Pair('a', dark), Pair('b', dark)], ['input', 'm'], records)
    assert sheet.shape == (2 * 160, 2 * 320, 3)
    small = cv2.resize(img, (320, 160), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(sheet[160:, 320:], small)
    assert contact_sheet([Pair('a', dark, bright)], ['m'], records).shape == (160, 3 * 320, 3)
