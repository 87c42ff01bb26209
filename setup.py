import re
from pathlib import Path
from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

BASICSR = 'basicsr>=1.4.2'
PYIQA = ['pyiqa>=0.1.10']  # its licence is non-commercial: opted into, never pulled in by the plain install
HEIF = ['pillow-heif']
RAW = ['rawpy']
VIDEO = ['av>=18; python_version >= "3.11"']  # the first that writes rotation; there is none for Python 3.10
WEB = ['gradio>=6.31']
EXPORT = ['torch>=2.10', 'onnx', 'onnxruntime', 'onnxscript']  # older ones trace no pictures of any size
# flake8, isort and yapf format a contribution to BasicSR
TEST = ['pytest>=7', 'ruff', 'import-linter>=2.11', 'mypy', 'flake8', 'isort', 'yapf']


def read_version():
    text = (ROOT / 'lowlight_cyclegan' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE).group(1)


setup(
    name='lowlight_cyclegan',
    version=read_version(),
    description='Low-light image enhancement with an attention CycleGAN, as a BasicSR plugin',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8') if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.6',  # the oldest with which the tests pass, but for those of `export`
        'torchvision',
        # No release builds on 3.13 by itself, see scripts/python313: there, the extra `train` brings it.
        f'{BASICSR}; python_version < "3.13"',
        'mmengine',
        'lpips',
        'opencv-python',
        'pyyaml',
        'rich',
        'pillow>=11.3',  # the first with AVIF
        'simplejpeg',
        'tifffile',
        'safetensors',
        'huggingface_hub',
        'psutil',
    ],
    extras_require={
        'train': [BASICSR],
        'pyiqa': PYIQA,
        'heif': HEIF,
        'raw': RAW,
        'video': VIDEO,
        'web': WEB,
        'export': EXPORT,
        'test': TEST,
        'all': [BASICSR] + PYIQA + HEIF + RAW + VIDEO + WEB + EXPORT + TEST,
    },
    packages=find_packages(include=['lowlight_cyclegan', 'lowlight_cyclegan.*']) + ['lowlight_cyclegan.options'],
    # The option files live at the top level, where BasicSR users look for them, and travel inside the package.
    package_dir={'lowlight_cyclegan.options': 'options'},
    package_data={
        'lowlight_cyclegan.options': ['*.yml', '*.txt'],
        'lowlight_cyclegan': ['weights/*.safetensors', 'weights/*.md', 'weights/*.png', 'weights/*.jpg', 'web/*.css'],
    },
    include_package_data=False,
    zip_safe=False,
    entry_points={'console_scripts': ['lowlight-cyclegan=lowlight_cyclegan.commands:console']},
)
