from helpers_enhance import build, picture
import pytest
import resource
import torch

from lowlight_cyclegan.archs import EMAResNetGenerator, ZeroDCE
from lowlight_cyclegan.enhance.guided import enhance_guided
from lowlight_cyclegan.enhance.inference import prepare_for_inference
from lowlight_cyclegan.enhance.modes import MODES, choose_mode, enhance_with_fallback, memory_needed


def test_choose_mode():
    gigabyte = 1e9
    assert choose_mode(400, 600, 'cpu', 'fp32', 4 * gigabyte)[0] == 'direct'
    assert choose_mode(400, 600, 'cpu', 'fp32', 0.25 * gigabyte)[0] == 'guided'
    assert choose_mode(1000, 1000, 'cpu', 'fp32', 1.1 * gigabyte)[0] == 'guided'
    assert choose_mode(1000, 1000, 'cpu', 'fp32', 1.1 * gigabyte, ZeroDCE(num_feat=8))[0] == 'guided'
    assert choose_mode(1000, 1000, 'cpu', 'bf16', 1.1 * gigabyte)[0] == 'direct'
    assert choose_mode(1000, 1000, 'cpu', 'fp32', 1.1 * gigabyte, build())[0] == 'direct'
    assert choose_mode(3000, 4000, 'cpu', 'fp32', 1000 * gigabyte)[0] == 'guided'
    assert choose_mode(1500, 2000, 'cuda', 'fp32', 1000 * gigabyte)[0] == 'direct'
    mode, reason = choose_mode(3000, 4000, 'cpu')  # with what is free now
    assert mode == 'guided' and '12.0 megapixels' in reason and '\n' not in reason
    assert 'GB' in choose_mode(1000, 1000, 'cpu', 'fp32', 1.1 * gigabyte)[1]


def test_choose_mode_counts_copies():
    """Of self-ensemble and denoise: what fits without them need not fit with them."""
    net, height, width = build(), 800, 1000
    budget = memory_needed('direct', height, width, net=net) + 1
    assert choose_mode(height, width, max_memory=budget, net=net)[0] == 'direct'
    mode, reason = choose_mode(height, width, max_memory=budget, net=net, copies=2)
    assert mode == 'guided' and reason.startswith('in one piece it would need 363 MB of ')
    assert choose_mode(height, width, max_memory=budget + 2 * 12 * height * width, net=net, copies=2)[0] == 'direct'


def test_memory_needed_falls_from_mode_to_mode():
    for net in (None, build()):
        assert memory_needed('direct', 3000, 4000, net=net) > memory_needed('guided', 3000, 4000, net=net)


@pytest.mark.parametrize('error', [
    RuntimeError('[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory: you tried to allocate'),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError('CUDA out of memory.'),
    MemoryError()
], ids=repr)  # yapf: disable
def test_memory_that_runs_out_leads_to_the_next_mode(error):

    class Network(EMAResNetGenerator):
        limit = 80 * 80

        def forward(self, x):
            if x.shape[2] * x.shape[3] > self.limit:
                raise error
            return super().forward(x)

    net = Network(num_feat=8, num_block=1, ema_factor=4).eval()
    x, lines = picture(96, 128), []
    y, mode = enhance_with_fallback(net, x, 'direct', size=64, say=lines.append)
    assert mode == 'guided' and y.shape == x.shape
    assert lines == ['128x96: not enough memory for mode direct, going on with mode guided']
    net.limit = 0
    with pytest.raises(MemoryError, match='128x96: not enough memory for mode guided'):
        enhance_with_fallback(net, x, 'direct', say=lines.append)


def test_other_errors_are_not_taken_for_memory():

    def net(x):
        raise RuntimeError('shapes do not match')

    with pytest.raises(RuntimeError, match='shapes do not match'):
        enhance_with_fallback(net, picture(40, 40), 'direct')


@pytest.mark.full
@pytest.mark.parametrize('mode', MODES)
def test_memory_does_not_grow_over_1000_images(mode):
    net = prepare_for_inference(build(head='gain'), 'cpu', 'bf16')
    run = {
        'direct': net,
        'guided': lambda x: enhance_guided(net, x, 32)
    }[mode]

    def peak(images):
        with torch.no_grad():
            for i in range(images):
                run(picture(40 + i % 3, 48))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak(100)
    assert peak(1000) - before < 8 * 1024  # kilobytes
