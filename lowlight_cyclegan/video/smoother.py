"""Brightness that is steady over time."""
from __future__ import annotations

import math
from dataclasses import replace
from torch import Tensor
from torch.nn import functional as F
from typing import Any

from lowlight_cyclegan.archs import AutoExposure, EMAResNetGenerator
from lowlight_cyclegan.enhance.enhancer import LUMA, Enhancer, Result


class TemporalSmoother:
    """Lets what a network adapts to change slowly within a scene, and at once where another scene begins.

    That is, of the tone curve that a network's ``predict`` step returns, every number. Of every network's output, the
    mean luminance changes from one frame to the next by no more than that of the input does, in the same direction;
    what is left of the change follows slowly.

    Slowly is an exponential moving average of logarithms over time, so variable frame rates are no special case. A new
    scene is where a thumbnail of the luminance differs from the last frame's by more than ``cut`` of its mean.

    Args:
        seconds: Time constant; 0 smooths nothing.
        cut: Relative difference of the thumbnails at which a scene begins.
    """

    def __init__(self, seconds: float = 1.0, cut: float = 0.3) -> None:
        self.seconds, self.cut = seconds, cut
        self._time: float | None = None
        self._thumbnail: list[float] | None = None
        self._values: dict[str, list[float]] = {}
        self._weight = 1.0

    def state_dict(self) -> dict[str, Any]:
        """What the next frame depends on, for JSON."""
        return {'time': self._time, 'thumbnail': self._thumbnail, 'values': self._values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the frame whose :meth:`state_dict` this is."""
        self._time, self._thumbnail, self._values = state['time'], state['thumbnail'], dict(state['values'])

    def begin(self, x: Tensor, time: float) -> bool:
        """Look at the next frame, (1, 3, h, w) in [0, 1], shown at ``time`` in seconds; True if a scene begins."""
        light = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        thumbnail = F.interpolate(light, (12, 16), mode='area').flatten().tolist()
        begins = self._thumbnail is None or _difference(thumbnail, self._thumbnail) > self.cut
        if begins:
            self._values = {}
        elif self.seconds > 0:
            self._weight = -math.expm1(-max(0.0, time - self._time) / self.seconds)
        self._time, self._thumbnail = time, thumbnail
        return begins

    def smooth(self, name: str, values: Tensor) -> Tensor:
        """Positive values of this frame -> those to use instead, of the same shape."""
        logs = [math.log(max(value, 1e-12)) for value in values.flatten().tolist()]
        if name in self._values and self.seconds > 0:
            logs = [old + self._weight * (new - old) for old, new in zip(self._values[name], logs)]
        self._values[name] = logs
        return values.new_tensor([math.exp(log) for log in logs]).view(values.shape)

    def adapt(self, thumbnail: Tensor, curve: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
        """The tone curve to apply to this frame in place of the one predicted from its thumbnail, in [0, 1]."""
        if curve is None:
            return None
        mean, power, balance = (self.smooth(f'curve.{i}', value) for i, value in enumerate(curve))
        # The curve divides by the average of this frame: let that cancel out, but for what is smoothed of it.
        average = AutoExposure.brighten(thumbnail, power).mean((1, 2, 3), keepdim=True)
        return mean * average / self.smooth('average', average), power, balance

    def enhance(self, enhancer: Enhancer, x: Tensor, time: float, strength: float = 1.0,
                mode: str | None = None) -> Result:
        """Enhance the next frame, (1, 3, h, w) in [0, 1]."""
        self.begin(x, time)
        adapt = self.adapt if isinstance(enhancer.network, EMAResNetGenerator) else None
        result = enhancer.enhance_with_report(x, strength, mode, adapt)
        return replace(result, image=self.limit(x, result.image))

    def limit(self, x: Tensor, y: Tensor) -> Tensor:
        """Let the mean luminance of the output y change no more than the input's: (1, 3, h, w) in [0, 1] each."""
        now, own = (math.log(max(1e-3, v.double().mean((0, 2, 3)).dot(v.new_tensor(LUMA).double()).item()))
                    for v in (x, y))
        if 'light' in self._values and self.seconds > 0:
            last_now, last = self._values['light']
            change = now - last_now
            within = min(max(own - last, min(0.0, change)), max(0.0, change))
            steady = last + within + self._weight * (own - last - within)
            y, own = (y * math.exp(steady - own)).clamp(0, 1), steady
        self._values['light'] = [now, own]
        return y


def _difference(a: list[float], b: list[float]) -> float:
    # Half a grey level keeps the noise of black frames from looking like a change.
    return sum(abs(p - q) for p, q in zip(a, b)) / (max(sum(a), sum(b)) + len(a) * 0.5 / 255)
