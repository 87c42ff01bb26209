"""Random exposure and sensor noise for generated low-light images."""
import torch

__all__ = ['ExposureJitter']


class ExposureJitter:
    """Varies a generated low image on its way back to G, so that G sees more exposures than F produces.

    With v in [0, 1]: v <- v^a, times one gain and one gain a channel (log-normal all three), highlights brighter, plus
    white noise, rounded to 8 bits. Gradients pass the rounding unchanged. The draws are those of torch's generator on
    the CPU.

    Args:
        power (float): Standard deviation of the exponent's logarithm. Default: 0.
        gain (float): Of the gain's logarithm. Default: 0.
        channel (float): Of the logarithm of each channel's own gain. Default: 0.
        noise (float): Largest standard deviation of the noise, drawn for each image. Default: 0.
        highlights (float): Largest share by which an image's brightest pixels get brighter, as lamps and skies are,
            which normal images show clipped; less bright ones by less. Default: 0.
    """

    def __init__(self, power=0.0, gain=0.0, channel=0.0, noise=0.0, highlights=0.0):
        self.power, self.gain, self.channel, self.noise, self.highlights = power, gain, channel, noise, highlights

    def __call__(self, images):
        """(n, 3, h, w) in [-1, 1] -> the same."""
        n = len(images)
        exponent = (self.power * torch.randn(n, 1, 1, 1)).exp()
        gain = (self.gain * torch.randn(n, 1, 1, 1) + self.channel * torch.randn(n, 3, 1, 1)).exp()
        noise = self.noise * torch.rand(n, 1, 1, 1) * torch.randn(images.shape)
        exponent, gain, noise = (v.to(images) for v in (exponent, gain, noise))
        v = ((images + 1) / 2).clamp(1e-4, 1)**exponent * gain
        if self.highlights:
            brightest = 1 + self.highlights * torch.rand(n, 1, 1, 1).to(v)
            share = (v / v.amax((1, 2, 3), keepdim=True))**(1 + 3 * torch.rand(n, 1, 1, 1).to(v))
            v = v / (1 - (1 - 1 / brightest) * share)
        v = v + noise
        v = v + ((v * 255).round() / 255 - v).detach()
        return v.clamp(0, 1) * 2 - 1
