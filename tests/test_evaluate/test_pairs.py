import shutil

from lowlight_cyclegan.evaluate.pairs import Pair, find_pairs


def test_three_ways_to_write_data(tmp_path, write_pairs):
    folder = write_pairs(tmp_path / 'toy', 2)
    expected = [Pair(f'{i}', f'{folder}/low/{i}.png', f'{folder}/high/{i}.png') for i in range(2)]
    assert find_pairs(f'toy={folder}/low:{folder}/high') == find_pairs(f'toy={folder}') == ('toy', expected)
    assert find_pairs(f'toy={folder}/low') == ('toy', [Pair(p.name, p.low) for p in expected])


def test_names_of_other_kinds_pair_by_number(tmp_path, write_pairs, caplog, refusal):
    folder = write_pairs(tmp_path / 'toy', 3)
    for kind, word in (('low', 'low'), ('high', 'normal')):
        for i in range(3):
            (folder / kind / f'{i}.png').rename(folder / kind / f'{word}0069{i}.png')
    pairs = find_pairs(f'toy={folder}')[1]
    assert pairs[2] == Pair('00692', f'{folder}/low/low00692.png', f'{folder}/high/normal00692.png')
    assert 'toy: 3 pairs by number, such as low00690 with normal00690' in caplog.text
    (folder / 'low' / 'low00692.png').rename(folder / 'low' / 'low00693.png')
    assert 'in one of the folders alone' in refusal(find_pairs, f'toy={folder}')
    (folder / 'low' / 'low00693.png').rename(folder / 'low' / 'x_low00691.png')  # a number twice
    assert 'in one of the folders alone' in refusal(find_pairs, f'toy={folder}')


def test_what_lies_beside_the_images_is_named(tmp_path, write_images, caplog):
    folder = write_images(tmp_path / 'toy', 2)
    (folder / 'more.png').mkdir()
    shutil.copy(folder / '0.png', folder / 'notes.txt')
    assert len(find_pairs(f'toy={folder}')[1]) == 2
    assert '2 sub-folders and other files are left out, such as more.png' in caplog.text
