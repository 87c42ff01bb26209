"""Weights that ``enhance`` loads, weights that a training starts from, and checkpoints that it resumes from."""
from __future__ import annotations

import copy
import json
import pickle
import random
import shutil
import torch
import yaml
from pathlib import Path
from PIL import Image
from typing import Any

from fuzz import Kind
from fuzz_options import limit_iterations, options, write_data
from mutators import mutate_bytes, mutate_tree
from toys import OPTIONS, network, write_weights


class Checkpoints(Kind):
    may_change = ('experiments', )

    def make(self) -> None:
        write_data()
        write_weights('toy.safetensors')
        state = network().state_dict()
        torch.save({'params': state, 'params_ema': state}, 'toy.pth')
        torch.save(state, 'plain.pth')
        Image.linear_gradient('L').resize((40, 34)).convert('RGB').save('photo.png')
        tree = options(str(Path.cwd()))
        Path('toy.yml').write_text(yaml.safe_dump(tree))
        from lowlight_cyclegan.commands import main
        try:
            main(['train', '-opt', 'toy.yml'])
        except SystemExit as stop:
            assert not stop.code, stop.code

    def mutate(self, valid: Path, rng: random.Random) -> list[str]:
        use = rng.choice(('enhance', 'enhance', 'folder', 'pretrain', 'resume'))
        if use == 'folder':
            Path('case').mkdir()
            shutil.copy(valid / 'toy.safetensors', 'case/model.safetensors')
            text = json.dumps(OPTIONS)
            Path('case/config.json').write_text(text)
            if rng.random() < 0.5:
                Path('case/config.json').write_text(json.dumps(mutate_tree(OPTIONS, rng)))
            else:
                which = Path(rng.choice(('case/config.json', 'case/model.safetensors')))
                which.write_bytes(mutate_bytes(which.read_bytes(), rng))
            return self._enhance(valid, 'case')
        if use == 'resume':
            shutil.copytree(valid / 'experiments', 'experiments')
            files = sorted(path for path in Path('experiments').rglob('*')
                           if path.suffix in ('.pth', '.state', '.json'))
            for path in rng.sample(files, rng.choice((1, 1, 2))):
                _mutate_file(path, rng)
            shutil.copy(valid / 'toy.yml', 'case.yml')
            text = Path('case.yml').read_text().replace('total_iter: 4', 'total_iter: 6')
            Path('case.yml').write_text(text)
            limit_iterations()
            return ['train', '-opt', 'case.yml', '--auto_resume']
        name = rng.choice(('toy.pth', 'toy.pth', 'plain.pth', 'toy.safetensors'))
        path = Path(f'case{Path(name).suffix}')
        shutil.copy(valid / name, path)
        _mutate_file(path, rng)
        if use == 'enhance':
            return self._enhance(valid, path.name)
        tree = yaml.safe_load((valid / 'toy.yml').read_text())
        tree['path'] = {'pretrain_network_g': str(path.resolve()), 'strict_load_g': rng.choice((True, False))}
        Path('case.yml').write_text(yaml.safe_dump(tree))
        limit_iterations()
        return ['train', '-opt', 'case.yml']

    @staticmethod
    def _enhance(valid: Path, weights: str) -> list[str]:
        shutil.copy(valid / 'photo.png', 'photo.png')
        return ['enhance', 'photo.png', '--model', weights, '--device', 'cpu']

    def wrong(self, code: int, output: str) -> str | None:
        if code and not any(word in output for word in ('case', 'experiments', 'photo')):
            return 'a refusal that does not name the file'
        return None


def _mutate_file(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    if rng.random() < 0.4 or path.suffix == '.json':
        path.write_bytes(mutate_bytes(data, rng, head=2048))
    elif path.suffix == '.safetensors':
        path.write_bytes(_mutate_safetensors(data, rng))
    else:
        tree = _mutate_state(torch.load(path, weights_only=False), rng)
        torch.save(tree, path, pickle_protocol=rng.choice((2, 4)), _use_new_zipfile_serialization=rng.random() < 0.9)


def _mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Edit the header, a JSON object with the offsets of the tensors, and mend its length."""
    size = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:8 + size])
    if rng.random() < 0.5:
        header = mutate_tree(header, rng)
    else:
        header['__metadata__']['network_g'] = json.dumps(mutate_tree(OPTIONS, rng))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + data[8 + size:]


def _mutate_state(tree: Any, rng: random.Random) -> Any:
    """Edit a tensor somewhere, or the tree around the tensors."""
    if not isinstance(tree, dict):
        return {}
    edit = rng.randrange(4)
    if edit == 0:
        return mutate_tree(tree, rng)
    if edit == 1:
        return rng.choice(([], None, 'x', {}, {'params': None}, {'params': tree}, [tree], Harmless(), torch.zeros(3)))
    tree = copy.deepcopy(tree)
    holders = [tree]
    for holder in holders:
        holders += [value for value in holder.values() if isinstance(value, dict)]
    places = [(holder, key) for holder in holders for key, value in holder.items() if isinstance(value, torch.Tensor)]
    for holder, key in rng.sample(places, min(len(places), rng.choice((1, 2, 5)))):
        value = holder[key]
        edits = (lambda v: v * float('nan'), lambda v: v * 1e30, lambda v: v.reshape(-1), lambda v: v[None],
                 lambda v: v.double(), lambda v: v.to(torch.int64), lambda v: v.half(), lambda v: v.bool(),
                 lambda v: v.to_sparse(), lambda v: v.new_zeros(0), lambda v: v.new_zeros(2, 3, 5),
                 lambda v: v.flatten()[:-1], lambda v: torch.quantize_per_tensor(v.float(), 0.1, 0, torch.qint8),
                 lambda v: v.to(torch.complex64), lambda v: v.tolist(), lambda v: v.to('meta'))
        try:
            holder[key] = rng.choice(edits)(value)
        except (RuntimeError, IndexError, TypeError, AttributeError):
            holder[key] = None
    return tree


class Harmless:
    """An object that no weights hold: loaders of weights alone refuse it."""

    def __reduce__(self):
        return pickle.loads, (pickle.dumps('harmless'), )


KIND = Checkpoints()
