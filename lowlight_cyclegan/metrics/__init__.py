from .lpips_metric import build_lpips, calculate_lpips
from .niqe_tolerant import calculate_niqe_tolerant
from .pyiqa_metric import build_pyiqa, calculate_pyiqa

__all__ = ['build_lpips', 'build_pyiqa', 'calculate_lpips', 'calculate_niqe_tolerant', 'calculate_pyiqa']
