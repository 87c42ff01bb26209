from .epoch_sampler import EpochSampler, SampleIndex
from .paired_name_list_dataset import PairedNameListDataset
from .unpaired_image_dataset import UnpairedImageDataset

__all__ = ['EpochSampler', 'PairedNameListDataset', 'SampleIndex', 'UnpairedImageDataset']
