import cv2
import numpy as np
import os
import pytest
import shutil

import lowlight_cyclegan

lowlight_cyclegan.register()
from lowlight_cyclegan import config, preflight  # noqa: E402
from lowlight_cyclegan.config import options_dir  # noqa: E402
from lowlight_cyclegan.schema import fill_in  # noqa: E402


@pytest.fixture
def problems(toy_run, monkeypatch):
    """Function that gives the lines the preflight says of toy.yml with changes `section:key=value`."""
    monkeypatch.chdir(toy_run)

    def run(*changes, remove=(), is_train=True):
        opt = config.load_options('toy.yml')
        for change in changes:
            config.force_option(opt, change)
        for path in remove:
            *sections, key = path.split(':')
            section = opt
            for name in sections:
                section = section[name]
            del section[key]
        fill_in(opt, is_train)
        try:
            preflight.check(opt, is_train)
        except ValueError as error:
            return str(error).splitlines()
        return []

    return run


def test_good_options_pass(problems):
    assert problems() == []


@pytest.mark.parametrize(('change', 'said'), [
    ('manual_sed=1', 'manual_sed: unknown key, did you mean manual_seed?'),
    ('network_g:num_feet=8', 'network_g:num_feet: unknown key, did you mean num_feat?'),
    ('network_d_b:num_block=8', 'network_d_b:num_block: unknown key'),
    ('network_f:type=EMAResnetGenerator', "network_f:type: 'EMAResnetGenerator' is not known, did you mean EMA"),
    ('train:ema_decy=0.9', 'train:ema_decy: unknown key, did you mean ema_decay?'),
    ('train:gan_opt:type=GanLoss', "train:gan_opt:type: 'GanLoss' is not known, did you mean GANLoss?"),
    ('train:gan_opt:weight=1', 'train:gan_opt:weight: unknown key'),
    ('train:optim_g:beta=1', 'train:optim_g:beta: unknown key, did you mean betas?'),
    ('train:optim_g:lr=fast', "train:optim_g:lr: must be a number, found 'fast'"),
    ('train:scheduler:type=LinearDecay', "train:scheduler:type: 'LinearDecay' is not known, did you mean Linear"),
    ('train:scheduler:decay_begin=1', 'train:scheduler:decay_begin: unknown key, known: decay_start, type'),
    ('train:cycle_jitter={gian: 0.1}', 'train:cycle_jitter:gian: unknown key, did you mean gain?'),
    ('train:cycle_opt:loss_weight=[10, 5, 1]', 'train:cycle_opt:loss_weight: must be a number'),
    ('train:cycle_opt:loss_weight=ten', "train:cycle_opt:loss_weight: must be a number, found 'ten'"),
    ('train:identity_opt:loss_weight=[5, a]', 'train:identity_opt:loss_weight: must be a number'),
    ('network_g:head=gian', "network_g: head is 'tanh'"),
    ('train:total_iter=0', 'train:total_iter: must be a whole number of at least 1, found 0'),
    ('val:val_frq=1', 'val:val_frq: unknown key, did you mean val_freq?'),
    ('val:self_ensemble=4', 'val:self_ensemble: 4 is not known, known: False, True'),
    ('val:val_freq=0', 'val:val_freq: must be a whole number of at least 1, found 0'),
    ('val:metrics:psnr:type=psnr', "val:metrics:psnr:type: 'psnr' is not known"),
    ('val:metrics:psnr:crop_boarder=0', 'val:metrics:psnr:crop_boarder: unknown key, did you mean crop_border?'),
    ('val:metrics={lpips: {type: calculate_lpips, trunk: missing.pth}}',
     "val:metrics:lpips: LPIPS: trunk 'missing.pth' cannot be loaded"),
    ('val:metrics={iqa: {type: calculate_pyiqa, metric: pnsr}}',
     "val:metrics:iqa: calculate_pyiqa: no metric 'pnsr' for single images in pyiqa; nearest: psnr"),
    ('logger:print_frq=1', 'logger:print_frq: unknown key, did you mean print_freq?'),
    ('logger:keep_best=ssim', "logger:keep_best: 'ssim' is no metric of val:metrics"),
    ('path:strict_load_G=true', 'path:strict_load_G: unknown key, did you mean strict_load_g?'),
    ('path:pretrain_network_g=no.pth', 'path:pretrain_network_g: no such file: no.pth'),
    ('datasets:train:gtsize=8', 'datasets:train:gtsize: unknown key, did you mean gt_size?'),
    ('datasets:train:type=UnpairedDataset', "datasets:train:type: 'UnpairedDataset' is not known, did you"),
    ('datasets:train:batch_size_per_gpu=four', 'datasets:train:batch_size_per_gpu: must be a whole number'),
    ('datasets:train:dataroot_lq=data/lwo', 'datasets:train:dataroot_lq: no such folder: data/lwo'),
    ('datasets:train:dataroot_lq=data', 'datasets:train:dataroot_lq: no image ('),
    ('datasets:train:exclude_names=no.txt', "datasets:train:exclude_names: the list 'no.txt' cannot be read"),
    ('datasets:train:io_backend:type=dsk', 'datasets:train:io_backend: needs type: disk or type: lmdb'),
    ('datasets:valid={}', 'datasets:valid: no such phase here, did you mean val?'),
    ('train=3', 'train: is no section, found 3'),
    ('amp=fp16', "amp: 'fp16' is not known"),
    ('compile=maybe', "compile: 'maybe' is not known, known: False, True"),
    ('channels_last=nhwc', "channels_last: 'nhwc' is not known"),
    ('train:optim_g:fuse=true', 'train:optim_g:fuse: unknown key, did you mean fused?'),
    ('datasets:train:cache_limit_gb=-1', 'datasets:train:cache_limit_gb: must be a number of at least 0, found -1'),
])
def test_each_mistake_is_one_line(problems, change, said):
    lines = problems(change)
    assert len(lines) == 1 and lines[0].startswith(said), lines


@pytest.mark.parametrize('path', [
    'network_d_a', 'train', 'train:optim_g:type', 'train:total_iter', 'datasets', 'datasets:train',
    'datasets:train:dataroot_gt', 'datasets:val:name'])
def test_missing_key_is_named(problems, path):
    lines = problems(remove=[path])
    assert lines and lines[0].startswith(path.removesuffix(':type')), lines


def test_absent_keys_are_the_papers_or_auto(problems, toy_run):
    """An option file needs names, data, networks and the length of the run."""
    needless = ['path', 'logger', 'train:optim_g', 'train:scheduler', 'train:gan_opt', 'train:identity_opt',
                'datasets:train:use_hflip', 'datasets:val:io_backend', 'val:save_img', 'scale', 'num_gpu']
    assert problems(remove=needless) == []
    opt = config.load_options('toy.yml')
    for path in needless:
        *sections, key = path.split(':')
        del (config.get(opt, ':'.join(sections)) if sections else opt)[key]
    opt['train'].update(total_iter=1e2, pool_size=None, cycle_jitter=None)
    config.complete_options(opt, 'toy.yml')
    assert (opt['amp'], opt['channels_last'], opt['scale']) == ('auto', 'auto', 1)
    assert opt['train']['optim_g'] == {'type': 'Adam', 'lr': 1e-4, 'betas': [0.5, 0.999]}
    assert opt['train']['identity_opt'] == {'type': 'L1Loss', 'loss_weight': 5} and opt['train']['pool_size'] == 50
    assert type(opt['train']['total_iter']) is int and opt['train']['cycle_jitter'] is None
    assert opt['datasets']['val']['io_backend'] == {'type': 'disk'} and opt['path']['strict_load_g'] is True
    assert opt['logger']['print_freq'] == 50 and 'keep_last' not in opt['logger']


def test_none_that_is_asked_for_stays(toy_run):
    opt = config.load_options(toy_run / 'toy.yml')
    opt['amp'] = opt['train']['identity_opt'] = None
    config.complete_options(opt, 'toy.yml')
    assert opt['amp'] is None and opt['train']['identity_opt'] is None


def test_a_number_is_a_name(toy_run):
    opt = config.load_options(str(toy_run / 'toy.yml'))
    opt['name'] = opt['datasets']['val']['name'] = 7
    fill_in(opt, is_train=True)
    assert opt['name'] == opt['datasets']['val']['name'] == '7'


def test_keep_best_of_metrics_that_are_none(problems):
    assert 'val:metrics: is no section, found 5' in problems('val:metrics=5', 'logger:keep_best=psnr')


def test_all_problems_at_once(problems):
    lines = problems('train:a=1', 'val:b=1', 'datasets:train:c=1', 'datasets:val:dataroot_lq=nowhere')
    assert len(lines) == 4


@pytest.mark.parametrize(('change', 'said'), [
    ('manual_seed=1.5', 'manual_seed: must be a whole number of at least 0 and at most 4294967295, found 1.5'),
    ('train:pool_size=true', 'train:pool_size: must be a whole number of at least 0, found True'),
    ('train:ema_decay=2', 'train:ema_decay: must be a number of at least 0 and at most 1, found 2'),
    ('val:save_img=1', 'val:save_img: must be true or false, found 1'),
    ('datasets:train:gt_size=[8, 8, 8]', 'datasets:train:gt_size: must be pixels or [height, width], found [8, 8, 8]'),
    ('train:fixed_g=exposure', "train:fixed_g: must be a list of names, found 'exposure'"),
    ('manual_seed=4294967296', 'manual_seed: must be a whole number of at least 0 and at most 4294967295, found 42'),
    ('path:pretrain_network_g=5', 'path:pretrain_network_g: must be text, found 5'),
    ('datasets:val:names=5', 'datasets:val:names: must be text, found 5'),
    ('network_g:type=[1]', 'network_g:type: [1] is not known'),
    ('datasets:val:type=[1]', 'datasets:val:type: [1] is not known'),
    ('datasets:train:io_backend={}', 'datasets:train:io_backend: needs type: disk or type: lmdb'),
    ('datasets:train:dataroot_lq=[5]', 'datasets:train:dataroot_lq: must be a folder, or a list of '),
    ('logger:keep_best=[psnr]', "logger:keep_best: must be text, found ['psnr']"),
    ('datasets:train:io_backend={type: disk, tyep: 1}', 'datasets:train:io_backend:tyep: unknown key'),
    ('val:metrics=psnr', "val:metrics: is no section, found 'psnr'"),
    ('val:metrics:psnr:better=best', "val:metrics:psnr:better: 'best' is not known, known: higher, lower"),
    ('val:metrics:psnr:crop_border=x', 'val:metrics:psnr: '),
    ('dist_params={bakend: gloo}', 'dist_params:bakend: unknown key, did you mean backend?'),
    ('train:cycle_jitter={gain: -1}', 'train:cycle_jitter:gain: must be a number of at least 0, found -1'),
    ('train:gan_opt:gan_type=lsgna', 'train:gan_opt: GAN type lsgna is not implemented.'),
    ('train:optim_g:type=RAdam', "train:optim_g:type: RAdam is not among the optimizers that this BasicSR's models"),
    ('train:optim_d:lr=-1', 'train:optim_d: Invalid learning rate: -1'),
    ('train:optim_d:betas=[0.5]', 'train:optim_d: '),
    ('train:scheduler:decay_start=6000', 'train:scheduler: LinearDecayLR does not last for 5 iterations: decay_start '),
    ('train:scheduler={type: CosineAnnealingRestartLR, periods: [3]}',
     'train:scheduler: CosineAnnealingRestartLR does not last for 5 iterations: '),
    ('train:fixed_f=[exposre]', "train:fixed_f: no parameter of network_f begins with 'exposre'"),
    ('network_d_a:num_layer=7', 'network_d_a: does not take crops of 32x32 (datasets:train:gt_size): '),
    ('network_f:num_out_ch=1', 'network_f: makes (1, 1, 32, 32) of (1, 3, 32, 32), where the shape must stay'),
    ('network_g:num_feat=-8', 'network_g: '),
    ('network_g={type: GammaCurve, gamma: 0.4}', 'network_g: GammaCurve has no parameters, there is nothing to train'),
    ('datasets:train:crop_scale=[1, 0.5]', 'datasets:train:crop_scale: must be [smallest, largest], both above 0 and'),
    ('datasets:train:crop_scale=[0, 1]', 'datasets:train:crop_scale: must be [smallest, largest], both above 0 and'),
    ('datasets:train:crop_scale=0.5', 'datasets:train:crop_scale: must be [smallest, largest], both above 0 and up'),
    ('datasets:train:weights_lq=[0.5]', 'datasets:train:weights_lq: must be a list of whole numbers from 1, found'),
    ('network_g:num_feat=eight', 'network_g:num_feat: found eight, where the default is 64'),
    ('network_f:num_block={a: 1}', 'network_f:num_block: found {a: 1}, where the default is 9'),
    ('network_f:ema_factor=0.5', 'network_f:ema_factor: found 0.5, where the default is 32'),
    ('logger:wandb={project: x}', 'logger:wandb:project: needs logger:use_tb_logger: true'),
    ('logger:wandb={projct: x}', 'logger:wandb:projct: unknown key, did you mean project?'),
])
def test_values_have_a_kind_and_a_range(problems, change, said):
    line, = problems(change)
    assert line.startswith(said), line


def test_teacher(problems, toy_run):
    """A picture for every low image that is not excluded, and a loss that compares with them."""
    loss, folder = 'train:distill_opt={type: MeanMatchedMSELoss}', 'datasets:train:dataroot_teacher=data/teacher'
    assert problems(loss, folder) == ['datasets:train:dataroot_teacher: no such folder: data/teacher']
    shutil.copytree(toy_run / 'data' / 'low', toy_run / 'data' / 'teacher')
    assert problems(loss, folder) == []
    for change, said in ((loss, 'is missing, train:distill_opt'), (folder, 'is not used, there is no')):
        (line, ) = problems(change)
        assert line.startswith(f'datasets:train:dataroot_teacher: {said}')
    (toy_run / 'data' / 'teacher' / '1.png').unlink()  # held out
    assert problems(loss, folder) == []
    (toy_run / 'data' / 'teacher' / '2.png').unlink()
    assert problems(loss, folder)[0].startswith('datasets:train:dataroot_teacher: no picture named 2 in data/teacher')


def test_validation_without_options_is_fine(problems):
    assert problems(remove=['val', 'datasets:val']) == []


def test_unpaired_validation_names(problems, toy_run):
    (toy_run / 'data' / 'low' / '1.png').unlink()
    assert problems() == ['datasets:val:dataroot_lq: no picture named 1 in data/low, so the pairs are incomplete']
    (toy_run / 'held_out.txt').write_text('0\n99\n')
    assert [line.split(':')[2] for line in problems()] == ['dataroot_gt', 'dataroot_lq']


def test_paired_folders_match(problems, toy_run):
    change = ('datasets:val:type=PairedImageDataset', 'datasets:val:names=~')
    assert problems(*change, remove=['datasets:val:names']) == []
    (toy_run / 'data' / 'high' / '7.png').unlink()
    lines = problems(*change, remove=['datasets:val:names'])
    assert lines == ['datasets:val:dataroot_gt: no picture named 7 in data/high, so the pairs are incomplete']


def test_a_list_of_another_dataset_is_an_unknown_key_alone(problems):
    """PairedImageDataset knows no names; those of the list are two of eleven."""
    line, = problems('datasets:val:type=PairedImageDataset')
    assert line.startswith('datasets:val:names: unknown key')


def test_extensions_of_a_pair(problems, toy_run):
    """BasicSR's dataset pairs whole names, and counts every file."""
    change = ('datasets:val:type=PairedImageDataset', 'datasets:val:names=~')
    os.rename(toy_run / 'data' / 'low' / '3.png', toy_run / 'data' / 'low' / '3.jpg')
    line, = problems(*change, remove=['datasets:val:names'])
    assert line == ('datasets:val:dataroot_lq: no 3.png in data/low, which has the name with another extension: '
                    'PairedNameListDataset pairs them')
    os.rename(toy_run / 'data' / 'low' / '3.jpg', toy_run / 'data' / 'low' / '3.png')
    (toy_run / 'data' / 'high' / 'Thumbs.db').touch()
    line, = problems(*change, remove=['datasets:val:names'])
    assert line == ('datasets:val:dataroot_gt: Thumbs.db is no image, and PairedImageDataset reads every file: remove '
                    'it from data/high')
    assert problems() == []  # our own datasets leave it out


def test_pictures_are_read_before_the_run(problems, toy_run):
    change = ('datasets:val:type=PairedImageDataset', )
    assert problems(*change, remove=['datasets:val:names']) == []
    image = toy_run / 'data' / 'low' / '3.png'
    image.write_bytes(image.read_bytes()[:100])
    cv2.imwrite(str(toy_run / 'data' / 'high' / '5.png'), np.zeros((60, 48, 3), np.uint8))
    broken, larger = problems(*change, remove=['datasets:val:names'])
    assert broken.startswith('datasets:val:dataroot_lq: data/low/3.png cannot be read (')
    assert larger == 'datasets:val:dataroot_gt: data/high/5.png is 48x60, its low image 40x48'


def test_sets_have_names_of_their_own(problems):
    second = 'datasets:val_2={name: toy_val, type: SingleImageDataset, dataroot_lq: data/low}'
    assert problems(second) == ['datasets:val_2:name: toy_val is the name of datasets:val too: give each its own']
    assert problems(second, 'datasets:val_2:name=other') == []


def test_phases_have_datasets_that_suit(problems):
    train = 'datasets:train={name: t, type: PairedImageDataset, dataroot_lq: data/low, dataroot_gt: data/high}'
    assert problems(train)[0].startswith('datasets:train:type: PairedImageDataset gives whole pictures')
    val = 'datasets:val={name: v, type: UnpairedImageDataset, dataroot_lq: data/low, dataroot_gt: data/high}'
    assert problems(val)[0].startswith('datasets:val:type: UnpairedImageDataset gives random crops')


def test_one_lmdb_for_two_datasets(problems, toy_run):
    (toy_run / 'low.lmdb').mkdir()
    lmdb = 'dataroot_lq: low.lmdb, io_backend: {type: lmdb}'
    lines = problems(f'datasets:val={{name: a, type: SingleImageDataset, {lmdb}}}')
    assert lines == [f'datasets:val:dataroot_lq: low.lmdb holds no {name}, it is no LMDB of BasicSR'
                     for name in ('data.mdb', 'meta_info.txt')]
    for name in ('data.mdb', 'meta_info.txt'):
        (toy_run / 'low.lmdb' / name).touch()
    assert problems(f'datasets:val={{name: a, type: SingleImageDataset, {lmdb}}}') == []
    first, second = problems(*(f'datasets:{phase}={{name: {phase}, type: SingleImageDataset, {lmdb}}}'
                               for phase in ('val', 'val_2')))
    assert first.startswith('datasets:val:dataroot_lq: another dataset opens this LMDB too')


@pytest.mark.parametrize(('package', 'change', 'said'), [
    ('tensorboard', ('logger:use_tb_logger=true', ), 'logger:use_tb_logger: needs tensorboard'),
    ('wandb', ('logger:use_tb_logger=true', 'logger:wandb={project: x}'), 'logger:wandb:project: needs wandb')])
def test_loggers_need_their_packages(problems, monkeypatch, package, change, said):
    find_spec = preflight.find_spec
    monkeypatch.setattr(preflight, 'find_spec', lambda name: None if name == package else find_spec('sys'))
    line, = problems(*change)
    assert line.startswith(said)


@pytest.mark.parametrize('name', ['train_lol', 'train_lol_lite', 'quickstart'])
def test_networks_of_ours_take_their_crops(name, problems):
    opt = config.load_options(os.path.join(options_dir(), f'{name}.yml'))
    assert list(preflight._network_problems(opt, is_train=True)) == []


def test_folder_of_low_images_alone(problems):
    change = 'datasets:val={name: v, type: SingleImageDataset, dataroot_lq: data/low, io_backend: {type: disk}}'
    assert problems(change) == []


def test_testing_needs_a_generator(problems, toy_run):
    remove = ['datasets:train', 'train', 'logger', 'network_f']
    lines = problems(remove=remove, is_train=False)
    assert lines == ['path:pretrain_network_g: is missing, there is nothing to test']
    (toy_run / 'g.pth').write_bytes(b'')
    assert problems('path:pretrain_network_g=g.pth', remove=remove, is_train=False) == []


def test_metric_without_options_is_named(problems):
    assert problems('val:metrics:psnr=~') == ['val:metrics:psnr: the section is missing']


def test_compiling_needs_a_compiler(problems, monkeypatch):
    assert problems('compile=true') == []
    monkeypatch.setenv('CXX', 'no-such-compiler')
    line, = problems('compile=true')
    assert line.startswith('compile: needs a C++ compiler')
    assert problems('compile=false') == []


@pytest.mark.parametrize('name', [name for name in sorted(os.listdir(options_dir())) if name.endswith('.yml')])
def test_own_options_have_only_the_expected_problems(name, tmp_path, monkeypatch):
    """Everything but the data, which is not here, and the network that a test file measures."""
    monkeypatch.chdir(tmp_path)
    path = os.path.join(options_dir(), name)
    opt = config.load_options(path)
    config.complete_options(opt, path, is_train='train' in opt)
    with pytest.raises(ValueError) as error:
        preflight.check(opt, is_train='train' in opt)
    for line in str(error.value).splitlines():
        assert 'no such folder' in line or 'pretrain_network_' in line and 'no such file' in line, line
