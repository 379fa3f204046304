import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tabdiff import DiffusionGenerator
from tabdiff.diffusion import Denoiser, LossAware, make_schedule
from tabdiff.nn import ConditionEmbedding, ResidualMLP
from tabdiff.training import (
    EMA,
    Batches,
    Callback,
    Run,
    TrainingOptions,
    Validation,
    train,
)
from tabdiff.training.checkpoint import read_checkpoint, write_checkpoint
from tabdiff.utils.device import (
    autocast_dtype,
    cpu_multiplies_bfloat16,
    cuda_dtype,
    resolve_device,
    sampling_dtype,
)


def make_denoiser(dropout=0.0, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResidualMLP(2, 2, 8, hidden_size=32, n_blocks=2, dropout=dropout)
        return Denoiser(network, make_schedule("cosine"), "v", ConditionEmbedding([2], 8))


def fit(denoiser=None, seed=0, **kwargs):
    denoiser = denoiser or make_denoiser()
    data = torch.randn(300, 2, generator=torch.Generator().manual_seed(5))
    condition = (data[:, :1] > 0).float()
    own = {name: kwargs.pop(name) for name in ("condition_dropout", "epoch_rows", "prepare", "vary") if name in kwargs}
    settings = {"max_steps": 60, "generator": torch.Generator().manual_seed(seed), **kwargs}
    return train(denoiser, Batches(data, condition, size=settings.pop("batch_size", 64), **own), **settings)


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
            Batches(torch.full((50, 2), float("inf")), torch.zeros(50, 1)),
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


def test_ema_follows_a_buffer_that_a_module_puts_in_the_place_of_another():
    model = nn.BatchNorm1d(3)
    ema = EMA(model, 0.9)
    ema.update(model)
    model.running_mean = torch.full((3,), 7.0)
    ema.update(model)
    assert torch.equal(ema.model.running_mean, model.running_mean)


def test_devices_and_precisions_by_name():
    assert resolve_device("cpu").type == "cpu"
    expected = torch.bfloat16 if cpu_multiplies_bfloat16() else None
    assert autocast_dtype("auto", torch.device("cpu")) is expected
    assert autocast_dtype("float32", torch.device("cpu")) is None
    assert autocast_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    with pytest.raises(ValueError, match="tpu9"):
        resolve_device("tpu9")
    with pytest.raises(ValueError, match=r"'float32' or 'bfloat16' on the device 'cpu'; got 'float16'"):
        autocast_dtype("float16", torch.device("cpu"))
    assert autocast_dtype("float16", torch.device("cuda")) is torch.float16
    # A model that was trained in it draws anywhere.
    assert sampling_dtype("float16", torch.device("cpu")) is None
    assert sampling_dtype("float16", torch.device("cuda")) is torch.float16
    with pytest.raises(ValueError, match="got 'half'"):
        sampling_dtype("half", torch.device("cpu"))


def test_a_gpu_gets_the_type_that_its_tensor_cores_multiply():
    assert cuda_dtype((9, 0)) is cuda_dtype((8, 0)) is cuda_dtype((8, 6)) is torch.bfloat16
    assert cuda_dtype((7, 0)) is cuda_dtype((7, 5)) is torch.float16  # V100, T4
    assert cuda_dtype((6, 1)) is cuda_dtype((5, 2)) is None
    assert cuda_dtype((7, 5), is_rocm=True) is torch.bfloat16


# --------------------------------------------------- what a step is made of


class Levels(nn.Module):
    """Has a loss that is known at each time, a number in each quarter of the times, times its only parameter."""

    def __init__(self, losses):
        super().__init__()
        self.schedule = make_schedule("cosine")
        self.value = nn.Parameter(torch.ones(()))
        self.losses = torch.tensor(losses)

    def at(self, t):
        share = (t - self.schedule.t_min) / (self.schedule.t_max - self.schedule.t_min)
        return self.losses[(share * len(self.losses)).long().clamp(max=len(self.losses) - 1)]

    def loss(self, x0, condition=None, *, t, eps):
        return self.value * self.at(t)


class Keep(Callback):
    """Keeps the fit in progress, and what it was after a step."""

    def __init__(self, step=None):
        self.step = step

    def on_step_end(self, training):
        self.training = training
        if training.step == self.step:
            self.state = copy.deepcopy(training.state_dict())  # its tensors are those in training


def step(denoiser, callbacks=(), **options):
    """One step on rows that do not matter."""
    options = TrainingOptions(clip_grad_norm=None, **options)
    rows, generator = torch.zeros(64, 2), torch.Generator().manual_seed(0)
    batches = Batches(rows, size=64)
    result = train(denoiser, batches, max_steps=1, options=options, generator=generator, callbacks=callbacks)
    return result.history["loss"][0], result.history["gradient_norm"][0]


def learned_times(denoiser):
    """Times drawn in proportion to the losses of a denoiser."""
    times = LossAware(4, history=1, uniform_share=1e-6)
    t = denoiser.schedule.t_min + (torch.arange(4) + 0.5) / 4 * (denoiser.schedule.t_max - denoiser.schedule.t_min)
    times.update(t, denoiser.at(t), denoiser.schedule)
    return times


def test_learned_times_leave_the_loss_and_its_gradient_those_of_uniform_times():
    denoiser = Levels([1.0, 2.0, 4.0, 9.0])
    # Drawn in proportion to its loss and weighted by the inverse, each row counts the mean, 4. Without the weights it
    # would be the mean of the squares over the mean, 6.4.
    loss, gradient = step(denoiser, times=learned_times(denoiser))
    assert loss == pytest.approx(4.0, rel=1e-4) and gradient == pytest.approx(4.0, rel=1e-4)


def test_learned_times_are_told_the_losses_without_their_weights():
    denoiser, keep = Levels([1.0, 2.0, 4.0, 9.0]), Keep()
    times = learned_times(denoiser)
    step(denoiser, [keep], times=times)
    assert torch.equal(keep.training.times.state_dict()["losses"], times.state_dict()["losses"])
    assert (keep.training.times.state_dict()["counts"] > times.state_dict()["counts"]).any()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_accumulated_batches_make_the_mean_of_their_gradients(n):
    loss, gradient = step(Levels([3.0]), accumulation_steps=n)
    assert loss == pytest.approx(3.0, rel=1e-6) and gradient == pytest.approx(3.0, rel=1e-6)


def test_held_out_rows_are_seen_by_the_average_of_the_weights():
    settings = {"max_steps": 50, "learning_rate": 1e-2, "options": TrainingOptions(ema_decay=0.95)}
    plain, keep = fit(**settings), Keep()
    held = torch.randn(40, 2, generator=torch.Generator().manual_seed(7))
    validation = Validation(
        held,
        (held[:, :1] > 0).float(),
        denoiser=make_denoiser(),
        event_shape=(2,),
        generator=torch.Generator().manual_seed(8),
    )
    result = fit(**settings, validation=validation, callbacks=[keep])
    # Looking at them changes nothing, and what is logged and kept is the average, not the last weights.
    assert torch.equal(weights(result), weights(plain))
    assert result.history["validation_loss"] == [validation.loss(plain.denoiser)]
    assert result.history["validation_loss"] != [validation.loss(keep.training.denoiser)]


# ------------------------------------------------------------------- float16


def overflowing(at):
    """A denoiser whose gradient is infinite in a step."""
    denoiser, calls = make_denoiser(), []

    def overflow(gradient):
        calls.append(gradient)
        return torch.full_like(gradient, math.inf) if len(calls) == at else gradient

    next(denoiser.network.parameters()).register_hook(overflow)
    return denoiser


class Steps(Callback):
    """Notes the weights and the scale after each step."""

    def __init__(self):
        self.weights, self.scales = [], []

    def on_step_end(self, training):
        self.weights.append(torch.cat([p.detach().flatten() for p in training.denoiser.parameters()]).clone())
        self.scales.append(training.scaler.get_scale())


def test_a_step_with_infinite_gradients_is_left_out_and_the_scale_halved():
    watch = Steps()
    result = fit(overflowing(3), max_steps=8, precision=torch.float16, callbacks=[watch])
    assert watch.scales == [65536.0] * 2 + [32768.0] * 6
    same = [torch.equal(a, b) for a, b in zip(watch.weights, watch.weights[1:])]
    assert same == [False, True, False, False, False, False, False]
    assert weights(result).isfinite().all() and math.isfinite(result.history["gradient_norm"][0])


def test_gradients_are_clipped_at_their_own_size_not_the_scaled_one():
    """The scale is 65,536: a norm of gradients that were not scaled back would be that much larger."""
    half, full = (fit(max_steps=1, precision=p).history["gradient_norm"][0] for p in (torch.float16, None))
    assert half == pytest.approx(full, rel=0.05)


def test_the_scale_goes_into_checkpoints_and_back(tmp_path):
    whole, keep = Steps(), Keep(step=5)
    settings = {"max_steps": 12, "precision": torch.float16}
    expected = fit(overflowing(3), callbacks=[whole, keep], **settings)
    write_checkpoint(tmp_path, {"fit": {}, "training": keep.state})
    saved = read_checkpoint(tmp_path)["training"]
    assert saved["scaler"]["scale"] == 32768.0
    rest = Steps()
    again = fit(make_denoiser(), callbacks=[rest], run=Run(saved=saved), **settings)
    assert rest.scales == whole.scales[5:] == [32768.0] * 7
    assert torch.equal(weights(again), weights(expected))


class HostReads(TorchDispatchMode):
    """Counts where a value goes from a tensor to Python, which makes a GPU and its host wait for each other."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += any(name in str(func) for name in ("_local_scalar_dense", "nonzero"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, None])
@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_a_step_reads_nothing_back(precision, optimizer):
    counts = []
    for max_steps in (5, 15):
        with HostReads() as reads:
            fit(max_steps=max_steps, precision=precision, options=TrainingOptions(optimizer=optimizer))
        counts.append(reads.n)
    assert counts[0] == counts[1] > 0  # of the one entry of the history


def test_other_precisions_have_no_scale():
    keep = Keep(step=1)
    fit(max_steps=1, callbacks=[keep])
    assert keep.state["scaler"] == {} and not keep.training.scaler.is_enabled()


def test_float16_is_refused_without_a_gpu_and_what_the_message_says_works():
    X = np.random.default_rng(0).normal(size=(30, 2))
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, device="cpu", random_state=0)
    with pytest.raises(ValueError, match=r"Use precision='bfloat16'.* or precision='auto'"):
        gen.set_params(precision="float16").fit(X)
    for precision in ("bfloat16", "auto", "float32"):
        gen.set_params(precision=precision).fit(X)
    expected = gen.sample(4, random_state=0)
    # Trained in float16 elsewhere, it draws here in float32.
    np.testing.assert_array_equal(gen.set_params(precision="float16").sample(4, random_state=0), expected)


@pytest.mark.cuda
def test_float16_trains_on_cuda_as_float32_does(tmp_path):
    watch, keep = Steps(), Keep(step=40)
    losses = {}
    for precision in (torch.float16, None):
        denoiser = make_denoiser().to("cuda")
        settings = {"generator": torch.Generator("cuda").manual_seed(0), "precision": precision}
        result = fit(denoiser, max_steps=100, callbacks=[watch, keep], **settings)
        losses[precision] = result.history["loss"][-1]
    assert losses[torch.float16] == pytest.approx(losses[None], rel=0.05)
    X = np.random.default_rng(0).normal(size=(200, 3))
    gen = DiffusionGenerator(max_steps=50, hidden_size=16, device="cuda", precision="float16", random_state=0).fit(X)
    gen.save(tmp_path / "model")
    assert np.isfinite(gen.sample(20)).all()
    assert np.isfinite(DiffusionGenerator.load(tmp_path / "model", device="cpu").sample(20)).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_asking_for_a_missing_gpu_is_an_error():
    with pytest.raises(ValueError, match="no CUDA device"):
        resolve_device("cuda")


@pytest.mark.cuda
def test_training_runs_on_cuda():
    denoiser = make_denoiser().to("cuda")
    result = fit(denoiser, generator=torch.Generator("cuda").manual_seed(0), precision=torch.bfloat16)
    assert math.isfinite(result.history["loss"][-1])
