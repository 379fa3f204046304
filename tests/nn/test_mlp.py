import pytest
import torch

from tabdiff.nn import ResidualMLP


def test_starts_at_zero_output_and_every_weight_learns():
    torch.manual_seed(0)
    network = ResidualMLP(5, 3, 4, hidden_size=16, n_blocks=2)
    x, t, c = torch.randn(8, 5), torch.rand(8), torch.randn(8, 4)
    assert (network(x, t, c) == 0).all()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(3):  # the zero-initialised layers let the gradient through one after the other
        optimizer.zero_grad()
        (network(x, t, c) - 1).square().mean().backward()
        optimizer.step()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert silent == []


def test_rows_do_not_depend_on_each_other():
    network = ResidualMLP(5, 3, hidden_size=16, n_blocks=2).double()
    for p in network.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    x, t = torch.randn(8, 5).double(), torch.rand(8).double()
    torch.testing.assert_close(network(x, t)[3:5], network(x[3:5], t[3:5]))


def test_needs_the_condition_that_it_was_built_with():
    with pytest.raises(ValueError, match="needs c"):
        ResidualMLP(5, 3, 4)(torch.zeros(2, 5), torch.zeros(2))
    with pytest.raises(ValueError, match="n_blocks=0"):
        ResidualMLP(5, 3, n_blocks=0)


@pytest.mark.parametrize("conditioning", ["adaln", "addition", "concatenation"])
def test_the_condition_enters_by_each_way(conditioning):
    torch.manual_seed(0)
    network = ResidualMLP(5, 3, 4, hidden_size=16, n_blocks=2, conditioning=conditioning, time_embedding="learned")
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(1))
    x, t, c = torch.randn(8, 5), torch.rand(8), torch.randn(8, 4)
    assert (network(x, t, c) - network(x, t, c + 1)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="'cross_attention'"):
        ResidualMLP(5, 3, 4, conditioning="cross_attention")


@pytest.mark.parametrize("conditioning", ["adaln", "addition", "concatenation"])
@pytest.mark.parametrize("way", ["adaln", "addition", "concatenation"])
def test_the_time_enters_by_each_way_beside_each_way_of_the_condition(way, conditioning):
    torch.manual_seed(0)
    settings = {"conditioning": conditioning, "time_conditioning": way, "n_waved": 2}
    network = ResidualMLP(5, 3, 4, hidden_size=16, n_blocks=2, **settings)
    x, t, c = torch.randn(8, 5), torch.rand(8), torch.randn(8, 4)
    assert (network(x, t, c) == 0).all()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        (network(x, t, c) - 1).square().mean().backward()
        optimizer.step()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert silent == []
    assert (network(x, t, c) - network(x, t.flip(0), c)).abs().max() > 1e-4
    one = torch.tensor(0.3)
    torch.testing.assert_close(network(x, one.expand(8), c), network(x, torch.full((8,), 0.3), c))
    modulated = "adaln" in (way, conditioning)
    assert any("modulation" in name for name, _ in network.named_parameters()) == modulated


def test_beside_the_row_the_time_is_an_input_and_nothing_else():
    """With the linear map of the time set to zero, no time is seen, and a shift of it is one of the first layer."""
    network = ResidualMLP(5, 3, hidden_size=16, n_blocks=1, time_conditioning="concatenation")
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(1))
    x, t = torch.randn(4, 5), torch.rand(4)
    torch.nn.init.zeros_(network.time_out.weight)
    torch.testing.assert_close(network(x, t), network(x, t.flip(0)))
    before = network(x, t)
    with torch.no_grad():
        network.time_out.bias += 1
        network.project_in.bias -= 1
    torch.testing.assert_close(network(x, t), before)
    with pytest.raises(ValueError, match="time_conditioning must be one of"):
        ResidualMLP(5, 3, time_conditioning="hyper")
