"""The option files that users run."""
import cv2
import numpy as np
import pytest
import torch
import yaml
from pathlib import Path

import lowlight_cyclegan

lowlight_cyclegan.register()
from basicsr.archs import build_network  # noqa: E402  (BasicSR imports once it is mended)
from lowlight_cyclegan import config, option_tables, train  # noqa: E402
from lowlight_cyclegan.data.data_util import read_name_list  # noqa: E402
from lowlight_cyclegan.models import LowLightCycleGANModel  # noqa: E402

FILES = sorted(Path(config.options_dir()).glob('*.yml'))
TRAINING = [file for file in FILES if file.name.startswith('train_lol')]
LIST = Path(config.options_dir()) / 'lol_val40.txt'


def load(file):
    return config.load_options(str(file))


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_networks_build(file):
    opt = load(file)
    networks = [key for key in opt if key.startswith('network_')]
    assert 'network_g' in networks
    with torch.device('meta'):
        for key in networks:
            assert sum(p.numel() for p in build_network(opt[key]).parameters()) >= 0


@pytest.mark.parametrize('file', TRAINING, ids=lambda file: file.stem)
def test_training_never_sees_the_test_set(file):
    opt = load(file)
    assert 'eval15' not in file.read_text()
    if 'val' in opt['datasets']:
        assert opt['datasets']['train']['exclude_names'] == opt['datasets']['val']['names'] == 'options/lol_val40.txt'


def test_readme_lists_every_option():
    text = LIST.with_name('README.md').read_text(encoding='utf-8')
    assert option_tables.renewed(text) == text, 'run: python -m lowlight_cyclegan.option_tables'
    assert '| `total_iter` | required | a whole number of at least 1 | Iterations of the run. |' in text
    assert '| `num_block` | `9` | Residual blocks. |' in text


def test_written_out_is_read_by_plain_yaml(tmp_path):
    """What is attached or contributed stands alone, for a loader without inheritance, aliases and 1e-4."""
    for file in FILES:
        text = config.written_out(str(file))
        assert '\n_base_' not in text and '&id' not in text
        (tmp_path / file.name).write_text(text)
        assert yaml.safe_load(text) == config.load_options(str(tmp_path / file.name)) == load(file)


def test_held_out_list():
    names = read_name_list(str(LIST), 'names')
    assert len(names) == len(set(names)) == 40
    assert names == sorted(names, key=int)


@pytest.mark.parametrize('name, use_ema, use_aspp', [('train_lol', True, True), ('train_lol_ema', True, False),
                                                     ('train_lol_aspp', False, True),
                                                     ('train_lol_cyclegan', False, False)])
def test_ablation_rows_differ_in_their_switches_alone(name, use_ema, use_aspp):
    opt, paper = (load(LIST.with_name(f'{stem}.yml')) for stem in (name, 'train_lol'))
    for key in ('network_g', 'network_f'):
        assert (opt[key]['use_ema'], opt[key]['use_aspp']) == (use_ema, use_aspp)
        opt[key].update(use_ema=True, use_aspp=True)
    assert opt.pop('name') == name
    paper.pop('name')
    assert opt == paper


def test_each_stage_starts_from_the_one_before():
    """Every network that fits takes its weights; of the full generator, the paper's, the tone curve alone does."""
    paper, lite, fine, full = (
        load(LIST.with_name(f'train_lol{stem}.yml')) for stem in ('', '_lite', '_lite_finetune', '_full'))
    for opt, start in ((fine, lite), (full, fine)):
        for name in ('g', 'f', 'd_a', 'd_b'):
            path = opt['path'][f'pretrain_network_{name}']
            assert path == f"experiments/{start['name']}/models/net_{name}_latest.pth"
            assert name == 'g' or opt[f'network_{name}'] == lite[f'network_{name}']
        assert opt['datasets']['val'] == lite['datasets']['val'] and opt['val']['metrics'] == lite['val']['metrics']
        assert opt['train']['cycle_jitter'] == lite['train']['cycle_jitter']
    assert fine['network_g'] == lite['network_g'] and fine['path']['strict_load_g']
    for name in ('num_feat', 'num_block', 'use_ema', 'ema_factor', 'use_aspp'):
        assert full['network_g'][name] == paper['network_g'][name]
    with torch.device('meta'):
        shapes = [{k: v.shape for k, v in build_network(opt['network_g']).state_dict().items()} for opt in (lite, full)]
    curve = [key for key in shapes[1] if key.startswith('exposure.')]
    assert curve and all(shapes[0][key] == shapes[1][key] for key in curve) and not full['path']['strict_load_g']


def test_each_part_of_the_default_model_starts_from_the_one_before():
    first, *others = (load(LIST.with_name(f'train_everyday{stem}.yml')) for stem in ('', '_exposure', '_finetune'))
    for opt, start in zip(others, (first, others[0])):
        assert opt['path']['pretrain_network_g'] == f"experiments/{start['name']}/models/net_g_latest.pth"
        assert opt['path']['param_key_g'] == 'params_ema' and opt['network_g'] == first['network_g']


def test_train_lol_is_the_papers_schedule(tmp_path, monkeypatch, forked):
    """200 epochs of 445 images in batches of 8 are 11,125 optimizer steps, at a rate that reaches 0 after the last."""
    names = read_name_list(str(LIST), 'names') + [f'training{i}' for i in range(445)]
    for kind in ('low', 'high'):
        (tmp_path / kind).mkdir()
        for name in names:
            cv2.imwrite(str(tmp_path / kind / f'{name}.bmp'), np.full((8, 8, 3), len(name), np.uint8))

    def run():
        steps, rates, drawn = [], [], set()

        def step(model):
            model.optimizer_g.step()
            steps.append(model.iteration)
            rates.append(model.get_current_learning_rate()[0])
            return {'l_d_a': torch.ones(()), 'l_d_b': torch.ones(())}

        feed_data = LowLightCycleGANModel.feed_data

        def counted(model, data):
            drawn.update(data['lq_path'])
            feed_data(model, data)

        monkeypatch.setattr(LowLightCycleGANModel, '_train_step', step)
        monkeypatch.setattr(LowLightCycleGANModel, 'feed_data', counted)
        monkeypatch.setattr(LowLightCycleGANModel, 'validation', lambda *args: None)
        monkeypatch.setattr(LowLightCycleGANModel, 'save', lambda *args, **kwargs: None)
        monkeypatch.setattr(LowLightCycleGANModel, '_warn_of_collapse', lambda *args: None)
        monkeypatch.chdir(tmp_path)
        roots = [f'datasets:{phase}:dataroot_{key}={tmp_path}/{kind}' for phase in ('train', 'val')
                 for key, kind in (('lq', 'low'), ('gt', 'high'))]
        tiny = [f'{net}:{key}' for net in ('network_g', 'network_f') for key in ('num_feat=4', 'num_block=1',
                                                                                  'ema_factor=4')]
        monkeypatch.setattr('sys.argv', [
            'train', '-opt', str(LIST.with_name('train_lol.yml')), '--force_yml', *roots, *tiny,
            'datasets:train:gt_size=8', 'network_d_a={type: PatchGANDiscriminator, num_feat: 4, num_layer: 1}',
            'network_d_b={type: PatchGANDiscriminator, num_feat: 4, num_layer: 1}',
            'logger:use_tb_logger=false', 'logger:print_freq=5000'
        ])
        train.main()
        print('steps', len(steps), steps[-1], 'rates', rates[0], rates[5562], rates[-1], 'low images', len(drawn))

    code, output = forked(run)
    assert code == 0, output
    assert f'steps 11125 11125 rates 0.0001 0.0001 {1e-4 / 5563} low images 445' in output
