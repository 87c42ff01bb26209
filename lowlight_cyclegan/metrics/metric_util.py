"""What the metrics share."""
import numpy as np
import os
import torch
from basicsr.metrics.metric_util import reorder_image


def to_rgb_tensor(img, crop_border, input_order):
    """BGR or gray image in [0, 255], ordered HW, HWC or CHW -> (1, 3, h, w) float32 RGB tensor in [0, 1]."""
    img = reorder_image(img, input_order='HWC' if input_order == 'HW' else input_order)
    if crop_border:
        img = img[crop_border:-crop_border, crop_border:-crop_border]
    img = np.ascontiguousarray(np.broadcast_to(img[..., ::-1], (*img.shape[:2], 3)).transpose(2, 0, 1))
    return torch.from_numpy(img).unsqueeze(0).float() / 255


def default_device():
    """Device of metrics, as a string: the GPU that belongs to this process of a distributed run, else the CPU.

    It is known before the process group starts, so that what is loaded early lies where it is used.
    """
    if not torch.cuda.is_available():
        return 'cpu'
    local_rank = int(os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0)))
    return f'cuda:{local_rank % torch.cuda.device_count()}'
