"""Training without references: Zero-DCE, SCI and methods like them."""
from basicsr.losses import build_loss
from basicsr.utils.registry import MODEL_REGISTRY
from collections import OrderedDict

from lowlight_cyclegan.registry import register_once
from .lowlight_model import LowLightModel, at_least_fp32

__all__ = ['ZeroReferenceModel']


@register_once(MODEL_REGISTRY)
class ZeroReferenceModel(LowLightModel):
    """One generator that learns from low-light images alone (``lq``), by a loss that judges its own results.

    G is called with ``for_loss``, which gives the enhanced images and the arguments of the loss (see ``ZeroDCE`` and
    ``SCI``); the loss gives its terms by name. Validation has references where its dataset has them.
    """

    def _init_losses(self, train_opt):
        self.cri_zero_reference = build_loss(train_opt['zero_reference_opt']).to(self.device)

    def _train_step(self):
        """One step on the low-light images."""
        with self._autocast():
            enhanced, arguments = self.networks['g'](self.lq, for_loss=True)
        losses = self.cri_zero_reference(*at_least_fp32(arguments))
        self._step(self.optimizers[0], sum(losses.values()))
        self.visuals = OrderedDict(low=self.lq, enhanced=enhanced)
        return losses
