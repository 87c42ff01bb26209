import math
import numpy as np
import pytest
import sys
import torch
import torch.distributed as dist
from basicsr.models import build_model
from torch.utils.data import DataLoader, Dataset

NETWORKS = {'ZeroDCE': dict(type='ZeroDCE', num_feat=4), 'SCI': dict(type='SCI', num_feat=4)}
BOTH = pytest.mark.parametrize('name', NETWORKS)


@pytest.fixture
def zero_opt(toy_opt):
    """Function: name of a network -> options of a toy run that trains it."""

    def make(name):
        for key in ('network_f', 'network_d_a', 'network_d_b'):
            toy_opt.pop(key, None)
        toy_opt.update(
            model_type='ZeroReferenceModel', network_g=dict(NETWORKS[name]),
            train=dict(optim_g=dict(type='Adam', lr=1e-2), scheduler=dict(type='MultiStepLR', milestones=[]),
                       total_iter=10, ema_decay=0.9, zero_reference_opt=dict(type=f'{name}Loss')))
        return toy_opt

    return make


def batch(iteration, n=2, size=32):
    """Dark images that depend on the iteration alone."""
    generator = torch.Generator().manual_seed(iteration)
    return {'lq': 0.3 * torch.rand(n, 3, size, size, generator=generator)}


def build(opt):
    torch.manual_seed(0)
    return build_model(opt)


def train(model, iterations, **more):
    for iteration in iterations:
        model.update_learning_rate(iteration)
        model.feed_data({**batch(iteration), **more})
        model.optimize_parameters(iteration)


def weights(model):
    """Parameters and buffers, of the averaged network too."""
    nets = {'g': model.get_bare_model(model.networks['g']), 'ema': model.net_g_ema}
    return {f'{name}.{key}': v.clone() for name, net in nets.items() for key, v in net.state_dict().items()}


def assert_same(expected, found):
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@BOTH
def test_training_changes_every_weight_and_lowers_the_loss(zero_opt, name):
    opt = zero_opt(name)
    opt['train']['ema_decay'] = 0
    model = build(opt)
    before = {k: v.clone() for k, v in model.networks['g'].named_parameters()}
    totals = []
    for iteration in range(1, 9):
        model.feed_data(batch(1))
        model.optimize_parameters(iteration)
        log = model.get_current_log()
        totals.append(sum(log.values()))
    assert set(log) == {'ZeroDCE': {'l_spatial', 'l_exposure', 'l_color', 'l_smoothness'},
                        'SCI': {'l_fidelity', 'l_smoothness'}}[name]
    assert all(map(math.isfinite, totals)) and totals[-1] < 0.95 * totals[0]
    assert not [k for k, v in model.networks['g'].named_parameters() if torch.equal(v, before[k])]


def test_zero_dce_step_is_that_of_its_loss_on_its_curves(zero_opt):
    opt = zero_opt('ZeroDCE')
    model = build(opt)
    net, low = model.networks['g'], batch(1)['lq']
    curves = net.curves(low)
    enhanced = low
    for curve in curves.unbind(1):
        enhanced = enhanced - curve * enhanced * (1 - enhanced)
    terms = model.cri_zero_reference(low, enhanced, curves)
    expected = torch.autograd.grad(sum(terms.values()), list(net.parameters()))
    model.optimizers[0].step = lambda: None
    model.feed_data({'lq': low})
    model.optimize_parameters(1)
    for parameter, gradient in zip(net.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close((model.visuals['enhanced'] + 1) / 2, enhanced)


def test_sci_is_a_cascade_in_training_and_one_block_in_testing(zero_opt):
    model = build(zero_opt('SCI'))
    calls = []
    net = model.networks['g']
    for part in ('estimator', 'calibrator'):
        getattr(net, part).register_forward_hook(lambda *args, part=part: calls.append(part))
    train(model, [1])
    assert calls == ['estimator', 'calibrator', 'estimator', 'calibrator', 'estimator']
    calls.clear()
    model.net_g_ema = None
    model.test()
    assert calls == ['estimator'] and net.training
    low = batch(1)['lq']
    net.eval()
    with torch.inference_mode():
        expected = (low / (low + net.estimator(low)).clamp(1e-4, 1)).clamp(0, 1)
    torch.testing.assert_close((model.output + 1) / 2, expected)


@BOTH
def test_normal_light_images_change_nothing(zero_opt, name):
    opt = zero_opt(name)
    alone, beside = build(opt), build(opt)
    train(alone, [1, 2])
    train(beside, [1, 2], gt=torch.rand(2, 3, 32, 32))
    assert_same(weights(alone), weights(beside))


@BOTH
def test_resumed_run_is_bit_for_bit_the_uninterrupted_one(zero_opt, name):
    opt = zero_opt(name)
    whole = build(opt)
    train(whole, range(1, 7))
    part = build(opt)
    train(part, range(1, 4))
    part.save(0, 3)
    torch.manual_seed(99)
    np.random.seed(99)
    opt['path']['pretrain_network_g'] = f"{opt['path']['models']}/net_g_3.pth"
    resumed = build_model(opt)
    resumed.resume_training(torch.load(f"{opt['path']['training_states']}/3.state", weights_only=True))
    train(resumed, range(4, 7))
    assert_same(weights(whole), weights(resumed))


def test_averaged_network_has_the_statistics_of_the_trained_one(zero_opt):
    model = build(zero_opt('SCI'))
    train(model, [1, 2])
    norm, averaged = (net.estimator.block[1] for net in (model.networks['g'], model.net_g_ema))
    assert torch.equal(norm.running_var, averaged.running_var) and norm.num_batches_tracked == 6
    assert not torch.equal(norm.weight, averaged.weight)


@BOTH
def test_bf16_stays_close_and_losses_are_fp32(zero_opt, name):
    opt, logs = zero_opt(name), []
    for opt['amp'] in (None, 'bf16'):
        model = build(opt)
        seen = []
        forward = model.cri_zero_reference.forward
        model.cri_zero_reference.forward = lambda *args, forward=forward, seen=seen: seen.append(args) or forward(*args)
        train(model, [1])
        tensors = seen[0] if name == 'ZeroDCE' else [v for stage in seen[0][0] for v in stage]
        assert all(v.dtype == torch.float32 for v in tensors)
        logs.append(model.get_current_log())
    total = [sum(log.values()) for log in logs]
    assert total[1] == pytest.approx(total[0], rel=0.02) and logs[0] != logs[1]


class ToyPairs(Dataset):
    opt = dict(name='toy_val')

    def __len__(self):
        return 3

    def __getitem__(self, index):
        low = batch(index, n=1)['lq'][0]
        return {'lq': low, 'gt': (2 * low).clamp(0, 1), 'lq_path': f'/data/{index}.png'}


def test_validation_and_loss_that_is_not_finite_are_as_with_the_other_model(zero_opt, tmp_path):
    model = build(zero_opt('ZeroDCE'))
    train(model, [1])
    model.validation(DataLoader(ToyPairs()), 5, None, save_img=True)
    assert 0 < model.metric_results['psnr'] < 100
    assert len((tmp_path / 'log' / 'metrics' / 'toy_val_5.csv').read_text().splitlines()) == 4
    assert (tmp_path / 'visualization' / 'training' / 'low_enhanced_5.png').is_file()
    with pytest.raises(SystemExit, match='iteration 6 .*l_exposure: nan'):
        train(model, [6], lq=torch.full((1, 3, 32, 32), float('nan')))


def on_rank(rank, opt, tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=rank, world_size=2)
    opt.update(dist=True, rank=rank, world_size=2)
    torch.manual_seed(rank)
    model = build_model(opt)
    for iteration in (1, 2):
        model.feed_data({'lq': batch(iteration)['lq'][rank::2]})
        model.optimize_parameters(iteration)
    own = weights(model)
    model.validation(DataLoader(ToyPairs()), 5, None)
    torch.save((own, weights(model)), tmp_path / f'{rank}.result')
    dist.destroy_process_group()


def test_ranks_validate_the_same_network(zero_opt, tmp_path):
    """The statistics of BatchNorm differ between the ranks after a step; those of rank 0 are tested and saved."""
    torch.multiprocessing.start_processes(on_rank, args=(zero_opt('SCI'), tmp_path), nprocs=2, start_method='fork')
    (own, tested), (other, tested_there) = (torch.load(tmp_path / f'{rank}.result') for rank in (0, 1))
    key = 'ema.estimator.block.1.running_mean'
    assert torch.equal(own['g.estimator.stem.0.weight'], other['g.estimator.stem.0.weight'])
    assert not torch.equal(own[key], other[key])
    assert torch.equal(own[key], tested[key]) and torch.equal(own[key], tested_there[key])


def test_run_on_low_images_alone_resumes_exactly(toy_run, forked, monkeypatch):
    text = (toy_run / 'toy.yml').read_text().replace('LowLightCycleGANModel', 'ZeroReferenceModel')
    text = text.replace('dataroot_gt: data/high', 'dataroot_gt: ~', 1)
    text = '\n'.join(line for line in text.splitlines()
                     if not line.startswith(('network_', '  optim_d', '  gan_opt', '  cycle_opt', '  identity_opt')))
    text = text.replace('LinearDecayLR', 'MultiStepLR, milestones: []')
    text = text.replace('train:\n  optim_g', 'network_g: {type: SCI, num_feat: 4}\ntrain:\n'
                        '  zero_reference_opt: {type: SCILoss}\n  optim_g')
    (toy_run / 'toy.yml').write_text(text)
    monkeypatch.chdir(toy_run)

    def run(name, total_iter):

        def main():
            sys.argv = ['train', '-opt', 'toy.yml', '--auto_resume', '--force_yml', f'name={name}',
                        f'train:total_iter={total_iter}', 'val:val_freq=3']
            from lowlight_cyclegan import train
            train.main()

        code, output = forked(main)
        assert code == 0, output
        return torch.load(toy_run / 'experiments' / name / 'models' / 'net_g_latest.pth'), output

    whole, _ = run('whole', 7)
    run('parts', 4)
    parts, output = run('parts', 7)
    assert 'Resuming training from epoch: 1, iter: 4.' in output
    for key in ('params', 'params_ema'):
        assert_same(whole[key], parts[key])
