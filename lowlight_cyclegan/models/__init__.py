from .exposure_jitter import ExposureJitter
from .image_pool import ImagePool
from .lowlight_cyclegan_model import LowLightCycleGANModel
from .lr_scheduler import LinearDecayLR

__all__ = ['ExposureJitter', 'ImagePool', 'LinearDecayLR', 'LowLightCycleGANModel']
