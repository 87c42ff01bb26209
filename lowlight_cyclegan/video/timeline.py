"""A first look at all frames: how bright they are, where scenes begin, and where a scene fades from or to black."""
from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import Interpolation
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .decode import colour_range

BLACK = 1.5 / 255  # mean luminance up to which a frame holds nothing but noise
STEPS = 6 / 255  # mean luminance below which grey levels are too coarse to compare pictures
LONGEST_FADE = 10.0  # seconds
PLATEAU = 0.5  # seconds without a brighter frame end a fade
LARGEST_STEP = 0.4  # of the light at a fade's end, from one frame to the next: else it is a cut
CUT = 0.3  # relative difference of thumbnails of equal mean


@dataclass
class Timeline:
    """What is known of a video's frames before they are enhanced.

    Attributes:
        times: Of the frames, in seconds.
        light: Their mean luminance, from 0 to 1.
        cuts: True where a frame shows another scene than the one before it.
        base: Timestamp of the first frame, in ticks.
    """
    times: list[float] = field(default_factory=list)
    light: list[float] = field(default_factory=list)
    cuts: list[bool] = field(default_factory=list)
    base: int = 0

    def fades(self) -> list[float]:
        """Share of a scene's light that each frame shows, from 0 to 1: below 1 within fades from and to black."""
        n = len(self.times)
        rising = _rises(self.times, self.light, self.cuts)
        falling = _rises([-time for time in self.times[::-1]], self.light[::-1], [False] + self.cuts[:0:-1])
        return [min(rising[i], falling[n - 1 - i]) for i in range(n)]


def read_timeline(frames: Iterable[av.VideoFrame], advance: Callable[[int], None] = lambda count: None) -> Timeline:
    """Timeline of decoded frames; ``advance`` is called with 1 after each."""
    timeline, last, last_thumbnail = Timeline(), 0.0, None
    for frame in frames:
        timeline.base = timeline.base if timeline.times else frame.pts
        picture = frame.reformat(64, 48, format='gray', src_color_range=colour_range(frame), dst_color_range=2,
                                 interpolation=Interpolation.AREA).to_ndarray() / 255.0
        light = float(picture.mean())
        thumbnail = picture.reshape(12, 4, 16, 4).mean((1, 3)) / max(light, 1e-6)
        timeline.cuts.append(min(light, last) > STEPS and (
            max(light, last) > 2 * min(light, last) or float(np.abs(thumbnail - last_thumbnail).mean()) > CUT))
        timeline.times.append(float(frame.pts * frame.time_base))
        timeline.light.append(light)
        last, last_thumbnail = light, thumbnail
        advance(1)
    return timeline


def _rises(times: list[float], light: list[float], cuts: list[bool]) -> list[float]:
    """Share of the light at the end of each rise from black, 1 elsewhere."""
    shares = [1.0] * len(times)
    start = 0
    while start < len(times):
        black_before = light[start - 1] <= BLACK if start else light[start] <= STEPS
        if not black_before or light[start] <= BLACK:
            start += 1
            continue
        top, i = start, start + 1
        while (i < len(times) and not cuts[i] and times[i] - times[top] <= PLATEAU
               and times[i] - times[start] <= LONGEST_FADE and light[i] > BLACK):
            if light[i] > 1.01 * light[top]:
                top = i
            i += 1
        if max(b - a for a, b in zip([0.0, *light[start:top]], light[start:top + 1])) <= LARGEST_STEP * light[top]:
            for j in range(start, top):
                shares[j] = min(1.0, light[j] / light[top])
        start = top + 1
    return shares
