import pytest
import subprocess
import sys

from lowlight_cyclegan import config


@pytest.fixture
def write(tmp_path):
    """Function that writes an option file and returns its path."""

    def run(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return run


def test_heir_changes_its_base(write):
    write('base.yml', 'name: base\ntrain: {lr: 1e-4, steps: [1, 2], loss: {type: L1Loss, weight: 10}}\nval: {a: 1}\n')
    write('middle.yml', '_base_: base.yml\ntrain: {steps: [3], loss: {_delete_: true, type: MSELoss}}\n')
    heir = write('heir.yml', '_base_: middle.yml\nname: heir\ntrain: {lr: 2e-4}\nval: ~\n')
    opt = config.load_options(heir)
    assert opt == {'name': 'heir', 'train': {'lr': 2e-4, 'steps': [3], 'loss': {'type': 'MSELoss'}}, 'val': None}
    assert type(opt) is type(opt['train']) is type(opt['train']['loss']) is dict
    assert list(opt) == ['name', 'train', 'val']


def test_base_is_found_in_the_package(write):
    opt = config.load_options(write('mine.yml', '_base_: train_lol.yml\nname: mine\n'))
    assert opt['name'] == 'mine' and opt['network_g']['type'] == 'EMAResNetGenerator'


@pytest.mark.parametrize(('text', 'said'), [
    ('_base_: nowhere.yml', 'nowhere.yml: No such file'),
    ('_base_: [a.yml]', "_base_: is one file name, found ['a.yml']"),
    ('_base_: heir.yml', '_base_: heir.yml inherits from this file'),
    ('_base_: other.yml', '_base_: heir.yml inherits from this file'),
    ('_base_: base.yml\nname: {type: x}', 'a section stands where base.yml has a value: begin it with _delete_: true'),
])
def test_wrong_base_is_one_line(write, text, said):
    write('base.yml', 'name: base')
    write('other.yml', '_base_: heir.yml')
    with pytest.raises(ValueError) as error:
        config.load_options(write('heir.yml', text))
    assert said in str(error.value) and '\n' not in str(error.value)


def test_written_out_stands_alone(write):
    write('base.yml', '# Base.\nname: base  # why\ntrain: {lr: 1e-4}\n')
    heir = write('heir.yml', '# Heir.\n#   of base\n_base_: base.yml\nname: heir\n')
    text = config.written_out(heir)
    assert text.startswith('# Heir.\n#   of base\n# Written out in full.\n\nname: heir\n') and '_base_' not in text
    assert config.load_options(write('alone.yml', text)) == config.load_options(heir)
    assert config.written_out(write('plain.yml', 'a: 1  # kept\n')) == 'a: 1  # kept\n'


def test_plain_files_are_read_without_torch(write):
    path = write('plain.yml', 'a: 1')
    code = f'import sys; from lowlight_cyclegan.config import load_options; load_options({path!r}); ' \
           'print([m for m in ("torch", "basicsr", "mmengine") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], text=True, capture_output=True).stdout.strip() == '[]'
