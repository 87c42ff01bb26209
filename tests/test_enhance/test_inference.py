from helpers_enhance import build, picture, psnr
import pytest
import torch

from lowlight_cyclegan.enhance.inference import prepare_for_inference
from lowlight_cyclegan.enhance.strips import enhance_exact


@pytest.mark.parametrize('options', [{}, {'head': 'gain', 'upsample': 'resize'}], ids=str)
def test_preparation_changes_no_value(options):
    plain, net, x = build(**options), build(**options), picture(64, 52)
    assert prepare_for_inference(net, 'cpu', 'bf16') is net
    assert list(net.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x), rtol=0, atol=0)
        expected = plain(x)
        with torch.autocast('cpu', torch.bfloat16):
            if options:
                torch.testing.assert_close(net(x), plain(x), rtol=0, atol=0)
            else:
                assert psnr(net(x), expected) > psnr(plain(x), expected) + 6
        assert psnr(enhance_exact(net, x, 16), plain(x)) > 90
