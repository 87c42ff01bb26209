"""Networks. A module of them is imported when one of its names is asked for: a program needs one or two of them."""
from importlib import import_module

MODULES = {
    'aspp_arch': ('ASPP', 'ASPPEncoder'),
    'auto_exposure_arch': ('AutoExposure', 'ToneCurve'),
    'classical_arch': ('ExposureGain', 'ExposureGainFusion', 'GammaCurve'),
    'ema_resnet_arch': ('EMA', 'EMAResidualBlock', 'EMAResNetGenerator', 'convert_cyclegan_generator'),
    'exposure_head_arch': ('ExposureCurves', 'ExposureHead'),
    'iat_arch': ('IAT', ),
    'pairlie_arch': ('PairLIE', ),
    'patchgan_arch': ('PatchGANDiscriminator', ),
    'psenet_arch': ('PSENet', ),
    'retinexnet_arch': ('RetinexNet', ),
    'ruas_arch': ('RUAS', ),
    'sci_arch': ('SCI', ),
    'self_ensemble_arch': ('self_ensemble', ),
    'zero_dce_arch': ('ZeroDCE', ),
}
HOMES = {name: module for module, names in MODULES.items() for name in names}

__all__ = sorted(HOMES)


def __getattr__(name):
    if name not in HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{HOMES[name]}'), name)
