from .aspp_arch import ASPP, ASPPEncoder
from .auto_exposure_arch import AutoExposure, ToneCurve
from .classical_arch import CLAHE, LIME, ExposureGain, ExposureGainFusion, GammaCurve
from .ema_resnet_arch import EMA, EMAResidualBlock, EMAResNetGenerator, convert_cyclegan_generator
from .exposure_head_arch import ExposureCurves, ExposureHead
from .iat_arch import IAT, convert_iat
from .pairlie_arch import PairLIE, convert_pairlie
from .patchgan_arch import PatchGANDiscriminator
from .psenet_arch import PSENet, convert_psenet
from .retinexnet_arch import RetinexNet, convert_retinexnet
from .ruas_arch import RUAS, convert_ruas
from .sci_arch import SCI, convert_sci
from .self_ensemble_arch import SelfEnsemble, self_ensemble
from .zero_dce_arch import ZeroDCE, convert_zero_dce

__all__ = [
    'ASPP', 'ASPPEncoder', 'AutoExposure', 'CLAHE', 'EMA', 'EMAResNetGenerator', 'EMAResidualBlock', 'ExposureCurves',
    'ExposureGain', 'ExposureGainFusion', 'ExposureHead', 'GammaCurve', 'IAT', 'LIME', 'PSENet', 'PairLIE',
    'PatchGANDiscriminator', 'RUAS', 'RetinexNet', 'SCI', 'SelfEnsemble', 'ToneCurve', 'ZeroDCE',
    'convert_cyclegan_generator', 'convert_iat', 'convert_pairlie', 'convert_psenet', 'convert_retinexnet',
    'convert_ruas', 'convert_sci', 'convert_zero_dce', 'self_ensemble'
]
