import pytest
import torch

from tabdiff.diffusion import CosineSchedule, Denoiser, sample
from tabdiff.nn import ImageCondition
from tabdiff.nn.unet import UNet, unet_preset
from tabdiff.training import TrainingOptions, train


def small(shape=(1, 8, 8), condition_size=0, **kwargs):
    return UNet(shape, condition_size, **{"base": 8, "multipliers": (1, 2), "n_blocks": 1, "attention": (4,), **kwargs})


def scatter(network):
    """Weights without the zeros that it starts from."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=generator)
    return network


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_the_preset_for_cifar_is_the_published_network():
    # 35.7 million: Ho et al., 2020, appendix B.
    assert count(UNet((3, 32, 32), **unet_preset(32, 32))) == 35_746_307


@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_presets_fit_their_images(side):
    network = UNet((3, side, side), 16, **{**unet_preset(side, side), "base": 4})
    out = network(torch.zeros(1, 3 * side * side), torch.zeros(1), torch.zeros(1, 16))
    assert out.shape == (1, 3 * side * side)
    assert any(block.attention is not None for block in network.down if hasattr(block, "attention"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 7, 9), (3, 5, 12), (4, 13, 6)])
@pytest.mark.parametrize("way", ["adaln", "addition", "concatenation"])
def test_any_size_comes_back(shape, way):
    network = scatter(small(shape, time_conditioning=way))
    x = torch.randn(2, *shape)
    flat = network(x.flatten(1), torch.rand(2).fill_(0.3))
    assert flat.shape == (2, x[0].numel())
    torch.testing.assert_close(network(x, torch.full((2,), 0.3)), flat.reshape(x.shape))


def test_starts_at_zero_output_and_every_weight_learns():
    torch.manual_seed(0)
    network = small(condition_size=4, dropout=0.1)
    x, t, c = torch.randn(8, 64), torch.rand(8), torch.randn(8, 4)
    assert (network(x, t, c) == 0).all()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(4):  # the zero-initialised layers let the gradient through one after the other
        optimizer.zero_grad()
        (network(x, t, c) - x).square().mean().backward()
        optimizer.step()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert silent == []


def test_images_do_not_depend_on_each_other_and_time_and_condition_matter():
    network = scatter(small(condition_size=4)).double()
    x, t, c = torch.randn(6, 64).double(), torch.rand(6).double(), torch.randn(6, 4).double()
    together = network(x, t, c)
    torch.testing.assert_close(together[2:4], network(x[2:4], t[2:4], c[2:4]))
    assert not torch.allclose(together, network(x, t.flip(0), c))
    assert not torch.allclose(together, network(x, t, c.flip(0)))
    one = torch.tensor(0.3).double()
    torch.testing.assert_close(network(x, one.expand(6), c), network(x, torch.full((6,), 0.3).double(), c))


def test_pixels_far_apart_see_each_other():
    network = scatter(small((1, 16, 16), multipliers=(1, 2, 2), attention=(4,)))
    x = torch.zeros(1, 256, requires_grad=True)
    network(x, torch.zeros(1))[0, 0].backward()
    assert float(x.grad[0, -1].abs()) > 0


def test_without_a_condition_there_is_no_layer_for_one():
    assert not any(name.startswith("condition") for name, _ in small().named_parameters())
    assert count(small(condition_size=4)) - count(small()) == 4 * 32 + 32


def test_an_image_beside_is_seen():
    network = scatter(small(condition_size=4, extra_channels=2))
    x, t, c = torch.randn(3, 64), torch.rand(3), torch.randn(3, 4 + 128)
    other = c.clone()
    other[:, -1] += 1
    assert not torch.allclose(network(x, t, c), network(x, t, other))


def test_a_denoiser_follows_an_image_beside_the_noisy_one():
    """Images of random signs, which nothing but the image beside them tells."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 2, (256, 36), generator=generator) * 2.0 - 1
    torch.manual_seed(0)
    network = small((1, 6, 6), multipliers=(1,), attention=(), extra_channels=2)
    denoiser = Denoiser(network, CosineSchedule(), "x0", ImageCondition((1, 6, 6)))
    settings = {
        "max_steps": 80,
        "batch_size": 64,
        "learning_rate": 5e-3,
        "options": TrainingOptions(ema_decay=0.9),
        "condition_dropout": 0.2,
    }
    trained = train(denoiser, images, -images, **settings, generator=generator).denoiser
    noise = torch.randn((64, 36), generator=generator)
    fresh = torch.randint(0, 2, (64, 36), generator=generator) * 2.0 - 1
    drawn = sample(trained, noise, -fresh, method="ddim", steps=5)
    assert (drawn.sign() == fresh).float().mean() > 0.95
    alone = sample(trained, noise, method="ddim", steps=5)
    assert 0.4 < (alone.sign() == fresh).float().mean() < 0.6


def test_bfloat16_is_close_to_float32():
    network = scatter(small())
    x, t = torch.randn(4, 64), torch.rand(4)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(x, t)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, network(x, t), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"multipliers": (1, 2, 2, 2, 2)}, "too small for 5 levels"),
        ({"base": 0}, "base=0"),
        ({"conditioning": "other"}, "conditioning must be one of"),
    ],
)
def test_impossible_networks_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


def test_needs_the_condition_that_it_was_built_with():
    with pytest.raises(ValueError, match="needs c"):
        small(condition_size=4)(torch.zeros(2, 64), torch.zeros(2))
