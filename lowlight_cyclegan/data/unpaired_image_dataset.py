"""Training samples of two domains whose images are not paired."""
import cv2
import numpy as np
import os
import torch
from basicsr.utils import get_root_logger
from torch.utils import data as data

from lowlight_cyclegan.data.image_set import ImageSet, height_width
from lowlight_cyclegan.files import available_memory
from lowlight_cyclegan.registry import DATASET_REGISTRY

__all__ = ['UnpairedImageDataset']

# independent random streams under one manual_seed
_AUGMENTATION, _NORMAL_ORDER = 0, 1

@DATASET_REGISTRY.register()
class UnpairedImageDataset(data.Dataset):
    """Random crops of low-light images and of unrelated normal-light images, for training.

    Index i gives low image i. The normal image is drawn independently of it: the draws of an epoch run through
    random permutations of the normal images, so that all of them are used equally often. Crops and flips of the two
    are independent as well.

    With an index of EpochSampler a sample is a pure function of manual_seed, epoch and draw, whatever the workers
    and ranks. A plain int gives a fresh sample from torch's generator.

    All images are decoded once at the start, in threads: a file that cannot be read is reported and left out before
    the run begins, whether or not the pixels are kept in RAM afterwards.

    Args:
        opt (dict): Config for train datasets. It contains the following keys:
            dataroot_lq (str | list[str]): Folder or LMDB of low-light images; or several folders.
            dataroot_gt (str | list[str]): The same of normal-light images.
            weights_lq, weights_gt (list[int]): How often a pass shows each image of a folder. Default: once.
            dataroot_teacher (str | None): Folder or LMDB of what a teacher made of the low images, under their names
                (without extension) and in their sizes. Default: None.
            io_backend (dict): IO backend type (disk | lmdb) and its own options.
            gt_size (int | list[int]): Crops: side of a square, or [h, w]. Smaller images are reflect-padded.
            crop_scale (list[float]): Resize crops of a random size and a slightly random shape to gt_size, antialiased:
                [smallest, largest] share of the largest crop that fits; three of ten are transposed, which makes
                upright pictures of lying ones. Default: None, crops of gt_size.
            use_hflip (bool): Use horizontal flips.
            resize (int | list[int]): Reduce images before cropping (area interpolation): an int is the length of the
                shorter side, smaller images stay as they are; [h, w] is the exact size. Default: None.
            exclude_names (str): List file of names (without extension) to leave out in all folders. Default: None.
            cache (bool): Keep the decoded images in RAM, shared by the workers. Default: True.
            cache_limit_gb (float | None): Largest cache in GB (1e9 bytes); beyond it images are read from disk. None
                is half of the memory that is available at the start, shared by the processes of this machine.
                Default: None.
            manual_seed (int): Seed of all random choices. Default: 0.
            phase (str): 'train'.

    Returns (of an index):
        dict: lq, gt: uint8 RGB tensors (3, h, w) of the crop in [0, 255]; lq_path, gt_path: str; gt_folder:
            int, which folder of dataroot_gt; epoch: int. With a teacher, teacher: its picture of lq.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: One line: a folder without a usable image, or a wrong option.
    """

    def __init__(self, opt):
        super().__init__()
        if opt['phase'] != 'train':
            raise ValueError(f"UnpairedImageDataset: phase '{opt['phase']}' is not supported, it gives random crops; "
                             'validate with PairedImageDataset, PairedNameListDataset or SingleImageDataset')
        for key, meaning in (('gt_size', 'the side of square crops'), ('resize', 'the shorter side')):
            size = opt.get(key)
            sides = size if isinstance(size, (list, tuple)) and len(size) == 2 else [size]
            if size is not None and not all(type(side) is int and side > 0 for side in sides):
                raise ValueError(f'{key}: {size} is neither {meaning} in pixels nor [height, width]')
        scale = opt.get('crop_scale')
        if scale is not None and not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise ValueError(f'crop_scale: {scale} is not [smallest, largest] share of a picture, above 0 and up to 1')
        self.opt = opt
        self.crop = height_width(opt['gt_size'])
        self.crop_scale = scale
        self.use_hflip = opt['use_hflip']
        self.seed = (opt.get('manual_seed') or 0) % 2**64
        self.low = ImageSet('lq', opt)
        self.normal = ImageSet('gt', opt)
        self.teacher = ImageSet('teacher', opt) if opt.get('dataroot_teacher') is not None else None
        self._load(opt.get('cache', True), opt.get('cache_limit_gb'))
        self._pair_teacher()
        self._order = None, None

    def _load(self, cache, limit_gb):
        logger = get_root_logger()
        bound = f'cache_limit_gb: {limit_gb}'
        if limit_gb is None:
            limit_gb = available_memory() / 2e9 / int(os.environ.get('LOCAL_WORLD_SIZE', 1))
            bound = f'{limit_gb:.2f} GB, half of the available memory shared by the processes of this machine'
        limit = int(limit_gb * 1e9) if cache else 0
        size = self.low.scan(limit)
        for images in (self.normal, self.teacher):
            size += images.scan(limit - size) if images else 0
        where = f'{size / 1e9:.2f} GB decoded'
        if cache and size <= limit:
            where += f', held in RAM (limit {limit_gb:.2f} GB)'
        elif cache:
            for images in filter(None, (self.low, self.normal, self.teacher)):
                images.release()
            logger.warning(f'The images take {where}, more than {bound}; they are read from '
                           f"{self.opt['io_backend']['type']} instead. Raise cache_limit_gb, or reduce with resize.")
        sets = ', '.join(f'{len(images)} {name} images ({images.num_excluded} excluded)'
                         for name, images in (('low', self.low), ('normal', self.normal), ('teacher', self.teacher))
                         if images)
        logger.info(f'{sets}, {where}')

    def _pair_teacher(self):
        """Find the teacher's picture of each low image."""
        if self.teacher is None:
            return
        of_name = {self.teacher.names[path]: index for index, path in enumerate(self.teacher.paths)}
        missing = [name for name in map(self.low.names.get, self.low.paths) if name not in of_name]
        if missing:
            raise ValueError(f"dataroot_teacher: no picture named {', '.join(missing[:5])} that can be read in "
                             f"'{self.teacher.root}' ({len(missing)} of {len(self.low)} low images have none)")
        self._teacher_index = [of_name[self.low.names[path]] for path in self.low.paths]
        for path, shape, index in zip(self.low.paths, self.low.shapes, self._teacher_index):
            if shape != self.teacher.shapes[index]:
                (_, low_h, low_w), (_, h, w) = shape, self.teacher.shapes[index]
                raise ValueError(f"dataroot_teacher: '{self.teacher.paths[index]}' is {w}x{h}, the low image '{path}' "
                                 f'{low_w}x{low_h}: have the teacher make it anew, in the same size')

    def __len__(self):
        return len(self.low)

    def _generator(self, stream, epoch, draw):
        # Philox is counter-based: each (stream, draw, epoch) owns 2^64 blocks of the seed's sequence
        return np.random.Generator(np.random.Philox(key=self.seed, counter=[0, stream, draw, epoch]))

    def _normal_index(self, epoch, draw):
        num = len(self.normal)
        turn = epoch, draw // num
        if self._order[0] != turn:
            self._order = turn, self._generator(_NORMAL_ORDER, *turn).permutation(num)
        return self._order[1][draw % num]

    def __getitem__(self, index):
        draw = getattr(index, 'draw', None)  # of a SampleIndex, of whichever copy of EpochSampler
        if draw is not None:
            epoch = index.epoch
            rng = self._generator(_AUGMENTATION, epoch, draw)
            normal_index = self._normal_index(epoch, draw)
        else:
            epoch = 0
            rng = np.random.default_rng(torch.randint(2**62, ()).item())
            normal_index = rng.integers(len(self.normal))
        sample = {'lq_path': self.low.paths[index], 'epoch': epoch}
        if self.teacher is None:
            sample['lq'] = self._augment(self.low[index], rng)
        else:
            both = torch.cat([self.low[index], self.teacher[self._teacher_index[index]]])
            sample['lq'], sample['teacher'] = self._augment(both, rng).chunk(2)
        sample['gt'] = self._augment(self.normal[normal_index], rng)
        sample['gt_path'] = path = self.normal.paths[normal_index]
        sample['gt_folder'] = self.normal.folders[path]
        return sample

    def _augment(self, img, rng):
        """Random crop and flip of (c, h, w); the result never shares memory with img."""
        h, w = self.crop
        if self.crop_scale:
            return self._resized_crop(img, rng)
        top, left = (int(rng.integers(side - crop + 1)) for side, crop in zip(img.shape[1:], self.crop))
        hflip = rng.random(3)[0] < 0.5  # three numbers, so that older runs continue with the same draws
        crop = img[:, top:top + h, left:left + w]
        return crop.flip(2).contiguous() if self.use_hflip and hflip else crop.clone(
            memory_format=torch.contiguous_format)

    def _resized_crop(self, img, rng):
        if rng.random() < 0.3:
            img = img.transpose(1, 2)
        shape = self.crop[0] / self.crop[1] * rng.uniform(0.8, 1.25)  # height / width
        scale = rng.uniform(*self.crop_scale)
        height = min(img.shape[1], img.shape[2] * shape) * scale
        h, w = max(1, round(height)), max(1, round(height / shape))
        top, left = (int(rng.integers(side - crop + 1)) for side, crop in zip(img.shape[1:], (h, w)))
        reduces = h >= self.crop[0] and w >= self.crop[1]
        kind = cv2.INTER_AREA if reduces else cv2.INTER_LINEAR
        # A teacher's picture lies beside its own; OpenCV takes one at a time.
        parts = [cv2.resize(np.ascontiguousarray(part.permute(1, 2, 0).numpy()), self.crop[::-1], interpolation=kind)
                 for part in img[:, top:top + h, left:left + w].split(3)]
        crop = torch.from_numpy(np.concatenate(parts, axis=2)).permute(2, 0, 1).contiguous()
        return crop.flip(2) if self.use_hflip and rng.random() < 0.5 else crop
