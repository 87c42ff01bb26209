from .sci_loss import SCILoss
from .zero_dce_loss import ZeroDCELoss

__all__ = ['SCILoss', 'ZeroDCELoss']
