import cv2
import numpy as np
import shutil

from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.evaluate.pairs import find_pairs


def test_fusion_is_the_reference(tmp_path, write_pairs, capsys, refusal):
    write_pairs(tmp_path, 2, 'under', 'over')

    def fuse(*args):
        cli.main(['data', 'fuse', str(tmp_path / 'under'), str(tmp_path / 'over'), '--output', str(tmp_path), *args])

    fuse('--name', 'scenes')
    pair = find_pairs(f'scenes={tmp_path}/scenes')[1][1]
    under, over = (cv2.imread(str(tmp_path / kind / '1.png')) for kind in ('under', 'over'))
    expected = np.clip(cv2.createMergeMertens().process([under, over]), 0, 1) * 255
    assert np.abs(cv2.imread(pair.high) - expected).max() <= 0.5
    assert np.array_equal(cv2.imread(pair.low), under) and under.mean() < cv2.imread(pair.high).mean()
    capsys.readouterr()
    fuse('--name', 'scenes')
    assert capsys.readouterr().out == f'complete {tmp_path}/scenes\n'
    cv2.imwrite(str(tmp_path / 'over' / '1.png'), over[:9])
    assert 'differ in size' in refusal(fuse)
    (tmp_path / 'over' / '1.png').write_bytes(b'x')
    assert '1.png: cannot be read' in refusal(fuse)
    (tmp_path / 'over' / '1.png').unlink()
    assert '1 images are in one of the folders alone, such as 1' in refusal(fuse)
    shutil.rmtree(tmp_path / 'over')
    assert f'no such folder: {tmp_path}/over' in refusal(fuse)
    assert not (tmp_path / 'under_fused').exists()
