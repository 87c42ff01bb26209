"""Small valid things that several kinds need."""
from __future__ import annotations

import json
import numpy as np
from pathlib import Path
from PIL import Image

OPTIONS = {'type': 'EMAResNetGenerator', 'num_feat': 4, 'num_block': 1, 'ema_factor': 2}


def network():
    """A toy generator."""
    import torch
    from lowlight_cyclegan.archs.ema_resnet_arch import EMAResNetGenerator
    torch.manual_seed(0)
    return EMAResNetGenerator(**{key: value for key, value in OPTIONS.items() if key != 'type'})


def write_weights(path: str) -> None:
    """The toy generator as a ``.safetensors`` file that says what it holds."""
    from safetensors.torch import save_file
    save_file(network().state_dict(), path, {'network_g': json.dumps(OPTIONS)})


def write_pictures(folder: str, count: int, brightness: int, size: tuple[int, int] = (40, 36)) -> None:
    """PNGs 0.png, 1.png, ..."""
    Path(folder).mkdir(parents=True)
    rng = np.random.default_rng(brightness)
    for i in range(count):
        coarse = rng.integers(0, brightness, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).save(f'{folder}/{i}.png')
