from .color_loss import ColorConstancyLoss
from .feature_loss import SelfFeatureLoss
from .mean_matched_loss import MeanMatchedMSELoss
from .sci_loss import SCILoss
from .zero_dce_loss import ZeroDCELoss

__all__ = ['ColorConstancyLoss', 'MeanMatchedMSELoss', 'SCILoss', 'SelfFeatureLoss', 'ZeroDCELoss']
