"""History of generated images for the discriminators.

Reference: Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training",
CVPR 2017.
"""
import torch
from basicsr.utils import get_root_logger

__all__ = ['ImagePool']


class ImagePool:
    """Keeps up to ``size`` generated images and shows the discriminator a mixture of old and new ones.

    Args:
        size (int): Capacity in images; 0 returns every query unchanged. CycleGAN: 50.
    """

    def __init__(self, size):
        self.size = size
        self.images = []  # (c, h, w) each

    def query(self, images):
        """Store new images and return as many, each either new or (with probability 1/2, once full) an old one.

        Args:
            images (Tensor): (n, c, h, w), detached.

        Returns:
            Tensor: (n, c, h, w).
        """
        if self.size == 0:
            return images
        if self.images and self.images[0].shape != images.shape[1:]:  # resumed with other crops
            get_root_logger().warning(f'The history of generated images begins anew: crops of {_size(self.images[0])} '
                                      f'are {_size(images)} now.')
            self.images.clear()
        chosen = []
        for image in images:
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif torch.rand(()) < 0.5:
                index = int(torch.randint(self.size, ()))
                image, self.images[index] = self.images[index], image.clone()
            chosen.append(image)
        return torch.stack(chosen)

    def state_dict(self):
        """Images on the CPU, in order."""
        return {'images': [image.cpu() for image in self.images]}

    def load_state_dict(self, state, device):
        """Take back what :meth:`state_dict` gave, up to the present capacity."""
        self.images = [image.to(device) for image in state['images'][:self.size]]


def _size(image):
    return 'x'.join(map(str, image.shape[-2:]))
