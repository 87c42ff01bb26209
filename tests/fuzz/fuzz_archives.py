"""Zip archives of a small LOL, as people download it."""
from __future__ import annotations

import io
import random
import re
import shutil
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

from fuzz import Kind
from mutators import NUMBERS, mutate_bytes
from toys import write_pictures

OUTSIDE = Path(tempfile.gettempdir()) / 'evil.png'
NAMES = ('our485/low/0.png', '../../evil.png', str(OUTSIDE), 'our485/low/0.PNG', 'OUR485/LOW/0.png',
         'our485\\low\\9.png', 'our485/low/', 'our485/high/é.png', 'our485/low/0.png\n', '', '.',
         'our485/low/' + 'n' * 300 + '.png', 'our485/low/a:b.png',
         'our485/low/CON.png', 'our485/low/sub/0.png', 'eval15/low/0.jpg', '__MACOSX/0.png')


class Archives(Kind):
    folders_for_later = ('.partial', )

    def make(self) -> None:
        for split, count in (('our485', 3), ('eval15', 2)):
            write_pictures(f'LOLdataset/{split}/high', count, 250)
            write_pictures(f'LOLdataset/{split}/low', count, 60)
        shutil.make_archive('LOL', 'zip', '.', 'LOLdataset')

    def mutate(self, valid: Path, rng: random.Random) -> list[str]:
        data = (valid / 'LOL.zip').read_bytes()
        edit = rng.random()
        if edit < 0.35:
            data = mutate_bytes(data, rng)
        elif edit < 0.55:
            data = _mutate_records(data, rng)
        else:
            data = _mutate_entries(data, rng)
        name = f'case{rng.choice((*[".zip"] * 20, ".ZIP", "", ".rar"))}'
        Path(name).write_bytes(data)
        return ['data', 'lol', name, '--output', 'out', *(['--partial'] if rng.random() < 0.9 else [])]

    def wrong(self, code: int, output: str) -> str | None:
        if code and Path('out/LOL').exists():
            return 'fails and leaves a dataset'
        if not code and not Path('out/LOL/manifest.json').exists():
            return 'done without a dataset'
        if list(Path('..').glob('evil*')) or OUTSIDE.exists():
            return 'writes outside of its folder'
        if code and 'case' not in output:
            return 'a refusal that does not name the file'
        return None


def _mutate_records(data: bytes, rng: random.Random) -> bytes:
    """Edit a field of a local header, of the central directory or of its end."""
    buffer = bytearray(data)
    records = [(match.start(), size) for magic, size in ((b'PK\x03\x04', 30), (b'PK\x01\x02', 46), (b'PK\x05\x06', 22))
               for match in re.finditer(magic, data)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, size = rng.choice(records)
        field = at + rng.randrange(4, size - 2, 2)
        if rng.random() < 0.5:
            struct.pack_into('<H', buffer, field, rng.choice((*NUMBERS, *range(2, 15))) & 0xffff)
        else:
            struct.pack_into('<I', buffer, min(field, len(buffer) - 4), rng.choice(NUMBERS))
    return bytes(buffer)


def _mutate_entries(data: bytes, rng: random.Random) -> bytes:
    """Drop, rename, repeat or replace entries of a valid archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist() if not name.endswith('/')]
    for _ in range(rng.choice((1, 1, 2, 4))):
        i = rng.randrange(len(entries))
        name, content = entries[i]
        edit = rng.randrange(6)
        if edit == 0 and len(entries) > 1:
            del entries[i]
        elif edit == 1:
            entries[i] = rng.choice((name.replace('LOLdataset/', ''), name.rpartition('/')[2], *NAMES)), content
        elif edit == 2:
            entries.append((rng.choice((name, *NAMES)), rng.choice(entries)[1]))
        elif edit == 3:
            entries[i] = name, mutate_bytes(content, rng)
        elif edit == 4:
            entries[i] = name, rng.choice((b'', b'x', bytes(2**21), content + b'x', data[:500]))
        else:
            entries[i] = name, rng.choice(entries)[1]
    file = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with warnings.catch_warnings(), zipfile.ZipFile(file, 'w') as archive:
        warnings.simplefilter('ignore')  # of repeated names
        for name, content in entries:
            archive.writestr(name or 'x', content, compress_type=rng.choice(methods))
    return file.getvalue()


KIND = Archives()
