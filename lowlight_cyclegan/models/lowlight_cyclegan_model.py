"""Unpaired low-light enhancement: CycleGAN training.

References:
    Kuang et al., "Research on Low-Light Image Enhancement Algorithm Based on GANs".
    Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017.
"""
import torch
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from collections import OrderedDict
from torch import nn

from lowlight_cyclegan.data.camera import Camera
from lowlight_cyclegan.registry import MODEL_REGISTRY
from .exposure_jitter import ExposureJitter
from .image_pool import ImagePool
from .lowlight_model import LowLightModel
from .speed import at_least_fp32

__all__ = ['LowLightCycleGANModel']

FIRST_WARNING = 100  # iterations: untrained generators invert as often as not


@MODEL_REGISTRY.register()
class LowLightCycleGANModel(LowLightModel):
    """CycleGAN between low-light images X (BasicSR's ``lq``) and normal-light images Y (``gt``).

    Networks: G (``network_g``) X -> Y, F (``network_f``) Y -> X, D_A (``network_d_a``) judges X, D_B (``network_d_b``)
    judges Y.

    Beyond the paper, each where the section ``train`` has it:

    - ``detach_exposure`` (bool): G's tone curve learns from the cycle alone.
    - ``cycle_jitter`` (dict): Arguments of :class:`ExposureJitter`, for F's pictures on their way back to G.
    - ``cycle_low_weight`` (float): Factor of the low images' half of eq. 3, F(G(X)) against X, which has G keep their
      noise for F to restore. At 0 that call of F is left out. Default: 1.
    - ``camera`` (dict): Arguments of :class:`Camera`, and ``share``: that part of the normal images comes to G from the
      camera, which takes them anew in the dark, instead of from F. A list has a share for each folder of normal images.
    - ``clip_grad`` (float): Largest norm of the generators' gradients.
    - ``fixed_g``, ``fixed_f`` (list[str]): Parameters that are not trained, by the beginning of their names.
    - ``distill_opt`` (dict): Loss of G(X) against a teacher's pictures of X, which the dataset gives as ``teacher``.
    """

    network_names = ('g', 'f', 'd_a', 'd_b')
    optimizer_networks = {'optim_g': ('g', 'f'), 'optim_d': ('d_a', 'd_b')}  # as in CycleGAN

    def _init_losses(self, train_opt):
        self.cri_gan, self.cri_cycle, self.cri_identity, self.cri_distill = (
            build_loss(train_opt[key]).to(self.device) if train_opt.get(key) else None
            for key in ('gan_opt', 'cycle_opt', 'identity_opt', 'distill_opt'))
        self.g_options = {'detach_exposure': True} if train_opt.get('detach_exposure') else {}
        self.cycle_jitter = ExposureJitter(**train_opt['cycle_jitter']) if train_opt.get('cycle_jitter') else None
        self.cycle_low_weight = train_opt.get('cycle_low_weight', 1)
        camera_opt = {'share': 0} if train_opt.get('camera') is None else dict(train_opt['camera'])
        self.camera_share, self.camera = camera_opt.pop('share', 1), Camera(**camera_opt)
        self.clip_grad = train_opt.get('clip_grad')
        self.pools = {name: ImagePool(train_opt.get('pool_size', 50)) for name in ('d_a', 'd_b')}
        self._warned = set()

    def setup_optimizers(self):
        super().setup_optimizers()
        self.optimizer_g, self.optimizer_d = self.optimizers

    def feed_data(self, data):
        super().feed_data(data)
        self.teacher = self._to_network_range(data['teacher']) if 'teacher' in data else None
        self.folders = data.get('gt_folder')

    def _train_step(self):
        """One step of G and F, then one of D_A and D_B (eqs. 1-4).

        The networks treat each image of a batch by itself, so calls of one network that do not depend on each other
        are one call on both batches: four generator calls instead of six, with the same result.

        Returns:
            OrderedDict[str, Tensor]: Losses, scalars with their weights.
        """
        net_g, net_f, net_d_a, net_d_b = self.networks.values()
        # X and Y, (n, 3, h, w) in [-1, 1]; the normal images that the camera darkens, and those that F does
        low, (camera, translated) = self.lq, self._split(self.gt)
        normal = torch.cat([camera, translated])
        low = low[:len(translated)]  # as many as F translates
        same_low = same_normal = cycled_low = None
        losses = OrderedDict()

        # The discriminators only pass gradients on to the generators. They are called bare, without the wrapper of a
        # distributed run, which expects gradients of their own.
        self._set_requires_grad(('d_a', 'd_b'), False)
        bare_d_a, bare_d_b = self.get_bare_model(net_d_a), self.get_bare_model(net_d_b)

        # Translate there and back; for the identity loss, also what should stay as it is.
        with self._autocast():
            if self.cri_identity is not None:
                fake_low, same_low = net_f(torch.cat([translated, low])).tensor_split([len(translated)])
            else:
                fake_low = net_f(translated) if len(translated) else translated
            way_back = fake_low if self.cycle_jitter is None else self.cycle_jitter(at_least_fp32(fake_low))
            if len(camera):
                way_back = torch.cat([self.camera((camera + 1) / 2)[0] * 2 - 1, at_least_fp32(way_back)])
            if self.cri_identity is not None:
                fake_normal, same_normal = net_g(torch.cat([low, normal]), **self.g_options).tensor_split([len(low)])
                cycled_normal = net_g(way_back)
            elif self.g_options:
                fake_normal, cycled_normal = net_g(low, **self.g_options), net_g(way_back)
            else:
                fake_normal, cycled_normal = net_g(torch.cat([low, way_back])).tensor_split([len(low)])
            if self.cycle_low_weight:
                cycled_low = net_f(fake_normal)
            if len(translated):
                logits_b, logits_a = bare_d_b(fake_normal), bare_d_a(fake_low)

        # Losses of the generators.
        if len(translated):  # the camera may take all
            losses['l_gan_g'] = self.cri_gan(at_least_fp32(logits_b), True)  # eq. 2: -ln D_B(G(x))
            losses['l_gan_f'] = self.cri_gan(at_least_fp32(logits_a), True)
        losses['l_cycle'] = self.cri_cycle(at_least_fp32(cycled_normal), normal)  # eq. 3: G(F(y)) and y, F(G(x)) and x
        if cycled_low is not None:
            cycle_low = self.cri_cycle(at_least_fp32(cycled_low), low)
            losses['l_cycle'] = self.cycle_low_weight * cycle_low + losses['l_cycle']
        if self.cri_identity is not None:  # eq. 4: G(y) and y, F(x) and x
            losses['l_identity'] = (
                self.cri_identity(at_least_fp32(same_normal), normal) + self.cri_identity(at_least_fp32(same_low), low))
        fake_normal, fake_low = at_least_fp32(fake_normal), at_least_fp32(fake_low)
        if self.cri_distill is not None:
            losses['l_distill'] = self.cri_distill(fake_normal, self.teacher)

        # Update the generators (eq. 1).
        self.optimizer_g.zero_grad()
        sum(losses.values()).backward()
        if self.clip_grad:
            nn.utils.clip_grad_norm_([p for group in self.optimizer_g.param_groups for p in group['params']],
                                     self.clip_grad)
        self.optimizer_g.step()

        # Losses of the discriminators: half of eq. 2, on real images and a history of generated ones.
        self._set_requires_grad(('d_a', 'd_b'), True)
        for name, net_d, real, fake in (('d_a', net_d_a, low, fake_low), ('d_b', net_d_b, translated, fake_normal)):
            if not len(fake):
                continue
            with self._autocast():
                images = torch.cat([real, self.pools[name].query(fake.detach())])
                real, fake = net_d(images).tensor_split([len(real)])  # logits
            losses[f'l_{name}'] = 0.5 * (
                self.cri_gan(at_least_fp32(real), True, is_disc=True) +
                self.cri_gan(at_least_fp32(fake), False, is_disc=True))

        # Update the discriminators.
        if len(translated):
            self.optimizer_d.zero_grad()
            (losses['l_d_a'] + losses['l_d_b']).backward()
            self.optimizer_d.step()

        cycled = cycled_normal if cycled_low is None else cycled_low
        self.visuals = OrderedDict(low=low, enhanced=fake_normal, normal=normal, cycled=cycled)
        return losses

    def _split(self, normal):
        if not isinstance(self.camera_share, list):
            return normal.tensor_split([round(self.camera_share * len(normal))])
        by_camera = torch.rand(len(normal)) < torch.tensor(self.camera_share)[self.folders]
        return normal[by_camera], normal[~by_camera]

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
            loss = log.get(f'l_{name}', chance)
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
