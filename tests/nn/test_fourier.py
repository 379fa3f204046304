import pytest
import torch

from tabdiff.nn import FourierFeatures, ResidualMLP


def test_waves_are_sines_and_cosines_of_octaves():
    features = FourierFeatures(2, 3, 4)
    x = torch.tensor([[0.3, -1.7]])
    got = features(x, torch.zeros(1, 4)).reshape(2, 6)
    angle = 2 * torch.pi * x.T * torch.tensor([0.125, 0.25, 0.5])
    torch.testing.assert_close(got, torch.cat([angle.sin(), angle.cos()], dim=1))


def test_a_gate_closes_one_frequency_of_all_numbers():
    features = FourierFeatures(2, 3, 4)
    with torch.no_grad():
        features.gate.bias[1] = 0.0
    got = features(torch.randn(5, 2), torch.zeros(1, 4)).reshape(5, 2, 2, 3)
    assert (got[..., 1] == 0).all()
    assert (got[..., [0, 2]] != 0).all()


@pytest.mark.slow
def test_a_network_with_waves_tells_apart_what_lies_close():
    """A square wave of ten steps: 150 steps of training do with waves what they do not without."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 1, generator=generator)
    y = torch.sign(torch.sin(6 * torch.pi * x))
    errors = []
    for n_waved in (0, 1):
        torch.manual_seed(0)
        network = ResidualMLP(1, 1, hidden_size=64, n_blocks=2, n_waved=n_waved)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(150):
            loss = (network(x, torch.zeros(1)) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors.append(loss.item())
    assert errors[1] < 0.3 < 0.8 < errors[0]
