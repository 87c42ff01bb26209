"""Mutations of bytes, and of trees of dicts, lists and values."""
from __future__ import annotations

import copy
import random
import string
from collections.abc import Callable
from typing import Any

NUMBERS = (0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff)
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 64, 2**31, 2**63, 10**20, 0.5, -0.5, 1e-30, 1e30, float('nan'), float('inf'),
    '', ' ', 'x', '~', 'auto', '1', '1e-3', 'a/b', '\x00', 'ä' * 300, [], [0], [0.5, 0.999], ['a', 'b'], [[]],
    {}, {'type': 'L1Loss'}, {'type': 'nothing'}, {'type': None}, {'a': {'b': 1}}, {1: 2})


def mutate_bytes(data: bytes, rng: random.Random, other: bytes = b'', head: int = 512) -> bytes:
    """One to six random edits; half of them in the first ``head`` bytes, where formats keep their sizes.

    Args:
        data: A valid file.
        rng: Decides.
        other: Another valid file, parts of which are spliced in.
        head: See above.
    """
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not data:
            break
        at = rng.randrange(min(len(data), head) if rng.random() < 0.5 else len(data))
        length = min(rng.choice((1, 2, 4, 8, 16, 64, 256, 1024)), len(data) - at)
        edit = rng.randrange(10)
        if edit == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif edit == 1:
            data[at:at + length] = rng.randbytes(length)
        elif edit == 2:
            size = rng.choice((1, 2, 4))
            data[at:at + size] = (rng.choice(NUMBERS) & (256**size - 1)).to_bytes(size, rng.choice(('big', 'little')))
        elif edit == 3:
            del data[at:]
        elif edit == 4:
            del data[at:at + length]
        elif edit == 5:
            data[at:at] = data[at:at + length]
        elif edit == 6:
            data[at:at + length] = bytes(length)
        elif edit == 7:
            to = rng.randrange(len(data))
            data[to:to + length] = data[at:at + length]
        elif edit == 8:
            data += rng.randbytes(length)
        elif other:
            start = rng.randrange(len(other))
            data[at:at + length] = other[start:start + length]
    return bytes(data)


def mutate_boxes(data: bytes, rng: random.Random, names: tuple[bytes, ...]) -> bytes:
    """Edit the size, the name or the beginning of a box of ISO's base media format, or of another that is named.

    Args:
        data: A valid file.
        rng: Decides.
        names: Four bytes each, of which some are in the file.
    """
    buffer = bytearray(data)
    found = [data.find(name) for name in names if name in data]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.choice(found) if found else rng.randrange(4, len(data) - 8)
        edit = rng.randrange(4)
        if edit == 0 and at >= 4:
            buffer[at - 4:at] = rng.choice(NUMBERS).to_bytes(4, 'big')
        elif edit == 1:
            buffer[at:at + 4] = rng.choice(names)
        else:
            to = min(at + 4 + rng.randrange(64), len(buffer) - 4)
            buffer[to:to + 4] = rng.choice((*NUMBERS, rng.randrange(2**32))).to_bytes(4, 'big')
    return bytes(buffer)


def mutate_tree(tree: dict, rng: random.Random, values: tuple[Any, ...] = VALUES) -> dict:
    """A copy with one to three entries dropped, renamed, replaced, wrapped, copied elsewhere or added."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = [(holder, key) for holder in _holders(tree) for key in _keys(holder)]
        if not places:
            break
        holder, key = rng.choice(places)
        edit = rng.randrange(8)
        if edit == 0:
            del holder[key]
        elif edit == 1 and isinstance(holder, dict):
            holder[_typo(str(key), rng)] = holder.pop(key)
        elif edit == 2:
            holder[key] = rng.choice(([holder[key]], {'type': holder[key]}, str(holder[key])))
        elif edit == 3:
            source, name = rng.choice(places)
            if name in source if isinstance(source, dict) else name < len(source):
                holder[key] = copy.deepcopy(source[name])
        elif edit == 4 and isinstance(holder, dict):
            name = rng.choice((_typo(str(key), rng), 'type', 'name', 1, None, True))
            holder[name] = copy.deepcopy(rng.choice(values))
        elif edit == 5 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((-holder[key], holder[key] * 3, holder[key] / 2, holder[key] + 1))
        else:
            holder[key] = copy.deepcopy(rng.choice(values))
    return tree


def _holders(tree: Any) -> list[Any]:
    found = [tree] if isinstance(tree, (dict, list)) else []
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        found += _holders(value)
    return found


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def _typo(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word) + 1)
    edits: tuple[Callable[[], str], ...] = (
        lambda: word[:at] + rng.choice(string.ascii_lowercase + '_:. ') + word[at:], lambda: word[:at] + word[at + 1:],
        lambda: word.upper())
    return rng.choice(edits)()
