import pytest
import torch
from fake_cuda import DEVICE, FakeCuda, to_fake
from torch import nn

from tabdiff.diffusion import CosineSchedule, Denoiser
from tabdiff.diffusion.generate import draw
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser
from tabdiff.nn import ResidualMLP
from tabdiff.utils.random import RowStreams


class Small(nn.Module):
    """A network that memory holds for few rows only."""

    def __init__(self, network, most):
        super().__init__()
        self.network, self.most, self.asked = network, most, []

    def forward(self, x, t, c):
        self.asked.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(x, t, c)


def mixed(most=10**9):
    torch.manual_seed(0)
    frequencies = [torch.full((4,), 0.25)]
    network = ResidualMLP(2 + 8, 2 + 4, hidden_size=16, n_blocks=1)
    nn.init.normal_(network.project_out.weight)
    return MixedDenoiser(Small(network, most), CosineSchedule(), frequencies, 2).eval()


def drawn(denoiser, n=100, **settings):
    generator = torch.Generator().manual_seed(0)
    return draw(denoiser, n, None, width=10, generator=generator, steps=4, **settings)


def test_a_batch_that_memory_does_not_hold_is_halved():
    small = mixed(most=30)
    rows = drawn(small)
    torch.testing.assert_close(rows, drawn(mixed()))
    # 100, 50 and then four times 25 rows.
    assert sorted(set(small.network.asked), reverse=True) == [100, 50, 25]
    assert small.network.asked.count(100) == small.network.asked.count(50) == 1


def test_a_row_that_memory_does_not_hold_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        drawn(mixed(most=0))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("streams", [False, True])
def test_a_gpu_copies_once_a_batch_whatever_the_number_of_steps(streams):
    def copies(steps):
        with FakeCuda() as device, torch.no_grad():
            fake = to_fake(denoiser).eval()
            generator = RowStreams(torch.arange(64)) if streams else torch.Generator().manual_seed(0)
            draw(fake, 64, None, width=10, generator=generator, steps=steps, method="ddpm", batch_size=32)
        return device.waits

    denoiser = mixed().double() if streams else mixed()
    few, many = copies(3), copies(9)
    assert few == many
    # The keys of the streams of each of two batches, and the rows of both together; each is noticed twice.
    assert len([wait for wait in few if "_to_copy" in wait]) == 3


def test_the_next_rows_of_a_generator_are_others():
    keys = [RowStreams.drawn(generator, 3).keys for generator in [torch.Generator().manual_seed(0)] * 2]
    assert not torch.equal(*keys)


@pytest.mark.cuda
def test_a_gpu_draws_the_same_distribution_and_repeats_itself():
    denoiser = mixed()
    on_cpu = drawn(denoiser, 20_000)
    on_gpu = drawn(denoiser.to("cuda"), 20_000)
    assert on_gpu.device.type == "cpu"
    torch.testing.assert_close(on_gpu.mean(0), on_cpu.mean(0), rtol=0.05, atol=0.05)
    assert torch.equal(on_gpu, drawn(denoiser, 20_000))


def test_streams_are_the_same_on_a_gpu():
    with FakeCuda():
        assert RowStreams(torch.arange(3)).to(DEVICE).normal(2).device == DEVICE
    streams = RowStreams(torch.arange(3))
    assert torch.equal(streams.to("cpu").uniform(4), RowStreams(torch.arange(3)).uniform(4))


def test_plain_denoisers_are_halved_too():
    torch.manual_seed(0)
    network = ResidualMLP(10, 10, hidden_size=16, n_blocks=1)
    nn.init.normal_(network.project_out.weight)
    whole, small = (Denoiser(Small(network, most), CosineSchedule()).eval() for most in (10**9, 7))
    torch.testing.assert_close(drawn(small), drawn(whole))
