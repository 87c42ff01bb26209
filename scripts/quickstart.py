"""Train and judge a small model on photographs that scikit-image brings along: bash scripts/quickstart.sh

Pictures: photographs taken in good light, out of scikit-image's wheel, reduced to 300 pixels on the shorter side. Two
are for training, two others for validation. The training photographs are cut into 4x4 tiles like a chessboard: black
tiles become low-light images, white tiles stay as they are. No place of a scene is in both domains: training is
unpaired. (motorcycle_right shows the scene of motorcycle_left and is not used; the rocket was photographed at dusk.)

Darkening follows the camera, see lowlight_cyclegan/prepare/darken.py.
"""
import cv2
import numpy as np
import os
import shutil
import subprocess
import sys
import time
import yaml
from pathlib import Path

from lowlight_cyclegan.prepare.darken import expose

OPTIONS = Path(__file__).resolve().parents[1] / 'options' / 'quickstart.yml'
FOLDER = Path('quickstart')
TRAIN_PHOTOS = ('astronaut.png', 'motorcycle_left.png')
VAL_PHOTOS = ('chelsea.png', 'coffee.png')
SHORT_SIDE = 300
TILES = 4  # to each side of a training photograph
STOPS = (2, 6)  # under a correct exposure
DRAWS = 4  # low-light images of each black tile
VAL_EXPOSURES = 4  # of each validation photograph, evenly spaced


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
                low = expose(black, rng.uniform(*STOPS), rng)
                write('train', 'low', f'{name}_{i}_{draw}', low)
                train_pairs.append((low, black))
    for photo in VAL_PHOTOS:
        normal = load_photo(photo)
        for i, stops in enumerate(np.linspace(*STOPS[::-1], VAL_EXPOSURES)):
            name = f'{Path(photo).stem}_{i}'
            write('val', 'normal', name, normal)
            write('val', 'low', name, expose(normal, stops, rng))
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
    """Run the package's training command, showing its progress; returns the seconds it took."""
    print('+ python -m lowlight_cyclegan.train -opt options/quickstart.yml', flush=True)
    command = [sys.executable, '-m', 'lowlight_cyclegan.train', '-opt', str(OPTIONS)]
    # Small layers gain little from many threads, and threads that spin while they wait starve each other on a busy CPU.
    env = {'OMP_NUM_THREADS': '2', 'OMP_WAIT_POLICY': 'PASSIVE', **os.environ}
    log = FOLDER / 'train.log'
    start = time.monotonic()
    with open(log, 'w', buffering=1) as f, subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            f.write(line)
            if '[epoch:' in line:
                print(line[line.index('[epoch:'):].rstrip(), flush=True)
    if process.returncode:
        print(*log.read_text().splitlines()[-8:], sep='\n')
        raise SystemExit(f'Training ended with exit status {process.returncode}; all it said is in {log}.')
    return time.monotonic() - start


def enhance_shipped(images):
    """What the weights in the package, trained on LOL, make of uint8 BGR images."""
    from lowlight_cyclegan import Enhancer
    enhancer = Enhancer.from_pretrained('lite')
    return [enhancer.enhance(img[..., ::-1])[..., ::-1] for img in images]


def enhance_untrained(images):
    """What the generator makes of uint8 BGR images before training: a tone curve with the constants in its options."""
    import torch
    from basicsr.archs import build_network
    from basicsr.utils import img2tensor, tensor2img
    net = build_network(yaml.safe_load(OPTIONS.read_text())['network_g']).eval()
    with torch.inference_mode():
        return [tensor2img(net(img2tensor(img / 127.5 - 1)[None].float()), min_max=(-1, 1)) for img in images]


def measure(images, normals):
    """Means of the toolbox's PSNR, SSIM and NIQE over uint8 BGR images."""
    from basicsr.metrics import calculate_metric

    def mean(metric, **keys):
        opt = {'type': metric, 'crop_border': 0}
        values = [calculate_metric(dict(zip(keys, pair)), dict(opt)) for pair in zip(*keys.values())]
        return np.nanmean(values)

    return (mean('calculate_psnr', img=images, img2=normals), mean('calculate_ssim', img=images, img2=normals),
            mean('calculate_niqe_tolerant', img=images))


def write_strip(path, columns):
    """Columns of pictures side by side; a row for each photograph at its darkest and at its brightest exposure."""
    rows = [np.hstack(row) for i, row in enumerate(zip(*columns)) if i % VAL_EXPOSURES in (0, VAL_EXPOSURES - 1)]
    width = max(row.shape[1] for row in rows)
    rows = [cv2.copyMakeBorder(row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT) for row in rows]
    cv2.imwrite(str(path), np.vstack(rows))


def main():
    data, run = FOLDER / 'data', Path('experiments') / 'quickstart'
    shutil.rmtree(data, ignore_errors=True)
    gamma = fit_gamma(make_data(data))
    names = sorted(path.stem for path in (data / 'val' / 'low').iterdir())
    low, normal = ([cv2.imread(str(data / 'val' / domain / f'{name}.png')) for name in names]
                   for domain in ('low', 'normal'))
    shipped = enhance_shipped(low)
    write_strip(FOLDER / 'low_lite_normal.png', [low, shipped, normal])
    print(f"""Pictures are in {data}.
What the weights in the package (lite, trained on LOL) make of them, low | lite | normal:
    {FOLDER / 'low_lite_normal.png'}
Now a generator of your own. Training takes a minute or two:""", flush=True)
    seconds = train()

    from lowlight_cyclegan import register
    register()
    # the run's only validation, at its end
    enhanced = [cv2.imread(str(next((run / 'visualization' / name).glob('*.png')))) for name in names]
    rows = {
        'input': low,
        f'gamma {gamma:.2f}': [apply_gamma(img, gamma) for img in low],
        'lite': shipped,
        'before training': enhance_untrained(low),
        'enhanced': enhanced,
    }

    print(f'\nTrained in {seconds:.0f} s. {len(VAL_PHOTOS)} photographs that training did not see, each at '
          f'{VAL_EXPOSURES} exposures; the gamma is the\nbest for the training photographs. PSNR and SSIM: higher is '
          f'better. NIQE: lower is better.\n\n{"":16}{"PSNR":>8}{"SSIM":>8}{"NIQE":>8}')
    for title, images in rows.items():
        psnr, ssim, niqe = measure(images, normal)
        print(f'{title:16}{psnr:8.2f}{ssim:8.3f}{niqe:8.2f}')

    strip = FOLDER / 'low_gamma_enhanced_normal.png'
    write_strip(strip, [low, rows[f'gamma {gamma:.2f}'], enhanced, normal])
    print(f"""
Pictures, low | gamma | enhanced | normal:  {strip}
Log, weights, metrics of each picture:      {run}
Next, brighten your photos, and train on LOL (README.md says where to get it):
    source .venv/bin/activate
    lowlight-cyclegan enhance PHOTO
    python -m lowlight_cyclegan.train -opt options/train_lol_lite.yml""")


if __name__ == '__main__':
    main()
