"""Validation pairs by name."""
from basicsr.data.paired_image_dataset import PairedImageDataset
from collections import defaultdict
from torch.utils import data as data

from lowlight_cyclegan.data.data_util import FileReader, decode_image, map_threaded, read_name_list, scan_images
from lowlight_cyclegan.registry import DATASET_REGISTRY

__all__ = ['PairedNameListDataset']


@DATASET_REGISTRY.register()
class PairedNameListDataset(PairedImageDataset):
    """PairedImageDataset that pairs files by name, whatever their extensions, and can be restricted to a list.

    The options are those of PairedImageDataset, with ``names`` in the place of ``meta_info_file``. All pairs are
    decoded once at the start: a score is comparable only over the same pictures, so a bad file ends the run before it
    begins.

    Args:
        opt (dict): Config as for PairedImageDataset, and:
            names (str): List file of gt names without extension, in the wanted order. Default: None, which takes all
                names the two folders have in common.
            filename_tmpl (str): lq name for a gt name. Default: '{}'.
            scale (int): Size of gt over size of lq. Default: 1.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: One line, for a name that is missing, has several files, cannot be read, or where the size of
            gt is not that of lq times scale.
    """

    def __init__(self, opt):
        data.Dataset.__init__(self)  # the parent's own constructor pairs by whole file names
        self.opt = {'scale': 1, **opt}
        self.mean, self.std = opt.get('mean'), opt.get('std')
        self.gt_folder, self.lq_folder = opt['dataroot_gt'], opt['dataroot_lq']
        self.filename_tmpl = opt.get('filename_tmpl', '{}')

        files = {'lq': defaultdict(list), 'gt': defaultdict(list)}
        for key in files:
            for name, path in scan_images(opt[f'dataroot_{key}'], f'dataroot_{key}', opt['io_backend']):
                files[key][name].append(path)

        self.file_client = FileReader(opt['io_backend'], {'lq': self.lq_folder, 'gt': self.gt_folder})

        if opt.get('names'):
            names = read_name_list(opt['names'], 'names')
        else:
            names = [name for name in files['gt'] if self.filename_tmpl.format(name) in files['lq']]
            if not names:
                raise ValueError(f"dataroot_lq, dataroot_gt: no name is in both '{self.lq_folder}' and "
                                 f"'{self.gt_folder}'")
        self.paths = [{
            'lq_path': self._only_file(files['lq'], self.filename_tmpl.format(name), 'lq'),
            'gt_path': self._only_file(files['gt'], name, 'gt')
        } for name in names]
        self._check_images()

    def _only_file(self, files, name, key):
        found = files.get(name, [])
        if len(found) == 1:
            return found[0]
        root = self.opt[f'dataroot_{key}']
        if found:
            raise ValueError(f"dataroot_{key}: '{name}' is ambiguous in '{root}': {', '.join(sorted(found))}; keep one")
        raise ValueError(f"dataroot_{key}: no image named '{name}' in '{root}'; "
                         'mend the list of names (names are written without extension) or the folder')

    def _check_images(self):

        def shape(path, key):
            try:
                return decode_image(self.file_client.get(path, key)).shape[:2]
            except (OSError, ValueError) as error:
                raise ValueError(f"dataroot_{key}: '{path}' cannot be read ({error})") from None

        shapes = map_threaded(lambda pair: (shape(pair['lq_path'], 'lq'), shape(pair['gt_path'], 'gt')), self.paths)
        scale = self.opt['scale']
        for pair, ((h_lq, w_lq), (h_gt, w_gt)) in zip(self.paths, shapes, strict=True):
            if (h_gt, w_gt) != (h_lq * scale, w_lq * scale):
                raise ValueError(f"dataroot_gt: '{pair['gt_path']}' is {w_gt}x{h_gt}, but its lq image is "
                                 f'{w_lq}x{h_lq} and scale is {scale}')
