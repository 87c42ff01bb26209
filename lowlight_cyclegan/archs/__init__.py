from .aspp_arch import ASPP, ASPPEncoder
from .ema_resnet_arch import EMA, AutoExposure, EMAResidualBlock, EMAResNetGenerator, convert_cyclegan_generator
from .patchgan_arch import PatchGANDiscriminator

__all__ = [
    'ASPP', 'ASPPEncoder', 'AutoExposure', 'EMA', 'EMAResidualBlock', 'EMAResNetGenerator', 'PatchGANDiscriminator',
    'convert_cyclegan_generator'
]
