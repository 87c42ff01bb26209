"""Measuring a model on a dataset."""
import csv
import inspect
import json
import numpy as np
import os
import torch
import torch.distributed as dist
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.registry import METRIC_REGISTRY
from os import path as osp
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from lowlight_cyclegan.files import atomic_write

__all__ = ['Validator', 'save_strip']


class Validator:
    """Enhances, measures and saves every image of a dataset, each rank its share, and reports on all of them.

    Args:
        opt (dict): The run's options: ``val``, ``path``, ``rank``, ``world_size``, ``dist``, ``is_train``.

    Attributes:
        means (dict[str, float]): Mean of each metric over the images of the last dataset, without nan and infinities.
        done (dict[str, int]): Dataset -> iteration of its last validation.
        best (dict[str, dict]): Dataset -> metric -> ``better``, ``val`` and ``iter``, as BasicSR stores them. In a
            training it is also in ``metrics/best.json``, for a checkpoint is older than its validation.
    """

    def __init__(self, opt):
        self.opt = opt
        self.means = {}
        self.best = {}
        self.done = {}
        get_root_logger().addFilter(_not_of_sr_models)
        self.names = [o['name'] for phase, o in opt['datasets'].items() if phase.split('_')[0] == 'val']

    def is_due(self, iteration):
        """Whether BasicSR's loop will validate this iteration and has not done so on every dataset."""
        if self.opt.get('val') is None or iteration <= 0 or iteration % self.opt['val']['val_freq']:
            return False
        return any(self.done.get(name) != iteration for name in self.names)

    def run(self, dataset, enhance, iteration, save_img, tb_logger):
        """Measure a dataset.

        Args:
            dataset (Dataset): Gives ``lq``, ``lq_path`` and, for the metrics that compare, ``gt``.
            enhance (Callable): Batch of one image -> dict of ``result`` and perhaps ``gt``, (1, 3, h, w) in [0, 1].
            iteration (int | str): Of the weights, for names and the log.
            save_img (bool): Write the pictures, too.
            tb_logger (SummaryWriter | None): TensorBoard.

        Returns:
            set[str]: Metrics whose mean is the best so far; empty on ranks other than 0.
        """
        rank, world_size = self.opt['rank'], self.opt['world_size']
        dataset_name = dataset.opt['name']
        indices = range(rank, len(dataset), world_size)
        rows, failure = [], None  # (index, image name, {metric: value})
        silent = rank != 0 or not self.opt['val'].get('pbar', False)
        try:
            with tqdm(total=len(indices), unit='image', disable=silent) as pbar:
                for index, data in zip(indices, DataLoader(dataset, sampler=indices)):
                    img_name = osp.splitext(osp.basename(data['lq_path'][0]))[0]
                    visuals = enhance(data)
                    images = {'img': tensor2img(visuals['result'])}
                    if 'gt' in visuals:
                        images['img2'] = tensor2img(visuals['gt'])
                    if save_img:
                        imwrite(images['img'], self._picture_path(dataset_name, img_name, iteration))
                    rows.append((index, img_name, self.measure(images)))
                    pbar.update()
        except Exception as error:  # the other ranks wait for this one: it is raised below, on all of them
            failure = error
        if self.opt['dist']:
            shares = [None] * world_size
            dist.all_gather_object(shares, (rows, failure and f'{type(failure).__name__}: {failure}'))
            rows = [row for share, _ in shares for row in share]
            failed = [text for _, text in shares if text]
            if failed and failure is None:
                failure = ValueError(f'Validation of {dataset_name} failed on another rank ({failed[0]}).')
        if failure is not None:
            raise failure
        rows = [(img_name, metrics) for _, img_name, metrics in sorted(rows)]
        self.done[dataset_name] = iteration
        return self._report(dataset_name, rows, iteration, tb_logger) if rank == 0 else set()

    def measure(self, images):
        """Metrics of one image that its data allows: those that compare need ``img2``.

        Raises:
            ValueError: A metric fails, as some do on small or flat pictures.
        """
        results = {}
        for name, metric_opt in (self.opt['val'].get('metrics') or {}).items():
            img2 = inspect.signature(METRIC_REGISTRY.get(metric_opt['type'])).parameters.get('img2')
            if 'img2' in images or img2 is None or img2.default is not inspect.Parameter.empty:
                metric_opt = {k: v for k, v in metric_opt.items() if k != 'better'}
                try:
                    results[name] = float(calculate_metric(images, metric_opt))
                except (MemoryError, torch.cuda.OutOfMemoryError):
                    raise
                except Exception as error:  # BasicSR's metrics answer what they cannot measure with every kind
                    height, width = images['img'].shape[:2]
                    hint = '; calculate_niqe_tolerant gives nan there' if metric_opt['type'] == 'calculate_niqe' else ''
                    raise ValueError(f"val:metrics:{name}: {metric_opt['type']} cannot measure a picture of "
                                     f'{width}x{height} ({str(error).strip().partition(chr(10))[0]}){hint}') from error
        return results

    def _picture_path(self, dataset_name, img_name, iteration):
        folder = self.opt['path']['visualization']
        if self.opt['is_train']:
            if len(self.names) > 1:  # which may have pictures of one name
                folder = osp.join(folder, dataset_name)
            return osp.join(folder, img_name, f'{img_name}_{iteration}.png')
        return osp.join(folder, dataset_name, f"{img_name}_{self.opt['val'].get('suffix') or self.opt['name']}.png")

    def _report(self, dataset_name, rows, iteration, tb_logger):
        """Means over finite values with their count to the log and TensorBoard, each image to a CSV file."""
        names = list(rows[0][1]) if rows else []
        if not names:
            if rows and self.opt['val'].get('metrics'):
                get_root_logger().warning(f'Validation {dataset_name}, {len(rows)} images: nothing is measured, for '
                                          'the metrics of val: metrics need references (dataroot_gt).')
            return set()
        table = osp.join(self.opt['path']['log'], 'metrics', f'{dataset_name}_{iteration}.csv')
        os.makedirs(osp.dirname(table), exist_ok=True)
        with open(table, 'w', newline='') as f:
            writer = csv.writer(f)
            writer.writerow(['image', *names])
            writer.writerows([img_name, *metrics.values()] for img_name, metrics in rows)

        self.means, new_best = {}, set()
        lines = [f'Validation {dataset_name}, {len(rows)} images (each one in {table})']
        for name in names:
            values = np.array([metrics[name] for _, metrics in rows])
            finite = values[np.isfinite(values)]
            mean = float(finite.mean()) if len(finite) else float('nan')
            self.means[name] = mean
            line = f'\t # {name}: {mean:.4f} (over {len(finite)})'
            if self.opt['is_train']:
                best = self._best_after(dataset_name, name, mean, iteration)
                if best['iter'] == iteration:
                    new_best.add(name)
                line += f"\tBest: {best['val']:.4f} @ {best['iter']} iter"
            lines.append(line)
            if tb_logger:
                tb_logger.add_scalar(f'metrics/{dataset_name}/{name}', mean, iteration)
        get_root_logger().info('\n'.join(lines))
        if self.opt['is_train']:
            text = json.dumps(self.best, indent=1)
            atomic_write(self._best_file(), text.encode())
        return new_best

    def resume(self, best, iteration):
        """Go on from a checkpoint of this iteration: its best values, and those of the validations just after it."""
        self.best = best
        try:
            with open(self._best_file(), encoding='utf-8') as f:
                newer = json.load(f)
        except FileNotFoundError:
            return
        for dataset_name, metrics in newer.items():
            for name, value in metrics.items():
                if value['iter'] <= iteration:
                    self.best.setdefault(dataset_name, {})[name] = value

    def _best_file(self):
        return osp.join(self.opt['path']['log'], 'metrics', 'best.json')

    def _best_after(self, dataset_name, name, value, iteration):
        """Best mean of a metric, this one included; of equal ones the newest."""
        better = self.opt['val']['metrics'][name].get('better', 'higher')
        start = {'better': better, 'val': float('-inf' if better == 'higher' else 'inf'), 'iter': -1}
        best = self.best.setdefault(dataset_name, {}).setdefault(name, start)
        if value >= best['val'] if best['better'] == 'higher' else value <= best['val']:
            best.update(val=value, iter=iteration)
        return best


def _not_of_sr_models(record):
    """Leave out BasicSR's warning that several validation datasets are for its SRModel alone."""
    return 'only* supported by SRModel' not in str(record.msg)


def save_strip(visuals, folder, iteration, tb_logger):
    """Save pictures of the last training batch: a row for each image, a column for each entry.

    Args:
        visuals (dict[str, Tensor]): (n, 3, h, w) in [-1, 1], each with an n of its own; four at most are shown.
        folder (str): It takes ``training/<names>_<iteration>.png``.
        iteration (int): Of the batch.
        tb_logger (SummaryWriter | None): TensorBoard, which shows them as well.
    """
    if not visuals:
        return
    columns = [v[:4].detach().float().cpu() for v in visuals.values()]
    rows = max(map(len, columns))  # of low images there are as few as F translates, of none the camera's
    columns = [F.pad(v, (0, 0, 0, 0, 0, 0, 0, rows - len(v)), value=-1) for v in columns]
    strip = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)  # (3, n * h, columns * w)
    strip = (strip.clamp(-1, 1) + 1) / 2
    name = '_'.join(visuals)
    imwrite(tensor2img(strip), osp.join(folder, 'training', f'{name}_{iteration}.png'))
    if tb_logger:
        tb_logger.add_image(f'training/{name}', strip, iteration)
