"""Unpaired low-light enhancement: CycleGAN training.

Reference: Kuang et al., "Research on Low-Light Image Enhancement Algorithm Based on GANs".
"""
import torch
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import MODEL_REGISTRY
from collections import OrderedDict

from lowlight_cyclegan.registry import register_once
from .exposure_jitter import ExposureJitter
from .image_pool import ImagePool
from .lowlight_model import LowLightModel, at_least_fp32

__all__ = ['LowLightCycleGANModel']

FIRST_WARNING = 100  # iterations: untrained generators invert as often as not


@register_once(MODEL_REGISTRY)
class LowLightCycleGANModel(LowLightModel):
    """CycleGAN between low-light images X (BasicSR's ``lq``) and normal-light images Y (``gt``).

    Networks: G (``network_g``) X -> Y, F (``network_f``) Y -> X, D_A (``network_d_a``) judges X, D_B (``network_d_b``)
    judges Y.
    """

    network_names = ('g', 'f', 'd_a', 'd_b')
    optimizer_networks = {'optim_g': ('g', 'f'), 'optim_d': ('d_a', 'd_b')}  # as in CycleGAN

    def _init_losses(self, train_opt):
        self.cri_gan = build_loss(train_opt['gan_opt']).to(self.device)
        self.cri_cycle = build_loss(train_opt['cycle_opt']).to(self.device)
        identity_opt = train_opt.get('identity_opt')
        self.cri_identity = build_loss(identity_opt).to(self.device) if identity_opt else None
        self.translation_options = {'detach_exposure': True} if train_opt.get('detach_exposure') else {}
        self.cycle_jitter = ExposureJitter(**train_opt['cycle_jitter']) if train_opt.get('cycle_jitter') else None

        self.pools = {name: ImagePool(train_opt.get('pool_size', 50)) for name in ('d_a', 'd_b')}

    def setup_optimizers(self):
        super().setup_optimizers()
        self.optimizer_g, self.optimizer_d = self.optimizers

    def _train_step(self):
        """One CycleGAN step (eqs. 1-4)."""
        losses = OrderedDict()

        # Generators. The discriminators only pass gradients on; they are called bare, for their wrappers expect
        # gradients of their own.
        self._set_requires_grad(('d_a', 'd_b'), False)
        fake_normal, fake_low = self._generator_losses(self.lq, self.gt, losses)
        self._step(self.optimizer_g, sum(losses.values()))

        # Discriminators.
        self._set_requires_grad(('d_a', 'd_b'), True)
        losses['l_d_a'] = self._discriminator_loss('d_a', self.lq, fake_low.detach())
        losses['l_d_b'] = self._discriminator_loss('d_b', self.gt, fake_normal.detach())
        self._step(self.optimizer_d, losses['l_d_a'] + losses['l_d_b'])
        return losses

    def _generator_losses(self, low, normal, losses):
        """Fill ``losses`` with the generators' terms and return G(low) and F(normal), both (n, 3, h, w).

        All the networks normalise each image by itself, so translation and identity can share one call on the
        concatenated domains: four generator calls in place of six, with the same result.
        """
        net_g, net_f = self.networks['g'], self.networks['f']
        with_identity = self.cri_identity is not None
        with self._autocast():
            out_g = net_g(torch.cat([low, normal]) if with_identity else low, **self.translation_options)
            out_f = net_f(torch.cat([normal, low]) if with_identity else normal)
            fake_normal, fake_low = out_g[:len(low)], out_f[:len(low)]
            jittered_low = fake_low if self.cycle_jitter is None else self.cycle_jitter(at_least_fp32(fake_low))
            cycled_low, cycled_normal = net_f(fake_normal), net_g(jittered_low)
            logits_b = self.get_bare_model(self.networks['d_b'])(fake_normal)
            logits_a = self.get_bare_model(self.networks['d_a'])(fake_low)

        losses['l_gan_g'] = self.cri_gan(at_least_fp32(logits_b), True)  # eq. 2, first half
        losses['l_gan_f'] = self.cri_gan(at_least_fp32(logits_a), True)
        losses['l_cycle'] = (  # eq. 3
            self.cri_cycle(at_least_fp32(cycled_low), low) + self.cri_cycle(at_least_fp32(cycled_normal), normal))
        if with_identity:  # eq. 4
            same_normal, same_low = at_least_fp32((out_g[len(low):], out_f[len(low):]))
            losses['l_identity'] = self.cri_identity(same_normal, normal) + self.cri_identity(same_low, low)
        self.visuals = OrderedDict(low=low, enhanced=fake_normal, normal=normal, cycled=cycled_low)
        return at_least_fp32(fake_normal), at_least_fp32(fake_low)

    def _discriminator_loss(self, name, real, fake):
        """Half of the loss on ``cat[real, history of fakes]``, one call."""
        with self._autocast():
            logits = self.networks[name](torch.cat([real, self.pools[name].query(fake)]))
        real_logits, fake_logits = at_least_fp32(logits).chunk(2)
        return 0.5 * (self.cri_gan(real_logits, True, is_disc=True) + self.cri_gan(fake_logits, False, is_disc=True))

    def _set_requires_grad(self, names, requires_grad):
        for name in names:
            self.networks[name].requires_grad_(requires_grad)

    def get_current_log(self):
        """The losses; what is wrong with them is said once."""
        log = super().get_current_log()
        self._warn_of_collapse(log)
        return log

    @master_only
    def _warn_of_collapse(self, log):
        """Say once when a discriminator has won, and when colours come out inverted."""
        if self.iteration < FIRST_WARNING:
            return
        guess = torch.full((1, ), 0.5 if self.cri_gan.gan_type == 'lsgan' else 0.0)
        chance = 0.5 * (self.cri_gan(guess, True, is_disc=True) + self.cri_gan(guess, False, is_disc=True)).item()
        for name in ('d_a', 'd_b'):
            loss = log[f'l_{name}']
            if loss < 0.05 * chance:
                self._warn_once(f'{name.upper()} tells real from generated images with hardly an error (its loss is '
                                f'{loss:.4f}, guessing would give {chance:.2f}): its generator learns little from it '
                                'now. If this lasts, lower the rate in train: optim_d or use gan_type: lsgan.')
        low, enhanced = (at_least_fp32(self.visuals[key].detach()).flatten(1) for key in ('low', 'enhanced'))
        low, enhanced = (v - v.mean(1, keepdim=True) for v in (low, enhanced))
        if (low * enhanced).sum() < 0:
            self._warn_once('G inverts its input (enhanced pictures are dark where the low ones are bright): raise the '
                            'weights of cycle_opt and identity_opt or lower the learning rates.')

    def _warn_once(self, message):
        if message[:12] not in self._warned:
            self._warned.add(message[:12])
            get_root_logger().warning(f'Iteration {self.iteration}: {message}')

    def _rank_state(self):
        return {'pools': {name: pool.state_dict() for name, pool in self.pools.items()}}

    def _load_rank_state(self, state):
        for name, pool in self.pools.items():
            pool.load_state_dict(state['pools'][name], self.device)
