import pytest
import torch
from torch import nn

from tabdiff.diffusion import (
    AutoGuidance,
    CFGPlusPlus,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    CosineSchedule,
    Denoiser,
    DiscreteCosineSchedule,
    sample,
)
from tabdiff.diffusion.recorded import MAX_SHAPES, RecordedDenoiser, recorded
from tabdiff.nn import ConditionEmbedding, ResidualMLP


def make_denoiser(seed=0):
    torch.manual_seed(seed)
    network = ResidualMLP(3, 3, 4, hidden_size=16, n_blocks=1)
    nn.init.normal_(network.project_out.weight)
    return Denoiser(network, CosineSchedule(), "v", ConditionEmbedding([3], 4)).eval().requires_grad_(False)


def again(function, device):
    """What stands in for a recording: the function itself, which finds what it needs in the tensors of its place."""
    return function


def rows(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator), torch.randint(3, (n, 1), generator=generator).float()


GUIDANCE = {
    "none": lambda d: d,
    "classifier-free": lambda d: ClassifierFreeGuidance(d, 2.0),
    "in an interval": lambda d: ClassifierFreeGuidance(d, 2.0, interval=(0.2, 2.0)),
    "autoguidance": lambda d: AutoGuidance(d, make_denoiser(1), 2.0),
    "CFG++": lambda d: CFGPlusPlus(d, 0.5),
}


@pytest.mark.parametrize("name", GUIDANCE)
def test_rows_are_those_of_the_denoiser_itself(name):
    denoiser = GUIDANCE[name](make_denoiser())
    wrapped = RecordedDenoiser(denoiser, record=again)
    for n in (16, 5, 16):  # fewer rows than there is room for
        noise, condition = rows(n)
        drawn = [sample(d, noise, condition, method="ddim", steps=6) for d in (denoiser, wrapped)]
        torch.testing.assert_close(*drawn, rtol=1e-5, atol=1e-6)


def test_estimates_stay_when_the_next_is_asked_for():
    denoiser = make_denoiser()
    wrapped = RecordedDenoiser(denoiser, record=again)
    noise, condition = rows(8)
    times = [torch.tensor(t, dtype=torch.float64) for t in (0.9, 0.5, 0.3, 0.1)]
    got = [wrapped(noise, t, condition) for t in times]
    for t, x0 in zip(times, got):
        torch.testing.assert_close(x0, denoiser(noise, t, condition))
    assert not torch.equal(got[0], got[-1])


def test_few_numbers_of_rows_are_recorded():
    denoiser, made = make_denoiser(), []
    wrapped = RecordedDenoiser(denoiser, record=lambda run, device: made.append(run) or run)
    t = torch.tensor(0.5, dtype=torch.float64)
    for n in (100, 101, 128):
        for _ in range(3):
            wrapped(*rows(n)[:1], t, rows(n)[1])
    assert len(made) == 1
    for n in range(1, 12):
        wrapped(*rows(2**n)[:1], t, rows(2**n)[1])
    assert len(wrapped._places) <= MAX_SHAPES


def test_what_cannot_be_recorded_is_evaluated_with_one_warning():
    def fails(function, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    denoiser = make_denoiser()
    noise, condition = rows(8)
    with pytest.warns(UserWarning, match=r"not recorded .*operation not permitted") as caught:
        drawn = sample(RecordedDenoiser(denoiser, record=fails), noise, condition, steps=6)
    assert len(caught) == 1
    torch.testing.assert_close(drawn, sample(denoiser, noise, condition, steps=6))


def test_only_a_gpu_records_and_only_what_is_of_this_package():
    class Own(nn.Module):
        def forward(self, x, t, c):
            return x

    plain, device = make_denoiser(), torch.device("cuda")
    assert recorded(plain, torch.device("cpu")) is plain
    assert isinstance(recorded(plain, device), RecordedDenoiser)
    assert recorded(plain, device) is recorded(plain, device)
    plain.network.project_out.weight = nn.Parameter(torch.ones(3, 16))  # elsewhere than it lay at the recording
    before = recorded(plain, device)
    plain.network.project_out.weight = nn.Parameter(torch.zeros(3, 16))
    assert recorded(plain, device) is not before
    learned = Denoiser(
        ResidualMLP(3, 6, hidden_size=8, n_blocks=1), DiscreteCosineSchedule(10), "v", learned_variance=True
    )
    by_classifier = ClassifierGuidance(plain, lambda x, t, c: x.sum(1))
    for denoiser in (Denoiser(Own(), CosineSchedule()), learned, by_classifier):
        assert recorded(denoiser, device) is denoiser


@pytest.mark.cuda
@pytest.mark.parametrize("name", GUIDANCE)
def test_a_recorded_evaluation_is_the_eager_one(name):
    denoiser = GUIDANCE[name](make_denoiser()).to("cuda")
    for n in (16, 5, 3000):
        noise, condition = (part.to("cuda") for part in rows(n))
        eager = sample(denoiser, noise, condition, method="ddim", steps=8)
        wrapped = recorded(denoiser, torch.device("cuda"))
        torch.testing.assert_close(
            sample(wrapped, noise, condition, method="ddim", steps=8), eager, rtol=1e-4, atol=1e-4
        )
