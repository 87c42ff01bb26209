"""Brightness that is right and steady over time, whatever the network does with single pictures."""
from __future__ import annotations

import math
import torch
from dataclasses import replace
from torch import Tensor
from torch.nn import functional as F
from typing import Any

from lowlight_cyclegan.archs.ema_resnet_arch import EMAResNetGenerator
from lowlight_cyclegan.enhance.enhancer import LUMA, Enhancer, Result
from .timeline import BLACK

CUT = 0.3  # relative difference of two thumbnails between which another scene begins
MOTION = 0.1  # difference of thumbnails of equal mean after which a map has adapted
BRIGHTENING = 0.4  # difference of the logarithms of the light at which all adapts at once: flicker is far below it
DAYLIGHT = (0.3, 0.5)  # mean luminance at which a picture begins to need no enhancement, and at which it needs none


class TemporalSmoother:
    """Lets what a network adapts to change slowly within a scene, and at once where another scene begins.

    - Of what a network's ``predict`` step returns, every number and map is an exponential moving average over time, so
      variable frame rates are no special case. What is predicted are exposures in stops, exponents and the like: a
      change of the scene's light adds to them or leaves them as they are. Maps also follow what moves, and all follow
      light that goes on or off, where waiting would show the scene too bright or too dark.
    - The mean luminance of every network's output changes from one frame to the next by no more than that of the input
      does, in the same direction; what is left of the change follows slowly.
    - A new scene is where a thumbnail of the luminance differs from the last frame's by more than ``CUT`` of its mean.
    - A frame within a fade is enhanced as the scene that fades, and darkened afterwards as it was.
    - Black frames stay as they are. Of a network that darkens white, so does daylight: it gives every picture one
      brightness.

    Args:
        seconds: Time constant; 0 smooths nothing.
        keeps_white: What :func:`keeps_white` says of the network.
    """

    def __init__(self, seconds: float = 1.0, keeps_white: bool = True) -> None:
        self.seconds, self.keeps_white = seconds, keeps_white
        self._light: list[float] | None = None  # mean luminance of the last input and output, as logarithms
        self._last: tuple[float, Tensor] | None = None  # time of the last frame and its thumbnail, (192,)
        self._reference = 0.0  # logarithm of the light that the curve suits
        self._curve: list[Tensor] = []  # what was applied to the last frame
        self._weight = self._map_weight = 1.0

    def state_dict(self) -> dict[str, Any]:
        """What the next frame depends on, for JSON."""
        return {'light': self._light, 'reference': self._reference,
                'curve': [value.tolist() for value in self._curve],
                'last': None if self._last is None else (self._last[0], self._last[1].tolist())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the frame whose :meth:`state_dict` this is."""
        self._light, self._reference = state['light'], state['reference']
        self._curve = [torch.tensor(value) for value in state['curve']]
        self._last = None if state['last'] is None else (state['last'][0], torch.tensor(state['last'][1]))

    def enhance(self, enhancer: Enhancer, x: Tensor, time: float, strength: float = 1.0, mode: str | None = None,
                share: float = 1.0) -> Result:
        """Enhance the next frame.

        Args:
            enhancer: For all frames the same.
            x: (1, 3, h, w) in [0, 1].
            time: Of the frame, in seconds.
            strength: From 0 to 1.
            mode: Instead of the enhancer's.
            share: Of the scene's light that the frame shows, in (0, 1]: below 1 within a fade.
        """
        light = _luminance(x)
        if light <= BLACK:
            self.begin(x, time)
            return Result(x, None, 'a black frame stays as it is')
        if share < 1:
            x, light = (x / share).clamp_(0, 1), light / share
        else:
            strength *= min(1.0, light / BLACK - 1)
        if not self.keeps_white:
            dark, bright = DAYLIGHT
            strength *= min(max((bright - light) / (bright - dark), 0.0), 1.0)
        self.begin(x, time, share)
        has_steps = isinstance(enhancer.network, EMAResNetGenerator)
        adapt = self.adapt if has_steps and not enhancer.self_ensemble else None  # whose maps are mirrored
        result = enhancer.enhance_with_report(x, strength, mode, adapt)
        return replace(result, image=self.limit(x, result.image) * share)

    def begin(self, x: Tensor, time: float, share: float = 1.0) -> bool:
        """Look at the next frame, (1, 3, h, w) in [0, 1], shown at ``time`` in seconds; True if a scene begins."""
        light = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        thumbnail = F.interpolate(light, (12, 16), mode='area').flatten().cpu()
        last_time, last = self._last or (time, thumbnail)
        begins = self._last is None or _difference(thumbnail, last) > CUT
        now = math.log(max(1e-3, float(thumbnail.mean())))
        if begins:
            self._curve, self._light, self._reference = [], None, now
        elif self.seconds > 0:
            constants = max(0.0, time - last_time) / self.seconds + ((now - self._reference) / BRIGHTENING)**2
            equal = (values / values.mean().clamp_min(1e-6) for values in (thumbnail, last))
            motion = _difference(*equal) / MOTION
            # The darker a frame of a fade, the coarser what is predicted from it, and the less does a change show.
            self._weight, self._map_weight = (
                max(1 - share, -math.expm1(-change)) for change in (constants, constants + motion))
            self._reference += self._weight * (now - self._reference)
        self._last = time, thumbnail
        return begins

    def adapt(self, thumbnail: Tensor | None, curve: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
        """Predictions of this frame, numbers (1, c, ...) and maps (1, c, h, w) -> those to apply to it instead."""
        if curve is None:
            return None
        values = [value.float().cpu() for value in curve]
        if self._curve and self.seconds > 0:
            maps = (value.dim() > 2 and value[0, 0].numel() > 1 for value in values)
            values = [torch.lerp(old, new, self._map_weight if is_map else self._weight)
                      for old, new, is_map in zip(self._curve, values, maps)]
        self._curve = values
        values = [value.to(like) for value, like in zip(values, curve)]
        return type(curve)(*values) if hasattr(curve, '_fields') else tuple(values)

    def limit(self, x: Tensor, y: Tensor) -> Tensor:
        """Let the mean luminance of the output y change no more than the input's: (1, 3, h, w) in [0, 1] each."""
        now, own = (math.log(max(1e-3, _luminance(v))) for v in (x, y))
        if self._light and self.seconds > 0:
            last_now, last = self._light
            change = now - last_now
            within = min(max(own - last, min(0.0, change)), max(0.0, change))
            steady = last + within + self._weight * (own - last - within)
            y, own = (y * math.exp(steady - own)).clamp(0, 1), steady
        self._light = [now, own]
        return y


def keeps_white(enhancer: Enhancer) -> bool:
    """Whether a network leaves white about as it is, so that it can be trusted with pictures that are not dark."""
    return _luminance(enhancer.enhance_with_report(torch.ones(1, 3, 64, 64), 1.0, None, None).image) > 0.9


def _luminance(x: Tensor) -> float:
    return x.double().mean((0, 2, 3)).dot(x.new_tensor(LUMA).double()).item()


def _difference(a: Tensor, b: Tensor) -> float:
    # Half a grey level keeps the noise of black frames from looking like a change.
    return ((a - b).abs().sum() / (max(a.sum(), b.sum()) + len(a) * 0.5 / 255)).item()
