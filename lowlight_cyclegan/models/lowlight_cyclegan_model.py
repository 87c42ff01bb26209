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
from .diff_augment import DiffAugment
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

    Beyond the paper, each where the section ``train`` has it:

    - ``detach_exposure`` (bool): G's tone curve learns from the cycle alone.
    - ``cycle_jitter`` (dict): Arguments of :class:`ExposureJitter`, for F's pictures on their way back to G.
    - ``cycle_low_weight`` (float): Factor of the low images' half of eq. 3, F(G(X)) against X, which has G keep their
      noise for F to restore. At 0 that call of F is left out. Default: 1.
    - ``fixed_g``, ``fixed_f`` (list[str]): Parameters that are not trained, by the beginning of their names.
    - ``diff_augment`` (list[str]): Argument of :class:`DiffAugment`, for what the discriminators see.
    - ``distill_opt`` (dict): Loss of G(X) against a teacher's pictures of X, which the dataset gives as ``teacher``.
    - ``color_opt``, ``tv_opt``, ``feature_opt`` (dict): Losses of G(X), for example ``ColorConstancyLoss``, BasicSR's
      ``WeightedTVLoss``, both of G(X) in [0, 1], and ``SelfFeatureLoss``, which compares it with X.
    - ``loss_weight: [first, last]`` of any loss: the weight goes linearly from one to the other over ``total_iter``.
    """

    network_names = ('g', 'f', 'd_a', 'd_b')
    optimizer_networks = {'optim_g': ('g', 'f'), 'optim_d': ('d_a', 'd_b')}  # as in CycleGAN

    def _init_losses(self, train_opt):
        self.weight_schedules = []  # (criterion, first weight, last weight)
        names = ('gan', 'cycle', 'identity', 'color', 'tv', 'feature', 'distill')
        (self.cri_gan, self.cri_cycle, self.cri_identity, self.cri_color, self.cri_tv, self.cri_feature,
         self.cri_distill) = (self._build_loss(train_opt.get(f'{name}_opt')) for name in names)
        self.translation_options = {'detach_exposure': True} if train_opt.get('detach_exposure') else {}
        self.cycle_jitter = ExposureJitter(**train_opt['cycle_jitter']) if train_opt.get('cycle_jitter') else None
        self.cycle_low_weight = train_opt.get('cycle_low_weight', 1)
        self.diff_augment = DiffAugment(train_opt.get('diff_augment') or ())
        self.merge_g_calls, self.merge_d_calls, self.freeze_d = (
            train_opt.get(key, True) for key in ('merge_g_calls', 'merge_d_calls', 'freeze_d'))

        self.pools = {name: ImagePool(train_opt.get('pool_size', 50)) for name in ('d_a', 'd_b')}

    def _build_loss(self, loss_opt):
        """A loss, None for an empty section."""
        if not loss_opt:
            return None
        weight = loss_opt.get('loss_weight')
        if not isinstance(weight, list):
            return build_loss(loss_opt).to(self.device)
        criterion = build_loss({**loss_opt, 'loss_weight': weight[0]}).to(self.device)
        self.weight_schedules.append((criterion, *weight))
        return criterion

    def setup_optimizers(self):
        super().setup_optimizers()
        self.optimizer_g, self.optimizer_d = self.optimizers

    def feed_data(self, data):
        super().feed_data(data)
        self.teacher = self._to_network_range(data['teacher']) if 'teacher' in data else None

    def _train_step(self):
        """One CycleGAN step (eqs. 1-4)."""
        losses = OrderedDict()
        for criterion, first, last in self.weight_schedules:
            criterion.loss_weight = first + (last - first) * self.iteration / self.opt['train']['total_iter']

        # Generators. The discriminators only pass gradients on.
        self._set_requires_grad(('d_a', 'd_b'), not self.freeze_d)
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
        concatenated domains (``merge_g_calls``): four generator calls in place of six, with the same result. Without
        identity, G's translation and its half of the cycle share one: three in place of four.
        """
        net_g, net_f = self.networks['g'], self.networks['f']
        # Frozen ones are called bare, for their wrappers expect gradients of their own.
        d_a, d_b = self.networks['d_a'], self.networks['d_b']
        if self.freeze_d:
            d_a, d_b = self.get_bare_model(d_a), self.get_bare_model(d_b)
        with self._autocast():
            fake_low, same_low = self._translate(net_f, normal, low)
            jittered_low = fake_low if self.cycle_jitter is None else self.cycle_jitter(at_least_fp32(fake_low))
            if self.merge_g_calls and self.cri_identity is None and not self.translation_options:
                same_normal = None
                fake_normal, cycled_normal = net_g(torch.cat([low, jittered_low])).chunk(2)
            else:
                fake_normal, same_normal = self._translate(net_g, low, normal, **self.translation_options)
                cycled_normal = net_g(jittered_low)
            cycled_low = net_f(fake_normal) if self.cycle_low_weight else None
            logits_b, logits_a = self._judge(d_b, fake_normal), self._judge(d_a, fake_low)

        losses['l_gan_g'] = self._gan_loss(logits_b, True)  # eq. 2, first half
        losses['l_gan_f'] = self._gan_loss(logits_a, True)
        losses['l_cycle'] = self.cri_cycle(at_least_fp32(cycled_normal), normal)  # eq. 3
        if self.cycle_low_weight:
            losses['l_cycle'] = (
                self.cycle_low_weight * self.cri_cycle(at_least_fp32(cycled_low), low) + losses['l_cycle'])
        if self.cri_identity is not None:  # eq. 4
            losses['l_identity'] = (
                self.cri_identity(at_least_fp32(same_normal), normal) + self.cri_identity(at_least_fp32(same_low), low))
        cycled = cycled_normal if cycled_low is None else cycled_low
        self.visuals = OrderedDict(low=low, enhanced=fake_normal, normal=normal, cycled=cycled)
        fake_normal, fake_low = at_least_fp32(fake_normal), at_least_fp32(fake_low)
        if self.cri_color is not None:
            losses['l_color'] = self.cri_color((fake_normal + 1) / 2)
        if self.cri_tv is not None:
            losses['l_tv'] = self.cri_tv((fake_normal + 1) / 2)
        if self.cri_feature is not None:
            losses['l_feature'] = self.cri_feature(fake_normal, low)
        if self.cri_distill is not None:
            losses['l_distill'] = self.cri_distill(fake_normal, self.teacher)
        return fake_normal, fake_low

    def _translate(self, net, source, target, **options):
        """``net`` of the images that it translates and, for the identity loss, of those that it should leave alone."""
        if self.cri_identity is None:
            return net(source, **options), None
        if self.merge_g_calls:
            return net(torch.cat([source, target]), **options).chunk(2)
        return net(source, **options), net(target, **options)

    def _discriminator_loss(self, name, real, fake):
        """Half of the loss on real images and the history of fakes, in one call by ``merge_d_calls``."""
        with self._autocast():
            fake = self.pools[name].query(fake)
            if self.merge_d_calls:
                logits = self._judge(self.networks[name], torch.cat([real, fake]))
                real_logits, fake_logits = zip(*(scale.chunk(2) for scale in logits))
            else:
                real_logits, fake_logits = (self._judge(self.networks[name], images) for images in (real, fake))
        return 0.5 * (
            self._gan_loss(real_logits, True, is_disc=True) + self._gan_loss(fake_logits, False, is_disc=True))

    def _judge(self, net, images):
        """Logits of a discriminator, one tensor for each of its scales."""
        logits = net(self.diff_augment(images))
        return logits if isinstance(logits, list) else [logits]

    def _gan_loss(self, logits, is_real, is_disc=False):
        """Mean over the scales."""
        return sum(self.cri_gan(scale, is_real, is_disc) for scale in at_least_fp32(logits)) / len(logits)

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
