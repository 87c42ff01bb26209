from .mean_matched_loss import MeanMatchedMSELoss
from .photo_loss import PhotoLoss

__all__ = ['MeanMatchedMSELoss', 'PhotoLoss']
