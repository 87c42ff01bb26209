"""Switches for speed: other speed, same training."""
import numpy as np
import pytest
import torch
import torch.distributed as dist
from basicsr.models import build_model

from lowlight_cyclegan.models import speed


def batch(seed, n=2, size=32):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
            for key in ('lq', 'gt')}


def train(model, iterations):
    for iteration in iterations:
        model.feed_data(batch(iteration))
        model.optimize_parameters(iteration)


def built(opt, seed=0, **switches):
    torch.manual_seed(seed)
    return build_model({**opt, **switches})


def weights(model):
    states = {name: model.get_bare_model(net).state_dict() for name, net in model.networks.items()}
    return {f'{name}.{k}': v for name, state in states.items() for k, v in state.items()}


@pytest.fixture
def quick_compile(monkeypatch):
    """Everything of torch.compile but the code generation, which takes a minute."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **kwargs: compile_(self, backend='eager', **kwargs))
    yield
    torch.compiler.reset()


@pytest.fixture
def full_compile():
    yield
    torch.compiler.reset()


def resumed_from(opt, iteration, **switches):
    """A model built with other random numbers, then resumed from a checkpoint."""
    np.random.seed(99)
    for name in ('g', 'f', 'd_a', 'd_b'):
        opt['path'][f'pretrain_network_{name}'] = f"{opt['path']['models']}/net_{name}_{iteration}.pth"
    model = built(opt, 99, **switches)
    model.resume_training(torch.load(f"{opt['path']['training_states']}/{iteration}.state", weights_only=True))
    return model


def gradients(opt, **switches):
    """Of one step in float64, without taking it."""
    torch.set_default_dtype(torch.float64)
    try:
        model = built(opt, **switches)
        model.optimizer_g.step = model.optimizer_d.step = lambda: None
        data = batch(0)
        model.feed_data({key: value.double() / 255 for key, value in data.items()})
        model.optimize_parameters(1)
        return [p.grad for net in model.networks.values() for p in net.parameters()]
    finally:
        torch.set_default_dtype(torch.float32)


def test_channels_last_gives_the_same_gradients(toy_opt):
    for value, expected in zip(gradients(toy_opt, channels_last=True), gradients(toy_opt)):
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-12)


def test_fused_adam_gives_the_same_weights(toy_opt):
    torch.set_default_dtype(torch.float64)
    try:
        models = []
        for switch in (True, False):
            opt = {**toy_opt, 'train': dict(toy_opt['train'])}
            for key in ('optim_g', 'optim_d'):
                opt['train'][key] = {**opt['train'][key], 'fused': switch}
            models.append(built(opt))
            assert models[-1].optimizer_g.param_groups[0]['fused'] is switch
            for iteration in (1, 2, 3):
                models[-1].feed_data({key: value.double() / 255 for key, value in batch(iteration).items()})
                models[-1].optimize_parameters(iteration)
        for nets in zip(*((*model.networks.values(), model.net_g_ema) for model in models)):
            for value, expected in zip(*(net.parameters() for net in nets)):  # Adam divides rounding by rounding where
                torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)  # a bias precedes an InstanceNorm
    finally:
        torch.set_default_dtype(torch.float32)


def test_adam_is_fused_by_default(toy_opt):
    assert all(optimizer.param_groups[0]['fused'] for optimizer in built(toy_opt).optimizers)


@pytest.mark.parametrize('capable', [True, False])
def test_auto_is_what_suits_the_device(toy_opt, capable, monkeypatch, caplog):
    monkeypatch.setattr(speed, 'has_bf16', lambda device: capable)
    with caplog.at_level('INFO', logger='basicsr'):
        model = built(toy_opt, amp='auto', channels_last='auto')
        given = built(toy_opt, amp=None, channels_last=True)
    assert model.amp_dtype == (torch.bfloat16 if capable else None)
    assert model.memory_format == torch.contiguous_format
    amp = 'bf16' if capable else '~'
    assert f'auto on this cpu is amp: {amp}, channels_last: false.' in caplog.text
    assert given.amp_dtype is None and given.memory_format == torch.channels_last
    assert caplog.text.count('auto on this cpu') == 1


def test_compile_gives_the_same_gradients(toy_opt, quick_compile):
    for value, expected in zip(gradients(toy_opt, compile=True), gradients(toy_opt)):
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-12)


def test_channels_last_reaches_networks_and_images(toy_opt):
    model = built(toy_opt, channels_last=True)
    model.feed_data(batch(0))
    seen = [model.lq, model.gt, *(p for net in (*model.networks.values(), model.net_g_ema) for p in net.parameters()
                                  if p.dim() == 4)]
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)
    assert not built(toy_opt).networks['g'].encoder.down[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('switches', [{'channels_last': True}, {'compile': True}, {'amp': 'auto'}])
def test_exact_resume_checkpoints_and_weight_averaging(toy_opt, switches, quick_compile):
    keys = list(built(toy_opt).networks['g'].state_dict())
    whole, part = built(toy_opt, **switches), built(toy_opt, **switches)
    train(whole, range(1, 6))
    train(part, range(1, 4))
    part.save(0, 3)
    saved = torch.load(f"{toy_opt['path']['models']}/net_g_3.pth", weights_only=True)
    assert set(saved) == {'params', 'params_ema'} and all(list(state) == keys for state in saved.values())
    assert all(value.is_contiguous() for state in saved.values() for value in state.values())
    resumed = resumed_from(toy_opt, 3, **switches)
    train(resumed, range(4, 6))
    for (key, expected), value in zip(weights(whole).items(), weights(resumed).values()):
        assert torch.equal(value, expected), key
    for expected, value in zip(whole.net_g_ema.parameters(), resumed.net_g_ema.parameters()):
        assert torch.equal(value, expected)


@pytest.mark.parametrize('before', [False, True])
def test_channels_last_can_change_at_a_resume(toy_opt, before):
    """A fused step pairs weights and moments by their place in memory."""
    model = built(toy_opt, channels_last=before)
    train(model, [1, 2])
    model.save(0, 2)
    resumed = resumed_from(toy_opt, 2, channels_last=not before)
    moments = [[state['exp_avg'] for state in m.optimizer_g.state.values()] for m in (model, resumed)]
    parameters = [p for name in ('g', 'f') for p in resumed.networks[name].parameters()]
    for expected, value, parameter in zip(*moments, parameters):
        assert torch.equal(value, expected) and value.stride() == parameter.stride()
    train(model, [3])
    train(resumed, [3])
    for (key, expected), value in zip(weights(model).items(), weights(resumed).values()):
        torch.testing.assert_close(value, expected, rtol=0, atol=2e-3, msg=key)  # twice the rate, at most


@pytest.mark.parametrize('ema_decay', [0, 0.9])
def test_validation_is_never_compiled(toy_opt, quick_compile, ema_decay):
    """Each picture has its own size, and each size would be compiled anew."""
    toy_opt['train']['ema_decay'] = ema_decay
    model = built(toy_opt, compile=True)
    train(model, [1])
    expected = (model.net_g_ema or model.networks['g']).forward
    for size in (33, 40, 47):
        model.feed_data(batch(0, 1, size))
        with torch.compiler.set_stance('fail_on_recompile'):
            model.test()
        with torch.inference_mode():
            assert torch.equal(model.output, expected(model.lq))


def test_testing_is_not_compiled(toy_opt, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda *_, **__: pytest.fail('compiled'))
    built(toy_opt, compile=True, is_train=False)


def _on_rank(rank, opt, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    compile_ = torch.nn.Module.compile
    torch.nn.Module.compile = lambda self, **kwargs: compile_(self, backend='eager', **kwargs)
    model = built(opt, rank, dist=True, rank=rank, world_size=2, compile=True, channels_last=True)
    model.feed_data({key: value[rank::2] for key, value in batch(1).items()})
    model.optimize_parameters(1)
    torch.save(weights(model), f'{folder}/{rank}.result')
    dist.destroy_process_group()


@pytest.mark.full
def test_both_switches_in_a_distributed_run(toy_opt, tmp_path):
    torch.multiprocessing.start_processes(_on_rank, args=(toy_opt, tmp_path), nprocs=2, start_method='fork')
    first, second = (torch.load(tmp_path / f'{rank}.result') for rank in (0, 1))
    expected = weights(built(toy_opt))
    assert first.keys() == expected.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], expected[key]) for key in first)


@pytest.mark.full
@pytest.mark.parametrize('amp', [None, 'bf16'])
def test_generated_code_trains_as_eager_does(toy_opt, full_compile, amp):
    toy_opt['train'].update(pool_size=0)
    logs = []
    for switches in ({}, {'compile': True}):
        model = built(toy_opt, amp=amp, **switches)
        train(model, range(1, 4))
        logs.append(model.get_current_log())
    for name, expected in logs[0].items():
        assert logs[1][name] == pytest.approx(expected, rel=0.02), name
