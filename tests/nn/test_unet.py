import pytest
import torch

from tabdiff.diffusion import CosineSchedule, Denoiser, sample
from tabdiff.nn import Context, ImageCondition
from tabdiff.nn.unet import Block, UNet, unet_preset
from tabdiff.training import Batches, TrainingOptions, train


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


def count_in_closed_form(channels, base, multipliers, n_blocks, attended, film):
    """Weights of the published network, layer by layer; `attended` says which levels have attention."""
    embedding = 4 * base

    def conv(n_in, n_out, side=3):
        return side * side * n_in * n_out + n_out

    def linear(n_in, n_out):
        return n_in * n_out + n_out

    def attention(n):
        return 2 * n + linear(n, 3 * n) + linear(n, n)

    def block(n_in, n_out, attends):
        total = 2 * n_in + conv(n_in, n_out) + linear(embedding, (2 if film else 1) * n_out)
        total += 2 * n_out + conv(n_out, n_out) + (conv(n_in, n_out, 1) if n_in != n_out else 0)
        return total + (attention(n_out) if attends else 0)

    total = linear(base, embedding) + linear(embedding, embedding) + conv(channels, base)
    n, skips = base, [base]
    for level, m in enumerate(multipliers):
        for _ in range(n_blocks):
            total += block(n, base * m, attended[level])
            n = base * m
            skips.append(n)
        if level < len(multipliers) - 1:
            total += conv(n, n)
            skips.append(n)
    total += block(n, n, True) + block(n, n, False)
    for level, m in reversed(list(enumerate(multipliers))):
        for _ in range(n_blocks + 1):
            total += block(n + skips.pop(), base * m, attended[level])
            n = base * m
        if level:
            total += conv(n, n)
    return total + 2 * n + conv(n, channels)


def test_counts_in_closed_form():
    with torch.device("meta"):
        cifar = UNet((3, 32, 32), base=128, attention=(16,), time_conditioning="addition")
        wide = UNet((3, 64, 64), base=128, multipliers=(1, 2, 4, 4), attention=(16, 8))
    levels = [False, True, False, False]
    assert count(cifar) == count_in_closed_form(3, 128, (1, 2, 2, 2), 2, levels, film=False) == 35_746_307
    assert count(wide) == count_in_closed_form(3, 128, (1, 2, 4, 4), 2, [False, False, True, True], film=True)


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


@pytest.mark.slow
def test_a_denoiser_follows_an_image_beside_the_noisy_one():
    """Images of random signs, which nothing but the image beside them tells."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 2, (256, 36), generator=generator) * 2.0 - 1
    torch.manual_seed(0)
    network = small((1, 6, 6), multipliers=(1,), attention=(), extra_channels=2)
    denoiser = Denoiser(network, CosineSchedule(), "x0", ImageCondition((1, 6, 6)))
    settings = {
        "max_steps": 80,
        "learning_rate": 5e-3,
        "options": TrainingOptions(ema_decay=0.9),
    }
    batches = Batches(images, -images, size=64, condition_dropout=0.2)
    trained = train(denoiser, batches, **settings, generator=generator).denoiser
    noise = torch.randn((64, 36), generator=generator)
    fresh = torch.randint(0, 2, (64, 36), generator=generator) * 2.0 - 1
    drawn = sample(trained, noise, -fresh, method="ddim", steps=5)
    assert (drawn.sign() == fresh).float().mean() > 0.95
    alone = sample(trained, noise, method="ddim", steps=5)
    assert 0.4 < (alone.sign() == fresh).float().mean() < 0.6


@pytest.mark.slow
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


def test_without_modulation_film_leaves_the_normalised_maps_as_they_are():
    block = scatter(Block(8, 8, 0.0, film_size=5)).double()
    x, embedding = torch.randn(2, 8, 3, 4).double(), torch.randn(2, 5).double()
    torch.nn.init.zeros_(block.modulation.weight)
    torch.nn.init.zeros_(block.modulation.bias)
    silu = torch.nn.functional.silu
    h = block.norm(block.conv_in(silu(block.norm_in(x))))
    torch.testing.assert_close(block(x, embedding), x + block.conv(silu(h)))
    torch.nn.init.ones_(block.modulation.bias)  # twice the maps, and one more
    torch.testing.assert_close(block(x, embedding), x + block.conv(silu(2 * h + 1)))


@pytest.mark.parametrize("conditioning", ["adaln", "addition", "concatenation", "cross_attention"])
@pytest.mark.parametrize("way", ["adaln", "addition", "concatenation"])
def test_time_and_condition_enter_by_each_way(way, conditioning):
    torch.manual_seed(0)
    network = small(condition_size=4, time_conditioning=way, conditioning=conditioning, time_embedding="learned")
    x, t, c = torch.randn(6, 64), torch.rand(6), torch.randn(6, 4)
    assert (network(x, t, c) == 0).all()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        (network(x, t, c) - x).square().mean().backward()
        optimizer.step()
    silent = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    # With a single token there is nothing to choose among, so that queries and keys say nothing.
    chooses = ("cross_attention.attention.query", "cross_attention.attention.key_value", "cross_attention.norm")
    assert [n for n in silent if not any(part in n for part in chooses)] == []
    scatter(network).double()
    x, t, c = x.double(), t.double(), c.double()
    assert not torch.allclose(network(x, t, c), network(x, t.flip(0), c))
    assert not torch.allclose(network(x, t, c), network(x, t, c.flip(0)))
    one = torch.tensor(0.3).double()
    torch.testing.assert_close(network(x, one.expand(6), c), network(x, torch.full((6,), 0.3).double(), c))


def test_maps_attend_to_the_tokens_of_a_condition_that_there_are():
    network = scatter(small(condition_size=4, conditioning="cross_attention")).double()
    x, t, tokens = torch.randn(3, 64).double(), torch.rand(3).double(), torch.randn(3, 5, 4).double()
    mask = torch.tensor([True, True, False, True, False]).expand(3, 5)
    pooled = torch.zeros(3, 4).double()
    out = network(x, t, Context(pooled, tokens, mask))
    torch.testing.assert_close(network(x, t, Context(pooled + 1, tokens, mask)), out)
    changed = torch.where(mask[:, :, None], tokens, 9.0)
    torch.testing.assert_close(network(x, t, Context(pooled, changed, mask)), out)
    for j in (0, 1, 3):
        other = tokens.clone()
        other[:, j] += 1
        assert not torch.allclose(network(x, t, Context(pooled, other, mask)), out)
    # It is where self-attention is, and nowhere else.
    blocks = [m for m in network.modules() if isinstance(m, Block)]
    assert all((b.attention is None) == (b.cross_attention is None) for b in blocks)


def test_attention_to_tokens_costs_what_it_says():
    def weights(n):
        return 2 * n + (4 * n + n) + (n * n + n) + (2 * n * n + 2 * n) + (n * n + n)

    plain, attending = small(), small(condition_size=4, conditioning="cross_attention")
    attended = [
        m.cross_attention.norm.num_channels for m in attending.modules() if isinstance(m, Block) and m.attention
    ]
    assert count(attending) - count(plain) == sum(weights(n) for n in attended) and len(attended) == 4


@pytest.mark.parametrize("way", ["adaln", "concatenation"])
def test_a_second_output_of_each_value_comes_behind_the_first(way):
    network = scatter(small((2, 8, 8), n_per_value=2, time_conditioning=way)).double()
    x, t = torch.randn(2, 2, 8, 8).double(), torch.rand(2).double()
    maps = network(x, t)
    assert maps.shape == (2, 4, 8, 8)
    torch.testing.assert_close(network(x.flatten(1), t), maps.flatten(1))


def test_heads_divide_the_channels():
    network = small(n_heads=4)
    assert {m.attention.n_heads for m in network.modules() if isinstance(m, Block) and m.attention} == {4}
    with pytest.raises(ValueError, match="n_heads must divide"):
        small(n_heads=3)


@pytest.mark.parametrize("base", [4, 8, 32])
def test_narrow_maps_keep_what_is_added_to_them(base):
    """Normalised channel by channel they would lose it: the network would know neither time nor condition."""
    block = scatter(Block(base, base, 0.0, film_size=0, added_size=5)).double()
    x, added = torch.randn(1, base, 3, 4).double(), torch.randn(2, 5).double()
    assert (block(x, None, added[:1]) - block(x, None, added[1:])).abs().max() > 1e-3
    assert Block(128, 128, 0.0, film_size=0, added_size=5).norm.num_groups == 32
