import cv2
import numpy as np
import os
import torch
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY
from os import path as osp
from torch.utils import data as data

from lowlight_cyclegan.data.data_util import (FileReader, available_memory, decode_image, map_threaded, read_name_list,
                                             scan_images)
from lowlight_cyclegan.registry import register_once

__all__ = ['UnpairedImageDataset']

# independent random streams under one manual_seed
_AUGMENTATION, _NORMAL_ORDER = 0, 1
_CHUNK_BYTES = 2**26


def _height_width(size):
    return (size, size) if isinstance(size, int) else tuple(size)


class _ImageSet:
    """The images of one domain, read from disk or LMDB, or held in RAM.

    Pixels in RAM lie in a few large uint8 tensors: forked workers read the parent's pages, spawned workers receive
    the tensors through shared memory (one handle each, where one per image could exceed the limit of open files),
    and a crop is a slice.
    """

    def __init__(self, key, opt):
        self.key = key
        self.root = osp.expanduser(opt[f'dataroot_{key}'])  # BasicSR does so for lq and gt alone
        self.crop = _height_width(opt['gt_size'])
        self.resize = opt.get('resize')
        self.chunks = []
        self.places = []  # (chunk, start, height, width) of each image in RAM
        self.brightness, self.shapes = [], []  # mean and (3, h, w) of each image, filled by scan

        images = scan_images(self.root, f'dataroot_{key}', opt['io_backend'])
        self.reader = FileReader(opt['io_backend'], {key: self.root})
        excluded = set(read_name_list(opt['exclude_names'], 'exclude_names')) if opt.get('exclude_names') else set()
        self.names = {path: name for name, path in images if name not in excluded}
        self.paths = list(self.names)
        self.num_excluded = len(images) - len(self.paths)
        if not self.paths:
            raise SystemExit(f"dataroot_{key}: exclude_names leaves no image in '{self.root}'")
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
            self.brightness.append(img.numpy().mean())
            self.shapes.append(img.shape)
            size += img.numel()
            if size <= budget:
                self._hold(img)
            else:
                self.release()
        if not paths:
            raise SystemExit(f"dataroot_{self.key}: none of the {len(self.paths)} images in '{self.root}' can be read")
        self.paths = paths
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


@register_once(DATASET_REGISTRY)
class UnpairedImageDataset(data.Dataset):
    """Random crops of low-light images and, where wanted, of unrelated normal-light images, for training.

    Index i gives low image i. The normal image is drawn independently of it: the draws of an epoch run through
    random permutations of the normal images, so that all of them are used equally often. Crops and flips of the two
    are independent as well.

    With an index of EpochSampler a sample is a pure function of manual_seed, epoch and draw, whatever the workers
    and ranks. A plain int gives a fresh sample from torch's generator.

    All images are decoded once at the start, in threads: a file that cannot be read is reported and left out before
    the run begins, whether or not the pixels are kept in RAM afterwards.

    Args:
        opt (dict): Config for train datasets. It contains the following keys:
            dataroot_lq (str): Folder or LMDB of low-light images.
            dataroot_gt (str | None): Folder or LMDB of normal-light images; None for low images alone.
            dataroot_teacher (str | None): Folder or LMDB of what a teacher made of the low images, under their names
                (without extension) and in their sizes. Default: None.
            io_backend (dict): IO backend type (disk | lmdb) and its own options.
            gt_size (int | list[int]): Crops: side of a square, or [h, w]. Smaller images are reflect-padded.
            use_hflip (bool): Use horizontal flips.
            use_rot (bool): Use rotation (vertical flip and transposing h and w for implementation). Default: False.
            resize (int | list[int]): Reduce images before cropping (area interpolation): an int is the length of the
                shorter side, smaller images stay as they are; [h, w] is the exact size. Default: None.
            exclude_names (str): List file of names (without extension) to leave out in all folders. Default: None.
            cache (bool): Keep the decoded images in RAM, shared by the workers. Default: True.
            cache_limit_gb (float | None): Largest cache in GB (1e9 bytes); beyond it images are read from disk. None
                is half of the memory that is available at the start, shared by the processes of this machine.
                Default: None.
            match_exposure (float | None): Draw a normal image only from those whose rank by mean brightness, from 0 to
                1 among the normal images, differs by this at most from the low image's rank among the low images (or
                is the nearest). The normal images are then used about equally often, no longer exactly. Default: None.
            manual_seed (int): Seed of all random choices. Default: 0.
            phase (str): 'train'.

    Returns (of an index):
        dict: lq, gt: uint8 RGB tensors (3, h, w) of the crop in [0, 255]; lq_path, gt_path: str; epoch: int. Without
            normal-light images neither gt nor gt_path. With a teacher, teacher: its picture of lq.

    Raises:
        SystemExit: One line, for a missing folder, a folder without a usable image, or a wrong option.
    """

    def __init__(self, opt):
        super().__init__()
        if opt['phase'] != 'train':
            raise SystemExit(f"UnpairedImageDataset: phase '{opt['phase']}' is not supported, it gives random crops; "
                             'validate with PairedImageDataset, PairedNameListDataset or SingleImageDataset')
        for key, meaning in (('gt_size', 'the side of square crops'), ('resize', 'the shorter side')):
            size = opt.get(key)
            sides = size if isinstance(size, (list, tuple)) and len(size) == 2 else [size]
            if size is not None and not all(type(side) is int and side > 0 for side in sides):
                raise SystemExit(f'{key}: {size} is neither {meaning} in pixels nor [height, width]')
        if opt.get('use_rot') and not isinstance(opt['gt_size'], int):
            raise SystemExit(f"use_rot: needs square crops, gt_size is {opt['gt_size']}")
        self.opt = opt
        self.crop = _height_width(opt['gt_size'])
        self.use_hflip = opt['use_hflip']
        self.use_rot = opt.get('use_rot', False)
        self.seed = (opt.get('manual_seed') or 0) % 2**64
        self.low = _ImageSet('lq', opt)
        self.normal = _ImageSet('gt', opt) if opt['dataroot_gt'] is not None else None
        self.teacher = _ImageSet('teacher', opt) if opt.get('dataroot_teacher') is not None else None
        self._load(opt.get('cache', True), opt.get('cache_limit_gb'))
        self._pair_teacher()
        self._order = None, None
        self.match_exposure = opt.get('match_exposure') if self.normal else None
        if self.match_exposure is not None:
            self._low_order, self._normal_order = (
                np.argsort(images.brightness, kind='stable') for images in (self.low, self.normal))

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
            raise SystemExit(f"dataroot_teacher: no picture named {', '.join(missing[:5])} that can be read in "
                             f"'{self.teacher.root}' ({len(missing)} of {len(self.low)} low images have none)")
        self._teacher_index = [of_name[self.low.names[path]] for path in self.low.paths]
        for path, shape, index in zip(self.low.paths, self.low.shapes, self._teacher_index):
            if shape != self.teacher.shapes[index]:
                (_, low_h, low_w), (_, h, w) = shape, self.teacher.shapes[index]
                raise SystemExit(f"dataroot_teacher: '{self.teacher.paths[index]}' is {w}x{h}, the low image '{path}' "
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

    def _matched_index(self, low_index, rng):
        """A normal image of about the same rank by brightness as the low image."""
        low_rank = np.flatnonzero(self._low_order == low_index)[0]
        distance = np.abs((np.arange(len(self.normal)) + 0.5) / len(self.normal) - (low_rank + 0.5) / len(self.low))
        near = np.flatnonzero(distance <= max(self.match_exposure, distance.min()))
        return self._normal_order[rng.choice(near)]

    def __getitem__(self, index):
        if hasattr(index, 'draw'):  # a SampleIndex, of whichever EpochSampler
            epoch = index.epoch
            rng = self._generator(_AUGMENTATION, epoch, index.draw)
            normal_index = self._normal_index(epoch, index.draw) if self.normal else None
        else:
            epoch = 0
            rng = np.random.default_rng(torch.randint(2**62, ()).item())
            normal_index = rng.integers(len(self.normal)) if self.normal else None
        if self.match_exposure is not None:
            normal_index = self._matched_index(index, rng)
        sample = {'lq_path': self.low.paths[index], 'epoch': epoch}
        if self.teacher is None:
            sample['lq'] = self._augment(self.low[index], rng)
        else:
            both = torch.cat([self.low[index], self.teacher[self._teacher_index[index]]])
            sample['lq'], sample['teacher'] = self._augment(both, rng).chunk(2)
        if self.normal:
            sample['gt'] = self._augment(self.normal[normal_index], rng)
            sample['gt_path'] = self.normal.paths[normal_index]
        return sample

    def _augment(self, img, rng):
        """Random crop, flips and transpose of (c, h, w); the result never shares memory with img."""
        h, w = self.crop
        top, left = (int(rng.integers(side - crop + 1)) for side, crop in zip(img.shape[1:], self.crop))
        hflip, vflip, rot90 = rng.random(3) < 0.5
        crop = img[:, top:top + h, left:left + w]
        if self.use_rot and rot90:
            crop = crop.transpose(1, 2)
        dims = [dim for dim, flip in ((1, self.use_rot and vflip), (2, self.use_hflip and hflip)) if flip]
        return crop.flip(dims).contiguous() if dims else crop.clone(memory_format=torch.contiguous_format)
