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
    """Write train/low, train/normal (unpaired), val/low and val/normal (paired by name) as PNG."""
    rng = np.random.default_rng(seed)

    def write(part, domain, name, img):
        path = folder / part / domain / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), img)

    for photo in TRAIN_PHOTOS:
        name = Path(photo).stem
        for i, (black, white) in enumerate(zip(*tiles(load_photo(photo)))):
            write('train', 'normal', f'{name}_{i}', white)
            for draw in range(DRAWS):
                write('train', 'low', f'{name}_{i}_{draw}', expose(black, rng.uniform(*STOPS), rng))
    for photo in VAL_PHOTOS:
        normal = load_photo(photo)
        for i, stops in enumerate(np.linspace(*STOPS[::-1], VAL_EXPOSURES)):
            name = f'{Path(photo).stem}_{i}'
            write('val', 'normal', name, normal)
            write('val', 'low', name, expose(normal, stops, rng))


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


def enhance(enhancer, images):
    """What an Enhancer makes of uint8 BGR images."""
    return [enhancer.enhance(img[..., ::-1])[..., ::-1] for img in images]


def compared():
    """What the training is compared with: a rule, the default model, and the generator before it is trained."""
    from basicsr.archs import build_network

    from lowlight_cyclegan import Enhancer
    from lowlight_cyclegan.archs import ExposureGain
    from lowlight_cyclegan.config import load_options
    untrained = build_network(load_options(str(OPTIONS))['network_g'])
    return {'exposure gain': Enhancer(ExposureGain()), 'default model': Enhancer.from_pretrained(),
            'before training': Enhancer(untrained)}


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
    make_data(data)
    names = sorted(path.stem for path in (data / 'val' / 'low').iterdir())
    low, normal = ([cv2.imread(str(data / 'val' / domain / f'{name}.png')) for name in names]
                   for domain in ('low', 'normal'))
    from lowlight_cyclegan import register
    register()
    rows = {'input': low, **{title: enhance(enhancer, low) for title, enhancer in compared().items()}}
    write_strip(FOLDER / 'low_default_normal.png', [low, rows['default model'], normal])
    print(f"""Pictures are in {data}.
What the default model makes of them, low | default | normal:
    {FOLDER / 'low_default_normal.png'}
Now a generator of your own. Training takes a minute or two:""", flush=True)
    seconds = train()

    # the run's only validation, at its end
    rows['enhanced'] = [cv2.imread(str(next((run / 'visualization' / name).glob('*.png')))) for name in names]
    print(f'\nTrained in {seconds:.0f} s. {len(VAL_PHOTOS)} photographs that training did not see, each at '
          f'{VAL_EXPOSURES} exposures.\nPSNR and SSIM: higher is better. NIQE: lower is better.\n\n'
          f'{"":16}{"PSNR":>8}{"SSIM":>8}{"NIQE":>8}')
    for title, images in rows.items():
        psnr, ssim, niqe = measure(images, normal)
        print(f'{title:16}{psnr:8.2f}{ssim:8.3f}{niqe:8.2f}')

    strip = FOLDER / 'low_gain_enhanced_normal.png'
    write_strip(strip, [low, rows['exposure gain'], rows['enhanced'], normal])
    print(f"""
Pictures, low | exposure gain | enhanced | normal:
    {strip}
Log, weights, metrics of each picture:      {run}
Next, brighten your photos, and train on LOL (README.md says where to get it):
    source .venv/bin/activate
    lowlight-cyclegan enhance PHOTO
    python -m lowlight_cyclegan.train -opt options/train_lol_lite.yml""")


if __name__ == '__main__':
    main()
