import pytest
import torch
from torch import nn

from lowlight_cyclegan.archs import ASPP, ASPPEncoder


def test_dilations_are_the_papers():
    convs = [m for m in ASPPEncoder(num_feat=4).aspp.branches.modules() if isinstance(m, nn.Conv2d)]
    assert [conv.dilation for conv in convs] == [(1, 1), (4, 4), (8, 8), (16, 16)]
    assert [conv.kernel_size for conv in convs] == [(1, 1), (3, 3), (3, 3), (3, 3)]


def test_receptive_field_is_that_of_the_dilations():
    """Without norms and pooling, one output pixel sees exactly the offsets 0 and +-4, +-8, +-16 of the branches."""
    aspp = ASPP(2, 2).double()
    for sequence in (*aspp.branches, aspp.project):
        sequence[1], sequence[2] = nn.Identity(), nn.Identity()
    aspp.pool = nn.Sequential(nn.Conv2d(2, 2, 1).double().requires_grad_(False))
    nn.init.zeros_(aspp.pool[0].weight)
    x = torch.randn(1, 2, 41, 41, dtype=torch.float64, requires_grad=True)
    aspp(x)[0, :, 20, 20].sum().backward()
    seen = {(int(i) - 20, int(j) - 20) for _, _, i, j in x.grad.nonzero()}
    assert seen == {(i * d, j * d) for d in (4, 8, 16) for i in (-1, 0, 1) for j in (-1, 0, 1)}


def test_pooled_branch_carries_the_whole_image():
    torch.manual_seed(0)
    aspp = ASPP(4, 4)
    x = torch.zeros(1, 4, 64, 64)
    x[..., -1, -1] = 100.0  # further from the first pixel than any dilation reaches
    pooled = aspp.pool(x.mean((2, 3), keepdim=True))
    other = aspp.pool(torch.zeros(1, 4, 1, 1))
    assert not torch.allclose(pooled, other)


@pytest.mark.parametrize('size', [(32, 32), (64, 96)])
def test_encoder_by_itself_at_batch_one(size):
    features = ASPPEncoder(num_feat=4, aspp_width=6)(torch.rand(1, 3, *size))
    assert features.shape == (1, 16, size[0] // 4, size[1] // 4)
    assert features.isfinite().all()


def test_without_aspp_nothing_is_added():
    assert isinstance(ASPPEncoder(num_feat=4, use_aspp=False).aspp, nn.Identity)


def test_without_norm_names_stay_and_brightness_is_seen():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 48)
    change = {}
    for norm in ('instance', None):
        encoder = ASPPEncoder(num_feat=8, norm=norm)
        features = [encoder(x * scale) for scale in (1.0, 0.2)]
        change[norm] = ((features[0] - features[1]).std() / features[0].std()).item()
        assert 0.1 < features[0].std() < 3  # neither vanishing nor exploding
    assert change['instance'] < 0.3 and 0.6 < change[None] < 1
    with_norm, without = (ASPPEncoder(num_feat=4, norm=norm).state_dict() for norm in ('instance', None))
    assert without.keys() - with_norm.keys() == {
        *(f'aspp.branches.{i}.0.bias' for i in range(4)), 'aspp.project.0.bias'}
    assert with_norm.keys() < without.keys()
    with pytest.raises(ValueError, match='norm is'):
        ASPPEncoder(num_feat=4, norm='batch')
