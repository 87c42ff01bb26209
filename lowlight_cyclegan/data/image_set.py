"""The images of one domain: decoded once, read from disk or held in memory."""
import cv2
import numpy as np
import torch
from basicsr.utils import get_root_logger
from os import path as osp

from lowlight_cyclegan.data.data_util import FileReader, decode_image, map_threaded, read_name_list, scan_images

__all__ = ['ImageSet', 'height_width']

_CHUNK_BYTES = 2**26


def height_width(size):
    """(h, w) of a size in an option file: the side of a square or [h, w]."""
    return (size, size) if isinstance(size, int) else tuple(size)


class ImageSet:
    """The images of one domain, read from disk or LMDB, or held in RAM.

    Pixels in RAM lie in a few large uint8 tensors: forked workers read the parent's pages, spawned workers receive
    the tensors through shared memory (one handle each, where one per image could exceed the limit of open files),
    and a crop is a slice.

    Args:
        key (str): 'lq', 'gt' or 'teacher': the options' ``dataroot_<key>`` is read.
        opt (dict): See :class:`UnpairedImageDataset`.

    Raises:
        FileNotFoundError: The folder is missing.
        ValueError: One line: the folder holds no image, or exclude_names leaves none.
    """

    def __init__(self, key, opt):
        self.key = key
        folders = opt[f'dataroot_{key}']
        folders = folders if isinstance(folders, list) else [folders]
        roots = [osp.expanduser(folder) for folder in folders]  # BasicSR does so for lq and gt alone
        weights = opt.get(f'weights_{key}') or [1] * len(roots)
        if len(weights) != len(roots):
            raise ValueError(f'weights_{key}: has {len(weights)} numbers for {len(roots)} folders of dataroot_{key}')
        if len(roots) > 1 and opt['io_backend']['type'] == 'lmdb':
            raise ValueError(f'dataroot_{key}: several folders need io_backend: type: disk')
        self.root = ', '.join(roots)
        # Crops of any scale are resized; others need images that are large enough.
        self.crop = (1, 1) if opt.get('crop_scale') else height_width(opt['gt_size'])
        self.resize = opt.get('resize')
        self.chunks = []
        self.places = []  # (chunk, start, height, width) of each image in RAM
        self.shapes = []  # (3, h, w) of each image, filled by scan

        images = []
        self.weights = {}  # path -> how often a pass shows the image
        self.folders = {}  # path -> number of its folder
        for number, (root, weight) in enumerate(zip(roots, weights)):
            found = scan_images(root, f'dataroot_{key}', opt['io_backend'])
            images += found
            self.weights.update((path, weight) for _, path in found)
            self.folders.update((path, number) for _, path in found)
        self.reader = FileReader(opt['io_backend'], {key: roots[0]})
        excluded = set(read_name_list(opt['exclude_names'], 'exclude_names')) if opt.get('exclude_names') else set()
        self.names = {path: name for name, path in images if name not in excluded}
        self.paths = list(self.names)
        self.num_excluded = len(images) - len(self.paths)
        if not self.paths:
            raise ValueError(f"dataroot_{key}: exclude_names leaves no image in '{self.root}'")
        if excluded and not self.num_excluded and key != 'teacher':  # it may have left them out itself
            get_root_logger().warning(f"dataroot_{key}: none of the {len(excluded)} names of '{opt['exclude_names']}' "
                                      f"is in '{self.root}'; nothing is excluded")

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        """Image as (3, h, w) uint8 RGB tensor; at least as large as gt_size."""
        if not self.places:
            return self.read(self.paths[index])
        chunk, start, h, w = self.places[index]
        return self.chunks[chunk][start:start + 3 * h * w].view(3, h, w)

    def read(self, path):
        """Read, decode, reduce and pad one image: (3, h, w) uint8 RGB tensor. Raises ValueError for a bad file."""
        try:
            img = decode_image(self.reader.get(path, self.key))
        except (OSError, ValueError) as error:
            raise ValueError(f"dataroot_{self.key}: '{path}' cannot be read ({error})") from None

        if self.resize:
            h, w = img.shape[:2]
            if isinstance(self.resize, int):
                scale = min(1, self.resize / min(h, w))
                h, w = round(h * scale), round(w * scale)
            else:
                h, w = self.resize
            img = cv2.resize(img, (w, h), interpolation=cv2.INTER_AREA)

        missing_h, missing_w = (max(0, crop - side) for crop, side in zip(self.crop, img.shape[:2]))
        if missing_h or missing_w:  # np.pad reflects as often as needed, cv2 and torch do not
            img = np.pad(img, ((missing_h // 2, missing_h - missing_h // 2),
                               (missing_w // 2, missing_w - missing_w // 2), (0, 0)), mode='reflect')
        return torch.from_numpy(np.ascontiguousarray(img[..., ::-1].transpose(2, 0, 1)))

    def scan(self, budget):
        """Decode every image once: drop the unreadable ones and, as long as they fit the budget, keep the pixels.

        Args:
            budget (int): Bytes of pixels to keep at most.

        Returns:
            int: Bytes of all readable images.

        Raises:
            ValueError: None can be read.
        """

        def try_read(path):
            try:
                return self.read(path)
            except ValueError as error:
                return error

        paths, size = [], 0
        for path, img in zip(self.paths, map_threaded(try_read, self.paths), strict=True):
            if isinstance(img, ValueError):
                get_root_logger().warning(f'{img}: skipped')
                continue
            paths.append(path)
            self.shapes.append(img.shape)
            size += img.numel()
            if size <= budget:
                self._hold(img)
            else:
                self.release()
        if not paths:
            raise ValueError(f"dataroot_{self.key}: none of the {len(self.paths)} images in '{self.root}' can be read")
        self.paths, self.shapes, self.places = (
            [value for path, value in zip(paths, values) for _ in range(self.weights[path])]
            for values in (paths, self.shapes, self.places))
        return size

    def _hold(self, img):
        """Copy an image into the last chunk, or into a new one where it does not fit."""
        if not self.chunks or self.end + img.numel() > self.chunks[-1].numel():
            self.chunks.append(torch.empty(max(_CHUNK_BYTES, img.numel()), dtype=torch.uint8))
            self.end = 0
        self.chunks[-1][self.end:self.end + img.numel()] = img.view(-1)
        self.places.append((len(self.chunks) - 1, self.end, *img.shape[1:]))
        self.end += img.numel()

    def release(self):
        """Give the RAM back; images are read from disk or LMDB from now on."""
        self.chunks.clear()
        self.places.clear()
