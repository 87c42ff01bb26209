import pytest
import zipfile

from lowlight_cyclegan.prepare import archive
from lowlight_cyclegan.prepare.archive import open_source


def make_zip(path, entries):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, content in entries:
            z.writestr(name, content)
    return str(path)


def test_zip_and_folder_give_the_same(tmp_path):
    folder = tmp_path / 'f'
    (folder / 'a' / '.git').mkdir(parents=True)
    for name in ('a/1.png', 'b.txt', 'a/.hidden', 'a/.git/x'):
        (folder / name).write_bytes(name.encode())
    path = make_zip(tmp_path / 'f.zip', [('a/', ''), ('a/1.png', 'a/1.png'), ('b.txt', 'b.txt'), ('a/.hidden', '1'),
                                         ('__MACOSX/a/1.png', '2')])
    for source in (open_source(str(folder)), open_source(path)):
        assert source.files == ['a/1.png', 'b.txt'] and source.read('a/1.png') == b'a/1.png'


def test_names_of_entries_are_names_alone(tmp_path):
    """They are never written to: what would point outside of a folder is read like any other."""
    path = make_zip(tmp_path / 'x.zip', [('/etc/1.png', 'b'), ('a.png', 'a')])
    assert open_source(path).files == ['/etc/1.png', 'a.png'] and open_source(path).read('/etc/1.png') == b'b'


def test_bombs_are_refused(tmp_path, refusal, monkeypatch):
    path = make_zip(tmp_path / 'x.zip', [('1.png', bytes(4 << 20))])
    assert "'1.png' unpacks to 4194304 bytes" in refusal(open_source, path)
    monkeypatch.setattr(archive, 'MAX_BYTES', 100)
    assert 'zip bomb' in refusal(open_source, make_zip(tmp_path / 'y.zip', [('1.png', '1' * 60), ('2.png', '2' * 60)]))
    monkeypatch.setattr(archive, 'MAX_FILES', 1)
    assert 'holds 2 files' in refusal(open_source, str(tmp_path / 'y.zip'))


def test_many_small_bombs_are_refused(tmp_path, refusal):
    """Each of them is below the size from which one entry is judged."""
    path = make_zip(tmp_path / 'x.zip', [(f'{i}.png', bytes(1 << 20)) for i in range(3)])
    assert 'zip bomb' in refusal(open_source, path)


def test_encrypted_entries_are_refused(tmp_path, refusal):
    path = make_zip(tmp_path / 'x.zip', [('1.png', 'abc')])
    content = bytearray(open(path, 'rb').read())
    content[content.index(b'PK\x01\x02') + 8] |= 1  # the flag in the central directory
    (tmp_path / 'x.zip').write_bytes(content)
    assert 'encrypted' in refusal(open_source, path)


def test_partial_downloads_are_refused(tmp_path, refusal):
    path = tmp_path / 'x.zip'
    make_zip(path, [('1.png', 'abc' * 100)])
    path.write_bytes(path.read_bytes()[:-30])
    assert 'not a complete zip archive' in refusal(open_source, str(path))
    for name, text in (('x.zip.part', 'not finished'), ('x.rar', 'unpack it')):
        (tmp_path / name).write_bytes(b'x')
        assert text in refusal(open_source, str(tmp_path / name))
    assert 'no such file' in refusal(open_source, str(tmp_path / 'absent.zip'))


def test_damaged_entries_are_named(tmp_path):
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr('1.png', b'abcdefgh')
    path.write_bytes(path.read_bytes().replace(b'abcd', b'abcx'))
    with pytest.raises(ValueError, match='damaged in the archive'):
        open_source(str(path)).read('1.png')


@pytest.mark.parametrize('offset, value', [(6, 255), (10, 99), (46, 0)])
def test_damaged_directories_are_one_line(tmp_path, refusal, offset, value):
    """A version of the format that is not there yet, an unknown compression, an empty name."""
    path = tmp_path / 'x.zip'
    make_zip(path, [('1.png', 'abc' * 100), ('2.png', 'abc' * 100)])
    content = bytearray(path.read_bytes())
    at = content.index(b'PK\x01\x02') + offset
    content[at:at + 2] = value.to_bytes(2, 'little')
    path.write_bytes(content)
    try:
        source = open_source(str(path))
    except ValueError as error:
        assert str(path) in str(error)
        return
    assert '2.png' in source.files
    for name in source.files:
        try:
            source.read(name)
        except ValueError as error:
            assert 'damaged in the archive' in str(error)


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_content_that_does_not_unpack_is_named(tmp_path, method):
    """Whatever the compression: each has an error of its own."""
    path, text = tmp_path / 'x.zip', bytes(range(256)) * 4
    with zipfile.ZipFile(path, 'w', method) as z:
        z.writestr('1.png', text)
    whole = path.read_bytes()
    refused, begin, end = 0, 35, whole.index(b'PK\x01\x02')
    for at in range(begin, end, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55] * 2) + whole[at + 2:])
        try:
            assert open_source(str(path)).read('1.png') == text  # as behind the end of what LZMA packed
        except ValueError as error:
            assert 'damaged in the archive' in str(error)
            refused += 1
    assert refused > 10
