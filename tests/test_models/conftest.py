import pytest
import signal
import torch
from collections import OrderedDict

import lowlight_cyclegan

lowlight_cyclegan.register()
from basicsr.models import build_model  # noqa: E402  (BasicSR imports once it is mended)

GENERATOR = dict(type='EMAResNetGenerator', num_feat=8, num_block=1, ema_factor=4)
DISCRIMINATOR = dict(type='PatchGANDiscriminator', num_feat=4, num_layer=2)


@pytest.fixture(autouse=True)
def signal_handlers():
    """A model in training takes over Ctrl-C; give it back."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def toy_opt(tmp_path):
    """Options of a toy run in ``tmp_path``, as BasicSR's parse_options leaves them."""
    paths = {key: tmp_path / key for key in ('models', 'training_states', 'visualization', 'log')}
    for path in paths.values():
        path.mkdir()
    adam = dict(type='Adam', lr=1e-3, betas=[0.5, 0.999])
    return OrderedDict(
        name='toy', model_type='LowLightCycleGANModel', is_train=True, num_gpu=0, dist=False, rank=0, world_size=1,
        manual_seed=0, amp=None, auto_resume=False,
        network_g=dict(GENERATOR), network_f=dict(GENERATOR), network_d_a=dict(DISCRIMINATOR),
        network_d_b=dict(DISCRIMINATOR),
        path=dict(zip(paths, map(str, paths.values()))),
        train=dict(optim_g=dict(adam), optim_d=dict(adam), scheduler=dict(type='LinearDecayLR'), total_iter=10,
                   ema_decay=0.9, pool_size=3,
                   gan_opt=dict(type='GANLoss', gan_type='vanilla', loss_weight=1),
                   cycle_opt=dict(type='L1Loss', loss_weight=10), identity_opt=dict(type='L1Loss', loss_weight=5)),
        datasets=dict(val=dict(name='toy_val')),
        val=dict(val_freq=5, metrics=dict(psnr=dict(type='calculate_psnr', crop_border=0))),
        logger=dict(print_freq=1, save_checkpoint_freq=5))


@pytest.fixture
def toy_model(toy_opt):
    torch.manual_seed(0)
    return build_model(toy_opt)
