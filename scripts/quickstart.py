"""Train and judge a small model on photographs that scikit-image brings along: bash scripts/quickstart.sh

Pictures: photographs of the wheel, in daylight or lamplight, reduced to 300 pixels on the shorter side. Training uses
two of them and validation two others. The training photographs are cut into 4x4 tiles like a chessboard: the black tiles
become low-light images, the white ones stay as they are. No place of a scene is in both domains, so that training is
unpaired. (motorcycle_right shows the scene of motorcycle_left and is not used; the rocket was photographed at dusk.)

Darkening follows the camera: linear light, a shorter exposure, photons that arrive by chance (Poisson), read noise
(Gaussian), the sRGB curve and 8 bits. Electron counts are those of a large sensor at about ISO 800.
"""
import argparse
import cv2
import numpy as np
import shutil
import subprocess
import sys
import time
from pathlib import Path

OPTIONS = Path(__file__).resolve().parents[1] / 'options' / 'quickstart.yml'
FOLDER = Path('quickstart')
TRAIN_PHOTOS = ('astronaut.png', 'motorcycle_left.png')
VAL_PHOTOS = ('chelsea.png', 'coffee.png')
SHORT_SIDE = 300
TILES = 4  # to each side of a training photograph
EXPOSURES = (1 / 64, 1 / 4)  # of a correct exposure: two to six stops under
FULL_WELL = 8000  # electrons at white in a correct exposure
READ_NOISE = 3  # electrons
DRAWS = 4  # low-light images of each black tile
VAL_EXPOSURES = 4  # of each validation photograph, evenly spaced in stops


def srgb_to_linear(x):
    """sRGB in [0, 1] -> linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4)


def linear_to_srgb(x):
    """Inverse of :func:`srgb_to_linear`."""
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308)**(1 / 2.4) - 0.055)


def darken(img, exposure, rng=None):
    """Photograph the scene of an image again with less light.

    Args:
        img (ndarray): (h, w, 3) uint8.
        exposure (float): Share of the light, in (0, 1].
        rng (np.random.Generator | None): Source of the noise; None leaves it out.

    Returns:
        ndarray: (h, w, 3) uint8.
    """
    electrons = srgb_to_linear(img / 255) * exposure * FULL_WELL
    if rng is not None:
        electrons = rng.poisson(electrons) + rng.normal(0, READ_NOISE, img.shape)
    return np.round(linear_to_srgb(np.clip(electrons / FULL_WELL, 0, 1)) * 255).astype(np.uint8)


def load_photo(name):
    """A photograph of scikit-image's wheel as (h, w, 3) uint8, BGR, h and w at least SHORT_SIDE."""
    import skimage
    img = cv2.imread(str(Path(skimage.__file__).parent / 'data' / name))
    if img is None:
        raise SystemExit(f'scikit-image {skimage.__version__} does not bring {name}: install another version of it.')
    scale = SHORT_SIDE / min(img.shape[:2])
    return cv2.resize(img, (round(img.shape[1] * scale), round(img.shape[0] * scale)), interpolation=cv2.INTER_AREA)


def tiles(img):
    """Black tiles and white tiles of a chessboard laid over the image, two lists."""
    h, w = img.shape[0] // TILES, img.shape[1] // TILES
    colours = [], []
    for i in range(TILES):
        for j in range(TILES):
            colours[(i + j) % 2].append(img[i * h:(i + 1) * h, j * w:(j + 1) * w])
    return colours


def make_data(folder, seed=0):
    """Write train/low, train/normal (unpaired), val/low and val/normal (paired by name) as PNG.

    Returns:
        list[tuple[ndarray, ndarray]]: Training low-light images with their photographs, for the gamma.
    """
    rng = np.random.default_rng(seed)
    train_pairs = []

    def write(part, domain, name, img):
        path = folder / part / domain / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), img)

    for photo in TRAIN_PHOTOS:
        name = Path(photo).stem
        for i, (black, white) in enumerate(zip(*tiles(load_photo(photo)))):
            write('train', 'normal', f'{name}_{i}', white)
            for draw in range(DRAWS):
                low = darken(black, np.exp(rng.uniform(*np.log(EXPOSURES))), rng)
                write('train', 'low', f'{name}_{i}_{draw}', low)
                train_pairs.append((low, black))
    for photo in VAL_PHOTOS:
        normal = load_photo(photo)
        for i, exposure in enumerate(np.geomspace(*EXPOSURES, VAL_EXPOSURES)):
            name = f'{Path(photo).stem}_{i}'
            write('val', 'normal', name, normal)
            write('val', 'low', name, darken(normal, exposure, rng))
    return train_pairs


def apply_gamma(img, gamma):
    """(v / 255)^gamma in 8 bits."""
    return np.round((np.arange(256) / 255)**gamma * 255).astype(np.uint8)[img]


def fit_gamma(pairs):
    """The one gamma with the best mean PSNR over pairs of low and normal images."""

    def psnr(low, normal, gamma):
        error = apply_gamma(low, gamma).astype(np.float32) - normal
        return -10 * np.log10(np.mean(error**2))

    return max(np.arange(0.1, 1.001, 0.01), key=lambda gamma: np.mean([psnr(*pair, gamma) for pair in pairs]))


def train():
    """Run the package's training command, show its progress and return (newest pictures by name, seconds)."""
    command = [sys.executable, '-m', 'lowlight_cyclegan.train', '-opt', str(OPTIONS)]
    print('+ python -m lowlight_cyclegan.train -opt', OPTIONS, flush=True)
    log = FOLDER / 'train.log'
    start = time.monotonic()
    with open(log, 'w') as f, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            f.write(line)
            if '[epoch:' in line:
                print(line[line.index('[epoch:'):].rstrip(), flush=True)
    if process.returncode:
        tail = ''.join(log.read_text().splitlines(keepends=True)[-8:])
        raise SystemExit(f'{tail}Training ended with exit status {process.returncode}; all it said is in {log}.')
    return time.monotonic() - start


def measure(images, normals):
    """Means of the toolbox's PSNR, SSIM and NIQE over uint8 BGR images."""
    from basicsr.metrics import calculate_metric
    metrics = {
        'PSNR': {'type': 'calculate_psnr', 'crop_border': 0},
        'SSIM': {'type': 'calculate_ssim', 'crop_border': 0},
    }
    means = {name: np.mean([calculate_metric({'img': a, 'img2': b}, opt) for a, b in zip(images, normals)])
             for name, opt in metrics.items()}
    niqe = {'type': 'calculate_niqe_tolerant', 'crop_border': 0}
    return {**means, 'NIQE': np.nanmean([calculate_metric({'img': img}, niqe) for img in images])}


def write_strip(path, columns):
    """One row for each photograph at its darkest and its brightest exposure; columns of images side by side."""
    rows = [np.hstack(row) for row in zip(*columns)]
    rows = [row for i, row in enumerate(rows) if i % VAL_EXPOSURES in (0, VAL_EXPOSURES - 1)]
    width = max(row.shape[1] for row in rows)
    rows = [cv2.copyMakeBorder(row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT) for row in rows]
    cv2.imwrite(str(path), np.vstack(rows))


def main():
    argparse.ArgumentParser(
        prog='bash scripts/quickstart.sh', formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Make the environment, then train, validate and show a small model on photographs that scikit-image\n'
        'brings along. Takes a few minutes; writes to ./quickstart and ./experiments.').parse_args()

    data = FOLDER / 'data'
    shutil.rmtree(data, ignore_errors=True)
    gamma = fit_gamma(make_data(data))
    print(f'Pictures in {data}; best gamma on the training photographs: {gamma:.2f}')
    seconds = train()

    from lowlight_cyclegan import register
    register()
    names = sorted(path.stem for path in (data / 'val' / 'low').iterdir())
    read = {name: [cv2.imread(str(data / 'val' / domain / f'{name}.png')) for domain in ('low', 'normal')] for name in names}
    low, normal = zip(*read.values())
    visualization = Path('experiments') / 'quickstart' / 'visualization'
    enhanced = [cv2.imread(str(max((visualization / name).glob('*.png'), key=lambda p: p.stat().st_mtime))) for name in names]
    rows = {'input': low, f'gamma {gamma:.2f}': [apply_gamma(img, gamma) for img in low], 'enhanced': enhanced}

    print(f'\n{len(names)} validation pictures of {len(VAL_PHOTOS)} photographs, none of them in training '
          f'({seconds:.0f} s):\n')
    print(f'{"":12}{"PSNR":>8}{"SSIM":>8}{"NIQE":>8}   (PSNR, SSIM: higher is better; NIQE: lower)')
    for title, images in rows.items():
        result = measure(images, normal)
        print(f'{title:12}{result["PSNR"]:8.2f}{result["SSIM"]:8.3f}{result["NIQE"]:8.2f}')

    strip = FOLDER / 'low_gamma_enhanced_normal.png'
    columns = [*rows.values(), normal]
    write_strip(strip, columns)
    print(f"""
Pictures, low | gamma | enhanced | normal:   {strip}
Training (log, weights, pictures):           experiments/quickstart
Next, train on LOL (where to get it: README.md):
    source .venv/bin/activate
    python -m lowlight_cyclegan.train -opt options/train_lol_lite.yml""")


if __name__ == '__main__':
    main()
