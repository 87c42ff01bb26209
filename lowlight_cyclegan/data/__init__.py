"""Datasets. A module of them is imported when one of its names is asked for: other programs need the helpers alone."""
from importlib import import_module

HOMES = {
    'EpochSampler': 'epoch_sampler',
    'PairedNameListDataset': 'paired_name_list_dataset',
    'SampleIndex': 'epoch_sampler',
    'UnpairedImageDataset': 'unpaired_image_dataset',
}

__all__ = sorted(HOMES)


def __getattr__(name):
    if name not in HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{HOMES[name]}'), name)
