from .fast_metrics import calculate_niqe_fast, calculate_psnr_fast, calculate_ssim_fast
from .lpips_metric import build_lpips, calculate_lpips
from .niqe_tolerant import calculate_niqe_tolerant
from .pyiqa_metric import build_pyiqa, calculate_pyiqa

__all__ = [
    'build_lpips', 'build_pyiqa', 'calculate_lpips', 'calculate_niqe_fast', 'calculate_niqe_tolerant',
    'calculate_psnr_fast', 'calculate_pyiqa', 'calculate_ssim_fast'
]
