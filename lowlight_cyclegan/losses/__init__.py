from .mean_matched_loss import MeanMatchedMSELoss

__all__ = ['MeanMatchedMSELoss']
