"""ResNet generator with Efficient Multi-scale Attention (EMA) in its residual blocks and ASPP in its encoder.

References:
    Kuang et al., "Research on Low-Light Image Enhancement Algorithm Based on GANs": the generator.
    Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017: its trunk.
    Ouyang et al., "Efficient Multi-Scale Attention Module with Cross-Spatial Learning", ICASSP 2023: EMA.
"""
import torch
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .aspp_arch import ASPPEncoder, conv_norm_relu, init_for_relu, norm_layer
from .auto_exposure_arch import AutoExposure
from .exposure_head_arch import ExposureHead

__all__ = ['EMA', 'EMAResidualBlock', 'EMAResNetGenerator', 'convert_cyclegan_generator']


class EMA(nn.Module):
    """Efficient Multi-scale Attention (Ouyang et al., section 3 and figure 3).

    The channels are split into ``factor`` groups that share all weights. In each group, a 1x1 branch gates the features
    with their averages along rows and columns, a 3x3 branch sees local context, and each branch weighs the other's
    channels with the softmax of its own average (cross-spatial learning), which gives one gate a position.

    Args:
        channels (int): Input and output channels, a multiple of ``factor``.
        factor (int): Number of groups. With a single channel to a group its softmax is constant: keep at least four.
    """

    def __init__(self, channels, factor=32):
        super().__init__()
        if channels % factor:
            raise ValueError(f'EMA needs channels that are a multiple of ema_factor, got {channels} and {factor}.')
        self.factor = factor
        width = channels // factor
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)
        self.gn = nn.GroupNorm(width, width)

    def forward(self, x):
        """(n, c, h, w) -> (n, c, h, w)."""
        n, c, h, w = x.shape
        group = x.reshape(n * self.factor, c // self.factor, h, w)
        # Plain means, not AdaptiveAvgPool2d((None, 1)): that exports to ONNX with the traced size frozen in.
        rows, columns = group.mean(3, keepdim=True), group.mean(2, keepdim=True).transpose(2, 3)
        gate_h, gate_w = self.conv1x1(torch.cat([rows, columns], dim=2)).sigmoid().split([h, w], dim=2)
        local = self.conv3x3(group.contiguous(memory_format=torch.channels_last))  # faster with so few channels
        gated = self.gn(group * gate_h * gate_w.transpose(2, 3))
        # The average of a GroupNorm with one channel to a group is its bias, so the 1x1 branch's softmax needs no pass.
        weight_gated = self.gn.bias.softmax(0).view(1, 1, -1)  # (1, 1, c / factor)
        weight_local = local.mean((2, 3), dtype=self.gn.bias.dtype).softmax(1).unsqueeze(1)
        gate = weight_gated @ local.flatten(2) + weight_local @ gated.flatten(2)  # (n * factor, 1, h * w)
        return (group * gate.view(-1, 1, h, w).sigmoid()).reshape(n, c, h, w)


class EMAResidualBlock(nn.Module):
    """Residual block of CycleGAN with attention.

    Args:
        channels (int): Input and output channels.
        ema_factor (int): Groups of the attention.
        ema_position (str): 'branch' is x + EMA(F(x)), the reading of the paper taken as default; 'output' is
            r + EMA(r) with r = x + F(x).
        use_ema (bool): Without it, this is CycleGAN's block.
        norm (str | None): 'instance' (the paper's) or None, see :class:`ASPPEncoder`.
    """

    def __init__(self, channels, ema_factor=32, ema_position='branch', use_ema=True, norm='instance'):
        super().__init__()
        if ema_position not in ('branch', 'output'):
            raise ValueError(f"ema_position is 'branch' or 'output', got {ema_position!r}.")
        self.ema_position = ema_position
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), *conv_norm_relu(nn.Conv2d(channels, channels, 3), norm), nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3), norm_layer(norm, channels))
        if norm is None:
            init_for_relu(self.body)
        self.ema = EMA(channels, ema_factor) if use_ema else None

    def forward(self, x):
        """(n, c, h, w) -> (n, c, h, w)."""
        if self.ema is None:
            return x + self.body(x)
        if self.ema_position == 'branch':
            return x + self.ema(self.body(x))
        r = x + self.body(x)
        return r + self.ema(r)


@ARCH_REGISTRY.register()
class EMAResNetGenerator(nn.Module):
    """Encoder with ASPP, transformer of EMA residual blocks, decoder.

    The defaults are the paper's generator (13.61 M parameters). With ``use_ema`` and ``use_aspp`` off it is the
    original CycleGAN ResNet generator, weight for weight (11.38 M, see :func:`convert_cyclegan_generator`).

    Args:
        num_in_ch (int): Input channels. Default: 3.
        num_out_ch (int): Output channels. Default: 3.
        num_feat (int): Width after the first convolution. Default: 64.
        num_block (int): Residual blocks. Default: 9.
        use_ema (bool): Attention in the residual blocks. Default: True.
        ema_factor (int): Groups of the attention; 8 suits narrow generators. Default: 32.
        ema_position (str): 'branch' or 'output', see :class:`EMAResidualBlock`. Default: 'branch'.
        use_aspp (bool): ASPP at the end of the encoder. Default: True.
        aspp_width (int | None): Channels of an ASPP branch; None means 4 * num_feat. Default: None.
        aspp_dilations (Sequence[int]): Default: (4, 8, 16).
        upsample (str): 'deconv' (transposed convolutions, the paper) or 'resize' (nearest-neighbour upsampling and a
            3x3 convolution, which leaves no checkerboard). Default: 'deconv'.
        head (str): Default: 'tanh'.

            - 'tanh': the decoder paints the picture itself, as in the paper.
            - 'gain': the decoder's picture is added to the input after :class:`AutoExposure`, by three 3x3
              convolutions that see both.
            - 'exposure': encoder and transformer, here without normalisation, which would erase the brightness, judge a
              thumbnail for :class:`ExposureHead`. There is no decoder; any size is enhanced in bounded memory.
        gain_mean (float): Mean brightness of the output's domain, in [0, 1], for head 'gain'. Default: 0.45.
        gain_power (float): Exponent that leads from the input's to the output's domain, for head 'gain'. Default: 0.5.
    """

    def __init__(self,
                 num_in_ch=3,
                 num_out_ch=3,
                 num_feat=64,
                 num_block=9,
                 use_ema=True,
                 ema_factor=32,
                 ema_position='branch',
                 use_aspp=True,
                 aspp_width=None,
                 aspp_dilations=(4, 8, 16),
                 upsample='deconv',
                 head='tanh',
                 gain_mean=0.45,
                 gain_power=0.5):
        super().__init__()
        if upsample not in ('deconv', 'resize'):
            raise ValueError(f"upsample is 'deconv' or 'resize', got {upsample!r}.")
        if head not in ('tanh', 'gain', 'exposure'):
            raise ValueError(f"head is 'tanh', 'gain' or 'exposure', got {head!r}.")
        self.head = head
        seen, norm = (2 * num_in_ch + 1, None) if head == 'exposure' else (num_in_ch, 'instance')
        self.encoder = ASPPEncoder(seen, num_feat, use_aspp, aspp_width, aspp_dilations, norm)
        channels = self.encoder.num_out_ch
        self.transformer = nn.Sequential(
            *[EMAResidualBlock(channels, ema_factor, ema_position, use_ema, norm) for _ in range(num_block)])
        if head == 'exposure':
            for block in self.transformer:
                nn.init.zeros_(block.body[5].weight)  # a block starts as the identity
            self.exposure = ExposureHead(channels)
            return
        decoder = _upsample(channels, channels // 2, upsample) + _upsample(channels // 2, channels // 4, upsample)
        if head != 'gain':
            decoder += [nn.ReflectionPad2d(3), nn.Conv2d(num_feat, num_out_ch, 7)]
        self.decoder = nn.Sequential(*decoder)
        self.apply(_init_weights)
        if head == 'gain':
            self.exposure = AutoExposure(gain_mean, gain_power)
            self.fine = nn.Sequential(
                nn.Conv2d(num_feat + num_in_ch, 2 * num_feat, 3, padding=1), nn.LeakyReLU(0.2),
                nn.Conv2d(2 * num_feat, num_feat, 3, padding=1), nn.LeakyReLU(0.2),
                nn.Conv2d(num_feat, num_out_ch, 3, padding=1))
            for layer in self.fine[::2]:
                nn.init.kaiming_normal_(layer.weight, 0.2)
                nn.init.zeros_(layer.bias)
            nn.init.zeros_(self.fine[4].weight)  # training starts from the exposed input

    def forward(self, x, detach_exposure=False):
        """(n, 3, h, w) in [-1, 1] -> the same shape and range, for any h and w of at least 32.

        It is ``apply(x, predict(thumbnail(x)))``: the three steps are public for those who smooth what is predicted or
        run a large picture in parts. With ``detach_exposure`` the losses of this output do not train the prediction.
        """
        x = x.view_as(x) if x.requires_grad else x  # gradients of both uses are added before those of other users of x
        curve = self.predict(self.thumbnail(x))
        if detach_exposure and curve is not None:
            curve = type(curve)(*(value.detach() for value in curve))
        return self.apply(x, curve)

    @property
    def handles_any_size(self):
        """Whether memory stays bounded and :meth:`apply` takes the strength, so that no other mode is needed."""
        return self.head == 'exposure'

    def thumbnail(self, x):
        """(n, 3, h, w) in [-1, 1] -> what the prediction looks at, a small picture in [0, 1]; None for head 'tanh'."""
        if self.head == 'exposure':
            return self.exposure.thumbnail(x)
        return self.exposure.thumbnail((_pad(x) + 1) / 2) if self.head == 'gain' else None

    def predict(self, thumbnail):
        """:meth:`thumbnail` -> ``ToneCurve`` or ``ExposureCurves`` of each image; None for head 'tanh'."""
        if self.head == 'exposure':
            gain, statistics, seen = self.exposure.encoder_input(thumbnail)
            return self.exposure.predict(gain, statistics, self.transformer(self.encoder(seen)))
        return self.exposure.predict(thumbnail) if self.head == 'gain' else None

    def apply(self, x, curve=None, strength=1.0):
        """The picture, given what was predicted. (With a function in the place of x it is ``nn.Module.apply``.)

        Args:
            x (Tensor): (n, 3, h, w) in [-1, 1].
            curve (ToneCurve | ExposureCurves | None): :meth:`predict` of it.
            strength (float): Share of the change: 0 gives x, 1 the enhanced picture; head 'exposure' has values above 1
                exaggerate. Default: 1.

        Returns:
            Tensor: (n, 3, h, w) in [-1, 1].
        """
        if callable(x):
            return super().apply(x)
        if self.head == 'exposure':
            return self.exposure.apply(x, curve, strength)
        h, w = x.shape[2:]
        padded = _pad(x)
        if self.head == 'gain':
            exposed = self.exposure.expose((padded + 1) / 2, curve) * 2 - 1
            seen = exposed.clamp(-1.0, 1.5)  # overexposed, but within what the network can take
            features = self.decoder(self.transformer(self.encoder(seen)))
            y = torch.tanh(self.fine(torch.cat([features, seen], dim=1)))
            y = y - y.mean((1, 2, 3), keepdim=True)  # brightness is the exposure's alone
            y = (exposed + y).clamp(-1, 1)
        else:
            y = torch.tanh(self.decoder(self.transformer(self.encoder(padded))))
        y = y[:, :, :h, :w]
        return y if strength == 1 else torch.lerp(x, y.to(x.dtype), strength)


def _pad(x):
    """Mirrored at the bottom and on the right to multiples of 4, the encoder's stride."""
    pad_h, pad_w = -x.shape[2] % 4, -x.shape[3] % 4
    return F.pad(x, (0, pad_w, 0, pad_h), mode='reflect') if pad_h or pad_w else x


def _upsample(in_ch, out_ch, mode):
    if mode == 'deconv':
        return conv_norm_relu(nn.ConvTranspose2d(in_ch, out_ch, 3, stride=2, padding=1, output_padding=1))
    return [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), *conv_norm_relu(nn.Conv2d(in_ch, out_ch, 3))]


def _init_weights(module):
    # CycleGAN's initialisation. GroupNorm keeps PyTorch's (ones and zeros).
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def convert_cyclegan_generator(state_dict):
    """Rename the keys of an original CycleGAN ResNet generator (``model.1.weight`` ...) to this plain variant's.

    Args:
        state_dict (dict[str, Tensor]): State dict of ``resnet_6blocks`` or ``resnet_9blocks`` with InstanceNorm, as the
            authors' code saves it.

    Returns:
        dict[str, Tensor]: State dict for ``EMAResNetGenerator(use_ema=False, use_aspp=False, num_block=6 or 9)``.

    Raises:
        ValueError: If a key is not one of such a generator.
    """
    # Running statistics of old checkpoints belong to norms that never used them.
    state_dict = {k: v for k, v in state_dict.items() if not k.endswith(('running_mean', 'running_var', 'tracked'))}
    num_block = len({k.split('.')[1] for k in state_dict if '.conv_block.' in k})
    names = {'1': 'encoder.stem.1', '4': 'encoder.down.0', '7': 'encoder.down.3'}
    names.update({str(10 + num_block): 'decoder.0', str(13 + num_block): 'decoder.3', str(17 + num_block): 'decoder.7'})
    for i in range(num_block):
        names.update({f'{10 + i}.conv_block.1': f'transformer.{i}.body.1'})
        names.update({f'{10 + i}.conv_block.5': f'transformer.{i}.body.5'})
    converted = {}
    for key, value in state_dict.items():
        name, _, leaf = key.removeprefix('module.').removeprefix('model.').rpartition('.')
        if name not in names:
            raise ValueError(f'{key!r} is not a key of a CycleGAN ResNet generator with InstanceNorm.')
        converted[f'{names[name]}.{leaf}'] = value
    return converted
