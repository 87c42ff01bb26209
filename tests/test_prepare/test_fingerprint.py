import cv2
import numpy as np
import pytest

from lowlight_cyclegan.prepare.fingerprint import aligned_correlation, find_matches, fingerprint


@pytest.fixture
def images():
    """Ten pictures of 90x60 with structure at several scales."""
    rng = np.random.default_rng(0)
    return [sum(cv2.resize(rng.uniform(0, 80, (n, n, 3)), (90, 60)) for n in (3, 6, 20)).astype(np.uint8)
            for _ in range(10)]


def darker(img):
    return np.round(255 * 0.1 * (img / 255)**1.5).astype(np.uint8)


def jpeg(img):
    return cv2.imdecode(cv2.imencode('.jpg', img, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize('change, kind', [
    (lambda img: img.copy(), 'identical'),
    (lambda img: img + (img < 255), 'same view'),
    (jpeg, 'same view'),
    (lambda img: cv2.resize(img, (45, 30), interpolation=cv2.INTER_AREA), 'same view'),
    (darker, 'same view'),
])
def test_changed_copies_are_found(images, change, kind):
    test = [fingerprint(change(images[i]).astype(np.uint8)) for i in (7, 2)]
    matches = find_matches([fingerprint(img) for img in images], test)
    assert {i: match[:2] for i, match in matches.items()} == {0: (kind, 7), 1: (kind, 2)}


def test_other_pictures_do_not_match(images):
    prints = [fingerprint(img) for img in images]
    assert find_matches(prints[:5], prints[5:]) == {}
    assert find_matches([], prints) == find_matches(prints, []) == {}
    flat = [fingerprint(np.full((60, 90, 3), level, np.uint8)) for level in (0, 7)]
    assert find_matches(flat[:1], flat[1:]) == {} and find_matches(flat, flat)[0][0] == 'identical'


def test_pixels_count_not_files(images):
    read = [cv2.imdecode(cv2.imencode(ext, images[0], flags)[1], cv2.IMREAD_COLOR)
            for ext, flags in (('.png', []), ('.webp', [cv2.IMWRITE_WEBP_QUALITY, 101]))]
    assert fingerprint(read[0]) == fingerprint(read[1])


def test_alignment(images):
    assert aligned_correlation(darker(images[0]), images[0]) > 0.9
    assert aligned_correlation(darker(images[0]), np.roll(images[0], 30, axis=1)) < 0.7


def test_real_copies(lol_root):
    """LOL's test scenes are in its training set, at other exposures: 1 is 2, 493 is 494; 179 has no other."""

    def prints(folder, names):
        return [fingerprint(cv2.imread(str(next((lol_root / folder).glob(f'{name}.*'))))) for name in names]

    for domain in ('low', 'high'):
        train = prints(f'our485/{domain}', (2, 494, 708))
        matches = find_matches(train, prints(f'eval15/{domain}', (1, 493, 179)))
        assert {i: match[:2] for i, match in matches.items()} == {0: ('same view', 0), 1: ('same view', 1)}
