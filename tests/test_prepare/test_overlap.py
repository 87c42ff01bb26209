import cv2
import json
import pytest

from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.prepare.layouts import LAYOUTS, prepare


@pytest.fixture
def folders(tmp_path, write_images):
    """Training images 0-3; test images: one of them again, another at half the brightness, a third of its own."""
    train, test = write_images(tmp_path / 'train', 4), write_images(tmp_path / 'test', 3, seed=9)
    img = cv2.imread(str(train / '2.png'))
    cv2.imwrite(str(test / '0.bmp'), img)
    cv2.imwrite(str(test / '1.png'), img // 2)
    (test / '0.png').unlink()
    return train, test


def test_identical_and_same_view(folders, tmp_path, capsys):
    train, test = folders
    cli.main(['data', 'overlap', str(train), str(test), '--output', str(tmp_path / 'o.json')])
    rows = json.loads((tmp_path / 'o.json').read_text())
    assert [(row['kind'], row['test'], row['train']) for row in rows] == [
        ('identical', str(test / '0.bmp'), str(train / '2.png')),
        ('same view', str(test / '1.png'), str(train / '2.png'))]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == '3 test images against 4 training images: 1 identical, 1 more of the same view, 1 clean'


def test_manifests_need_no_images(tmp_path, write_pairs, capsys):
    write_pairs(tmp_path / 'our485', 3, seed=1)
    write_pairs(tmp_path / 'eval15', 2, seed=1)  # the first two again
    root = prepare(LAYOUTS['lol'], [str(tmp_path)], str(tmp_path / 'out'), partial=True)
    for path in (tmp_path / 'out').rglob('*.png'):
        path.unlink()
    for train, test, images in ((root, root, '4 test images against 6'),  # roles tell them apart
                                (f'{root}/our485', f'{root}/eval15/low', '2 test images against 6'),
                                (f'{root}/manifest.json', f'{root}/our485/high', '3 test images against 6')):
        cli.main(['data', 'overlap', train, test])
        assert images in capsys.readouterr().out.splitlines()[-1]


def test_refusals(tmp_path, folders, refusal):

    def overlap(path):
        return refusal(cli.main, ['data', 'overlap', str(path), str(folders[1])])

    assert 'is no manifest' in overlap(tmp_path / 'absent.json')
    (tmp_path / 'm.json').write_text('{"images": [{"path": "a"}]}')
    assert 'is no manifest' in overlap(tmp_path / 'm.json')
    (tmp_path / 'empty').mkdir()
    assert 'neither images nor' in overlap(tmp_path / 'empty')
    (folders[0] / '1.png').write_bytes(b'x')
    assert '1.png: cannot be read' in overlap(folders[0])
