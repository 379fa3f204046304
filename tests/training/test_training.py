import math

import pytest
import torch
from torch import nn

from tabdiff.diffusion import Denoiser, make_schedule
from tabdiff.nn import ConditionEmbedding, ResidualMLP
from tabdiff.training import EMA, autocast_dtype, resolve_device, train
from tabdiff.utils.device import cpu_multiplies_bfloat16


def make_denoiser(dropout=0.0, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResidualMLP(2, 2, 8, hidden_size=32, n_blocks=2, dropout=dropout)
        return Denoiser(network, make_schedule("cosine"), "v", ConditionEmbedding([2], 8))


def fit(denoiser=None, seed=0, **kwargs):
    denoiser = denoiser or make_denoiser()
    data = torch.randn(300, 2, generator=torch.Generator().manual_seed(5))
    condition = (data[:, :1] > 0).float()
    settings = {"max_steps": 60, "batch_size": 64, "generator": torch.Generator().manual_seed(seed), **kwargs}
    return train(denoiser, data, condition, **settings)


def weights(result):
    return torch.cat([p.flatten() for p in result.denoiser.parameters()])


def test_same_seed_same_weights_also_with_dropout_and_without_touching_the_global_state():
    before = torch.random.get_rng_state()
    a, b, other = (fit(make_denoiser(dropout=0.2), seed=s) for s in (1, 1, 2))
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(other))
    # Building a network draws from the global generator; training must not.
    assert torch.equal(before, torch.random.get_rng_state())


def test_history_tells_what_happened():
    result = fit(max_steps=120)
    assert result.history["step"] == [50.0, 100.0, 120.0] and result.n_steps == 120
    assert result.history["loss"][-1] < result.history["loss"][0]
    for key in ("gradient_norm", "rows_per_second", "learning_rate", "memory"):
        assert all(v > 0 and math.isfinite(v) for v in result.history[key])
    assert result.history["learning_rate"][-1] < 1e-5


def test_max_time_ends_training_early():
    result = fit(max_steps=1_000_000, max_time=0.5)
    assert 1 <= result.n_steps < 1_000_000
    assert not result.denoiser.training
    assert result.history["step"][-1] == result.n_steps


def test_a_diverging_loss_is_an_error():
    with pytest.raises(FloatingPointError, match="learning_rate"):
        train(
            make_denoiser(),
            torch.full((50, 2), float("inf")),
            torch.zeros(50, 1),
            max_steps=60,
            generator=torch.Generator().manual_seed(0),
        )


def test_conditions_are_dropped_by_the_row():
    seen = []

    class Spy(Denoiser):
        def loss(self, x0, condition=None, *, t, eps):
            seen.append(condition.isnan().any(1).float().mean().item())
            return super().loss(x0, condition, t=t, eps=eps)

    denoiser = make_denoiser()
    fit(Spy(denoiser.network, denoiser.schedule, "v", denoiser.condition_embedding), condition_dropout=0.25)
    share = sum(seen) / len(seen)
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / (60 * 64))


def test_ema_first_copies_then_lags_and_keeps_constants():
    model = nn.BatchNorm1d(3)
    ema = EMA(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.running_mean.fill_(2.0)
    ema.update(model)
    assert torch.equal(ema.model.weight, model.weight) and torch.equal(ema.model.running_mean, model.running_mean)
    ema.update(model)
    assert torch.equal(ema.model.weight, model.weight)
    with torch.no_grad():
        model.weight.fill_(6.0)
    ema.update(model)
    decay = min(0.9, 3 / 12)
    torch.testing.assert_close(ema.model.weight, torch.full((3,), 5.0 * decay + 6.0 * (1 - decay)))


def test_devices_and_precisions_by_name():
    assert resolve_device("cpu").type == "cpu"
    expected = torch.bfloat16 if cpu_multiplies_bfloat16() else None
    assert autocast_dtype("auto", torch.device("cpu")) is expected
    assert autocast_dtype("float32", torch.device("cpu")) is None
    assert autocast_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    with pytest.raises(ValueError, match="tpu9"):
        resolve_device("tpu9")
    with pytest.raises(ValueError, match="float16"):
        autocast_dtype("float16", torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_asking_for_a_missing_gpu_is_an_error():
    with pytest.raises(ValueError, match="no CUDA device"):
        resolve_device("cuda")


@pytest.mark.cuda
def test_training_runs_on_cuda():
    denoiser = make_denoiser().to("cuda")
    result = fit(denoiser, generator=torch.Generator("cuda").manual_seed(0), precision=torch.bfloat16)
    assert math.isfinite(result.history["loss"][-1])
