from .diff_augment import DiffAugment
from .exposure_jitter import ExposureJitter
from .image_pool import ImagePool
from .lowlight_cyclegan_model import LowLightCycleGANModel
from .lr_scheduler import LinearDecayLR
from .zero_reference_model import ZeroReferenceModel

__all__ = [
    'DiffAugment', 'ExposureJitter', 'ImagePool', 'LinearDecayLR', 'LowLightCycleGANModel', 'ZeroReferenceModel'
]
