import pytest
import torch
import torchvision

import lowlight_cyclegan

lowlight_cyclegan.register()
from basicsr.losses import build_loss  # noqa: E402
from lowlight_cyclegan.metrics import build_lpips  # noqa: E402


@pytest.fixture(scope='module')
def trunk(tmp_path_factory):
    """AlexNet with random weights, and its file."""
    torch.manual_seed(0)
    features = torchvision.models.alexnet(weights=None).features
    path = tmp_path_factory.mktemp('trunk') / 'alex.pth'
    torch.save({f'features.{key}': value for key, value in features.state_dict().items()}, path)
    return str(path), features


@pytest.fixture(scope='module')
def images():
    return torch.rand(2, 2, 3, 64, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize('layer, modules', [(1, 2), (3, 8)])
def test_value_by_its_definition(trunk, images, layer, modules):
    path, features = trunk
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalized = []
    for image in images:
        maps = features[:modules](((image + 1) / 2 - mean) / std)
        maps = maps - maps.mean((2, 3), keepdim=True)
        normalized.append(maps / (maps.square().mean((2, 3), keepdim=True) + 1e-5).sqrt())
    expected = 0.5 * (normalized[0] - normalized[1]).square().mean().item()
    loss = build_loss({'type': 'SelfFeatureLoss', 'trunk': path, 'layer': layer, 'loss_weight': 0.5})
    assert expected > 0.01
    assert loss(*images).item() == pytest.approx(expected, rel=2e-3)  # LPIPS rounds mean and std
    assert loss(images[0], images[0]).item() == 0


def test_gradients_reach_the_enhanced_image_alone(trunk, images):
    loss = build_loss({'type': 'SelfFeatureLoss', 'trunk': trunk[0]})
    enhanced, low = (image.clone().requires_grad_() for image in images)
    loss(enhanced, low).backward()
    assert low.grad is None and enhanced.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())
    assert {id(p) for p in loss.parameters()}.isdisjoint(map(id, build_lpips('alex', trunk[0]).parameters()))


def test_other_layers_and_weights_are_refused(trunk):
    for layer in (0, 6, 'last'):
        with pytest.raises(ValueError, match='layer is from 1 to 5 in alex'):
            build_loss({'type': 'SelfFeatureLoss', 'trunk': trunk[0], 'layer': layer})
    with pytest.raises(SystemExit, match="LPIPS: trunk 'absent.pth' cannot be loaded"):
        build_loss({'type': 'SelfFeatureLoss', 'trunk': 'absent.pth'})
