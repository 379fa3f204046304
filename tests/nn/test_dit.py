from itertools import pairwise

import pytest
import torch

from tabdiff.nn import ColumnTokens, Context, DiT, PatchTokens, SequenceTokens
from tabdiff.nn.tokens import Positions

SIZE = 16
TOKENISERS = {
    "columns": lambda: (ColumnTokens(3, [2, 5], SIZE, given=True), (3 + 16,)),
    "grouped columns": lambda: (ColumnTokens(7, [2, 5, 3], SIZE, given=True, max_tokens=4), (7 + 24,)),
    "patches": lambda: (PatchTokens((2, 4, 6), SIZE, patch=2), (2, 4, 6)),
    "flat patches": lambda: (PatchTokens((1, 4, 4), SIZE, patch=2, positions="learned"), (16,)),
    "sequence": lambda: (SequenceTokens(5, 4, SIZE), (40,)),
    "sequence in strides": lambda: (SequenceTokens(5, 4, SIZE, stride=2, positions="sinusoidal"), (40,)),
}


def randomised(network, seed=0):
    """Weights away from their start, where gates and outputs are zero."""
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2, generator=generator)
    return network


@pytest.mark.parametrize("conditioning", ["adaln", "addition", "concatenation", "cross_attention"])
@pytest.mark.parametrize("name", TOKENISERS)
def test_starts_at_zero_output_and_every_weight_learns(name, conditioning):
    torch.manual_seed(0)
    tokens, shape = TOKENISERS[name]()
    options = {"swiglu": conditioning == "addition", "qk_norm": conditioning in ("concatenation", "cross_attention")}
    network = DiT(tokens, 4, n_blocks=1, n_heads=2, conditioning=conditioning, **options)
    x, t = torch.randn(8, *shape), torch.rand(8)
    c = Context(torch.randn(8, 4), torch.randn(8, 3, 4), torch.rand(8, 3).argsort(1) > 0)
    given = None
    if isinstance(tokens, ColumnTokens):
        given = torch.randn(8, shape[0] + 2 * (10 if "grouped" in name else 5))
    out = network(x, t, c, given)
    assert (out == 0).all() and (out.shape == x.shape if len(shape) > 1 else out.shape == (8, tokens.n_outputs))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(3):  # the zero-initialised layers let the gradient through one after the other
        optimizer.zero_grad()
        (network(x, t, c, given) - 1).square().mean().backward()
        optimizer.step()
    silent = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    # A bias of the keys moves all of a query's scores alike, and normalised queries of one token nothing at all.
    assert [n for n in silent if not n.endswith("key_value.bias")] == []


@pytest.mark.parametrize("name", TOKENISERS)
def test_rows_do_not_depend_on_each_other(name):
    tokens, shape = TOKENISERS[name]()
    network = randomised(DiT(tokens, n_blocks=2)).double()
    x, t = torch.randn(8, *shape).double(), torch.rand(8).double()
    torch.testing.assert_close(network(x, t)[3:5], network(x[3:5], t[3:5]))
    same_time = torch.tensor(0.3).double().expand(8)
    torch.testing.assert_close(network(x, same_time)[3:5], network(x[3:5], torch.full((2,), 0.3).double()))


def test_each_column_has_the_outputs_and_weights_of_its_own():
    levels = [3, 70, 2, 5]
    network = randomised(DiT(ColumnTokens(2, levels, SIZE), n_blocks=1))
    out = network(torch.randn(4, 2 + 32), torch.rand(4))
    assert out.shape == (4, 2 + sum(levels))
    # Without attention a column's outputs depend on its own entries alone.
    for p in network.blocks.parameters():
        torch.nn.init.zeros_(p)
    x = torch.randn(1, 34).requires_grad_()
    starts = [0, 1, 2, 5, 75, 77, 82]
    for column, (start, stop) in enumerate(pairwise(starts)):
        (gradient,) = torch.autograd.grad(network(x, torch.rand(1))[0, start:stop].square().sum(), x)
        own = [column] if column < 2 else range(2 + 8 * (column - 2), 10 + 8 * (column - 2))
        assert set(gradient[0].nonzero().flatten().tolist()) == set(own)


def test_tokens_of_many_columns_are_groups_that_cover_each_column_once():
    tokens = ColumnTokens(1000, [4] * 30, SIZE, max_tokens=256)
    assert tokens.n_tokens <= 257
    real = tokens.inputs[tokens.inputs != 1000 + 240]
    assert sorted(real.tolist()) == list(range(1240))
    assert sorted(tokens.order.tolist()) == sorted(set(tokens.order.tolist()))
    with torch.no_grad():
        for weight, bias in zip(tokens.head_weights, tokens.head_biases, strict=True):
            weight.zero_()
            bias.copy_(torch.arange(bias.numel(), dtype=torch.float32).reshape(bias.shape))
    outputs = tokens.project(torch.zeros(1, tokens.n_tokens, SIZE))[0]
    assert outputs.shape == (1120,) and len(outputs[:1000].unique()) == 1000


def test_permuted_columns_with_permuted_weights_give_permuted_outputs():
    first = randomised(DiT(ColumnTokens(4, [], SIZE), n_blocks=2))
    second = DiT(ColumnTokens(4, [], SIZE), n_blocks=2)
    order = torch.tensor([2, 0, 3, 1])
    state = first.state_dict()
    for name in ("tokens.weight", "tokens.bias", "tokens.head_weights.0", "tokens.head_biases.0"):
        state[name] = state[name][order]
    second.load_state_dict(state)
    x, t = torch.randn(6, 4), torch.rand(6)
    torch.testing.assert_close(second(x[:, order], t), first(x, t)[:, order])


def test_nothing_given_is_the_same_as_not_being_told():
    tokens = ColumnTokens(3, [2], SIZE, given=True)
    network = randomised(DiT(tokens, n_blocks=1))
    x, t = torch.randn(4, 11), torch.rand(4)
    told = torch.zeros(4, 11 + 8)
    torch.testing.assert_close(network(x, t, None, told), network(x, t))
    told[:, 11] = 1.0  # the mark of the first column
    assert (network(x, t, None, told) - network(x, t)).abs().min() > 0


def test_masked_tokens_of_a_context_do_not_count():
    for conditioning in ("concatenation", "cross_attention"):
        network = randomised(DiT(ColumnTokens(3, [], SIZE), 4, n_blocks=2, conditioning=conditioning))
        x, t, tokens = torch.randn(4, 3), torch.rand(4), torch.randn(4, 5, 4)
        mask = torch.tensor([True, True, False, True, False]).expand(4, 5)
        changed = torch.where(mask[:, :, None], tokens, torch.randn(4, 5, 4))
        pooled = torch.zeros(4, 4)
        out = network(x, t, Context(pooled, tokens, mask))
        torch.testing.assert_close(network(x, t, Context(pooled, changed, mask)), out)
        short = tokens[:, [0, 1, 3]]
        torch.testing.assert_close(network(x, t, Context(pooled, short, torch.ones(4, 3, dtype=torch.bool))), out)
        assert not torch.allclose(network(x, t, Context(pooled, tokens, torch.ones_like(mask))), out)


def test_numbers_stay_exact_under_autocast():
    torch.manual_seed(0)
    network = randomised(DiT(ColumnTokens(4, [3], 32), n_blocks=1))
    with torch.no_grad():
        for p in network.blocks.parameters():
            p.zero_()
    x, t = torch.randn(8, 12), torch.rand(8)
    exact = network(x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(x, t)
    assert rough.dtype == torch.float32
    # What is left in bfloat16 here is the time; the row itself goes through untouched.
    same = network(x, torch.full((8,), 0.5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = network(x, torch.full((8,), 0.5))
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    ratio = (near - near.mean(0)) / (same - same.mean(0))
    assert (ratio - 1).abs().median() < 0.01


def test_positions():
    grid = Positions((3, 5), 32, "sinusoidal")()
    assert torch.cdist(grid, grid).add(torch.eye(15) * 9).min() > 0.1
    assert [n for n, _ in Positions((3,), 8, "sinusoidal").named_parameters()] == []
    with pytest.raises(ValueError, match="'rotary'"):
        Positions((3,), 8, "rotary")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColumnTokens(0, [], 8), "at least one column"),
        (lambda: PatchTokens((1, 5, 4), 8, patch=2), "patch=2 must divide"),
        (lambda: SequenceTokens(0, 4, 8), "n_positions=0"),
        (lambda: DiT(ColumnTokens(2, [], 8), n_heads=3), "n_heads=3"),
        (lambda: DiT(ColumnTokens(2, [], 8), n_blocks=0), "n_blocks=0"),
        (lambda: DiT(ColumnTokens(2, [], 8), conditioning="film"), "'film'"),
        (lambda: DiT(ColumnTokens(2, [], 8), time_embedding="clock"), "'clock'"),
        (lambda: DiT(ColumnTokens(2, [], 8), time_embedding="table"), "n_timesteps"),
        (lambda: DiT(ColumnTokens(2, [], 8), time_conditioning="film"), "time_conditioning must be one of"),
        (lambda: DiT(ColumnTokens(2, [], 8), 4)(torch.zeros(2, 2), torch.zeros(2)), "needs c"),
    ],
)
def test_bad_sizes_and_names_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("conditioning", ["adaln", "addition", "concatenation", "cross_attention"])
@pytest.mark.parametrize("way", ["addition", "concatenation"])
def test_the_time_enters_as_a_token_or_added_to_all(way, conditioning):
    torch.manual_seed(0)
    network = DiT(ColumnTokens(5, [], SIZE), 4, n_blocks=1, conditioning=conditioning, time_conditioning=way)
    x, t = torch.randn(8, 5), torch.rand(8)
    c = Context(torch.randn(8, 4), torch.randn(8, 3, 4), torch.rand(8, 3).argsort(1) > 0)
    assert (network(x, t, c) == 0).all()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        (network(x, t, c) - 1).square().mean().backward()
        optimizer.step()
    silent = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert [n for n in silent if not n.endswith("key_value.bias")] == []
    randomised(network)
    assert (network(x, t, c) - network(x, t.flip(0), c)).abs().max() > 1e-3
    # A token that is masked does not count, whatever stands beside it.
    other = c._replace(tokens=torch.where(c.mask[:, :, None], c.tokens, 9.0))
    torch.testing.assert_close(network(x, t, other), network(x, t, c))
    assert any("modulation" in name for name, _ in network.named_parameters()) == (conditioning == "adaln")


@pytest.mark.parametrize("shape", [(7,), (2, 4, 4), (32,)])
def test_a_second_output_of_each_value_comes_behind_the_first(shape):
    torch.manual_seed(0)
    if len(shape) == 1 and shape[0] < 32:
        tokens = ColumnTokens(7, [], SIZE, max_tokens=4, n_per_number=2)
    else:
        tokens = PatchTokens((2, 4, 4), SIZE, n_per_value=2)
    network = randomised(DiT(tokens, n_blocks=1)).double()
    for p in network.blocks.parameters():
        torch.nn.init.zeros_(p)
    x = torch.randn(1, *shape).double().requires_grad_()
    out = network(x, torch.zeros(1).double())
    n = x.numel()
    assert out.shape == (1, 2 * shape[0], *shape[1:])
    # Without attention both outputs of a value see its own token's entries, and the same ones.
    rows = [torch.autograd.grad(out.flatten()[i], x, retain_graph=True)[0].flatten() != 0 for i in range(2 * n)]
    for i in range(n):
        assert rows[i][i] and torch.equal(rows[i], rows[i + n]) and rows[i].sum() < n
