import os
import pytest
import shutil
import yaml

import lowlight_cyclegan

lowlight_cyclegan.register()
from lowlight_cyclegan import config, preflight  # noqa: E402
from lowlight_cyclegan.config import options_dir  # noqa: E402


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
    ('train:diff_augment=[flip]', 'train:diff_augment: augmentations are a list of color, translation, cutout, got'),
    ('train:diff_augment=true', 'train:diff_augment: augmentations are a list of color, translation, cutout, got'),
    ('train:cycle_opt:loss_weight=[10, 5, 1]', 'train:cycle_opt:loss_weight: must be a number, or [first, last]'),
    ('train:cycle_opt:loss_weight=ten', "train:cycle_opt:loss_weight: must be a number, or [first, last], found 'ten'"),
    ('train:identity_opt:loss_weight=[5, a]', 'train:identity_opt:loss_weight: must be a number, or [first, last]'),
    ('train:tv_opt={type: WeightedTVLoss, reduction: none}', 'train:tv_opt: Unsupported reduction mode: none'),
    ('train:color_opt={type: ColorConstancyLoss, weight: 1}', 'train:color_opt:weight: unknown key'),
    ('train:feature_opt={type: SelfFeatureLoss, trunk: no.pth}',
     "train:feature_opt: LPIPS: trunk 'no.pth' cannot be loaded"),
    ('network_d_a:num_scale=0', 'network_d_a: num_scale is a whole number of at least 1, got 0'),
    ('network_d_b:spectral_norm=some', "network_d_b: spectral_norm is true or false, got 'some'"),
    ('network_g:head=gian', "network_g: head is 'tanh', 'residual' or 'gain', got 'gian'"),
    ('datasets:train:match_exposure=near', 'datasets:train:match_exposure: must be a number of at least 0'),
    ('train:total_iter=0', 'train:total_iter: must be a number of at least 1, found 0'),
    ('train:nan_policy=ignore', "train:nan_policy: 'ignore' is not known, known: skip, stop"),
    ('val:val_frq=1', 'val:val_frq: unknown key, did you mean val_freq?'),
    ('val:self_ensemble=4', 'val:self_ensemble: 4 is not known, known: False, True'),
    ('val:val_freq=0', 'val:val_freq: must be a number of at least 1, found 0'),
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
    ('datasets:train:batch_size_per_gpu=four', 'datasets:train:batch_size_per_gpu: must be a number of at least 1'),
    ('datasets:train:dataroot_lq=data/lwo', 'datasets:train:dataroot_lq: no such folder: data/lwo'),
    ('datasets:train:dataroot_lq=data', 'datasets:train:dataroot_lq: no image ('),
    ('datasets:train:exclude_names=no.txt', "datasets:train:exclude_names: the list 'no.txt' cannot be read"),
    ('datasets:train:io_backend:type=dsk', 'datasets:train:io_backend: needs type: disk or type: lmdb'),
    ('datasets:valid={}', 'datasets:valid: no such phase here, did you mean val?'),
    ('train=3', 'train: is no section, found 3'),
    ('amp=fp16', "amp: 'fp16' is not known"),
    ('compile=maybe', "compile: 'maybe' is not known, known: False, True"),
    ('channels_last=nhwc', "channels_last: 'nhwc' is not known"),
    ('winograd=yess', "winograd: 'yess' is not known, known: False, True, auto"),
    ('train:merge_g_calls=auto', "train:merge_g_calls: 'auto' is not known, known: False, True"),
    ('train:freeze_ds=true', 'train:freeze_ds: unknown key, did you mean freeze_d?'),
    ('train:optim_g:fuse=true', 'train:optim_g:fuse: unknown key, did you mean fused?'),
    ('datasets:train:cache_limit_gb=-1', 'datasets:train:cache_limit_gb: must be a number of at least 0, found -1'),
])
def test_each_mistake_is_one_line(problems, change, said):
    lines = problems(change)
    assert len(lines) == 1 and lines[0].startswith(said), lines


@pytest.mark.parametrize('path', [
    'network_d_a', 'train', 'train:optim_d', 'train:optim_g:type', 'train:total_iter', 'logger', 'logger:print_freq',
    'path', 'datasets', 'datasets:train', 'datasets:train:batch_size_per_gpu', 'datasets:train:dataroot_gt',
    'datasets:val:name', 'datasets:val:io_backend', 'val:save_img'])
def test_missing_key_is_named(problems, path):
    lines = problems(remove=[path])
    assert lines and lines[0].startswith(path.removesuffix(':type')), lines


def test_all_problems_at_once(problems):
    lines = problems('train:a=1', 'val:b=1', 'datasets:train:c=1', 'datasets:val:dataroot_lq=nowhere')
    assert len(lines) == 4


def test_optional_parts_of_the_recipe(problems):
    assert problems(
        'train:diff_augment=[translation, cutout]', 'train:cycle_opt:loss_weight=[10, 5]',
        'train:color_opt={type: ColorConstancyLoss, loss_weight: 0.5}', 'train:tv_opt={type: WeightedTVLoss}',
        'datasets:train:match_exposure=0.1', 'network_d_a:spectral_norm=true', 'network_d_b:num_scale=2') == []


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


def test_folder_of_low_images_alone(problems):
    change = 'datasets:val={name: v, type: SingleImageDataset, dataroot_lq: data/low, io_backend: {type: disk}}'
    assert problems(change) == []


def test_testing_needs_a_generator(problems, toy_run):
    remove = ['datasets:train', 'train', 'logger', 'network_f']
    lines = problems(remove=remove, is_train=False)
    assert lines == ['path:pretrain_network_g: is missing, there is nothing to test']
    (toy_run / 'g.pth').write_bytes(b'')
    assert problems('path:pretrain_network_g=g.pth', remove=remove, is_train=False) == []


ZERO_REFERENCE = ('model_type=ZeroReferenceModel', 'network_g={type: ZeroDCE, num_feat: 4}',
                  'train:zero_reference_opt={type: ZeroDCELoss}', 'datasets:train:dataroot_gt=~')
OF_THE_OTHER_MODEL = ('network_f', 'network_d_a', 'network_d_b', 'train:optim_d', 'train:gan_opt', 'train:cycle_opt',
                      'train:identity_opt')


@pytest.mark.parametrize(('change', 'said'), [
    ('network_g:type=SCI', 'train:zero_reference_opt:type: ZeroDCELoss does not fit SCI, use SCILoss'),
    ('network_g={type: RUAS}', 'network_g:type: RUAS cannot be trained without references, use ZeroDCE or SCI'),
    ('train:zero_reference_opt:type=ZeroDCLoss',
     "train:zero_reference_opt:type: 'ZeroDCLoss' is not known, did you mean ZeroDCELoss?"),
    ('train:zero_reference_opt:expsure=1', 'train:zero_reference_opt:expsure: unknown key, did you mean exposure?'),
    ('train:zero_reference_opt=~', 'train:zero_reference_opt: is missing'),
    ('datasets:train:dataroot_gt=data/high', 'datasets:train:dataroot_gt: is not used, '),
    ('train:cycle_opt={type: L1Loss}', 'train:cycle_opt: unknown key'),
    ('network_f={type: ZeroDCE}', 'network_f: unknown key, did you mean network_g?'),
])
def test_training_without_references(problems, change, said):
    assert problems(*ZERO_REFERENCE, remove=OF_THE_OTHER_MODEL) == []
    remove = [path for path in OF_THE_OTHER_MODEL if path != change.partition('=')[0]]
    lines = problems(*ZERO_REFERENCE, change, remove=remove)
    assert len(lines) == 1 and lines[0].startswith(said), lines


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
    with open(path, encoding='utf-8') as f:
        assert isinstance(yaml.safe_load(f), dict)
    opt = config.load_options(path)
    config.complete_options(opt, path)
    with pytest.raises(ValueError) as error:
        preflight.check(opt, is_train='train' in opt)
    for line in str(error.value).splitlines():
        assert 'no such folder' in line or 'pretrain_network_' in line and 'no such file' in line, line
