import copy
from functools import partial

import pytest
import torch
from torch import nn

from tabdiff.diffusion import Denoiser, LossAware, make_schedule, make_times
from tabdiff.nn import ConditionEmbedding, ResidualMLP
from tabdiff.training import EMA, Batches, Callback, Run, TrainingOptions, Validation, train
from tabdiff.training.batches import RowStream
from tabdiff.training.step import WARM_UP, TrainingStep

STEPS = 2 * WARM_UP + 2


def make_denoiser(network=None):
    torch.manual_seed(0)
    network = ResidualMLP(2, 2, 4, hidden_size=16, n_blocks=1, dropout=0.1) if network is None else network
    return Denoiser(network, make_schedule("cosine"), "v", ConditionEmbedding([3], 4))


def make_batches(size=16):
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(40, 2, generator=generator)
    return Batches(data, torch.randint(3, (40, 1), generator=generator).float(), size=size)


def make_step(options, denoiser=None, device="cpu", **settings):
    denoiser = (make_denoiser() if denoiser is None else denoiser).to(device).train()
    generator = torch.Generator(device).manual_seed(0)
    for module in denoiser.modules():
        if hasattr(module, "generator"):
            module.generator = generator
    batches = make_batches().to(torch.device(device))
    return TrainingStep(
        denoiser,
        batches,
        RowStream(len(batches), generator),
        copy.deepcopy(make_times(options.times)),
        options.make_optimizer(list(denoiser.parameters()), 1e-3),
        EMA(denoiser, 0.9),
        scaler=torch.amp.GradScaler(device, enabled=False),
        generator=generator,
        options=options,
        **settings,
    )


def weights(step):
    models = (step.denoiser, step.ema.model)
    return torch.cat([p.detach().flatten().cpu() for model in models for p in model.parameters()])


def run(step, steps=STEPS):
    losses = []
    for i in range(steps):
        step(1e-3 * (i + 1))
        losses.append(float(step.loss))
    return losses


def again(function, device, generators):
    """What stands in for a recording: the function itself, which finds what it needs in the tensors of the step."""
    return function


@pytest.mark.parametrize("options", [{}, {"times": LossAware(4, 2)}, {"optimizer": "adam", "clip_grad_norm": None}])
def test_a_step_is_a_function_of_its_tensors(options):
    eager = make_step(TrainingOptions(compile=False, **options))
    recorded = make_step(TrainingOptions(compile="graph", **options), record=again)
    assert run(eager) == run(recorded)
    assert recorded.is_recorded and not eager.is_recorded
    assert torch.equal(weights(eager), weights(recorded))


def test_batches_of_a_step_add_up_in_a_recording_too():
    eager = make_step(TrainingOptions(compile=False, accumulation_steps=2))
    recorded = make_step(TrainingOptions(compile="graph", accumulation_steps=2), record=again)
    for step in (eager, recorded):  # the next permutation would be drawn earlier in a recording
        step.rows.take = torch.arange
    assert run(eager) == run(recorded)
    assert torch.equal(weights(eager), weights(recorded))


def test_the_loop_does_what_its_step_does():
    step = make_step(TrainingOptions(compile=False, warmup_steps=0, learning_rate_schedule="constant", ema_decay=0.9))
    for _ in range(STEPS):
        step(1e-3)
    result = train(
        make_denoiser(),
        make_batches(),
        generator=torch.Generator().manual_seed(0),
        max_steps=STEPS,
        learning_rate=1e-3,
        options=TrainingOptions(warmup_steps=0, learning_rate_schedule="constant", ema_decay=0.9),
    )
    expected = torch.cat([p.detach().flatten() for p in step.ema.model.parameters()])
    assert torch.equal(torch.cat([p.flatten() for p in result.denoiser.parameters()]), expected)


class Keep(Callback):
    """Keeps where training stands after a step."""

    def __init__(self, step):
        self.step, self.state = step, None

    def on_step_end(self, training):
        if training.step == self.step:
            self.state = copy.deepcopy(training.state_dict())


def test_validation_callbacks_and_checkpoints_stand_between_launches(monkeypatch):
    """60 steps, a window of 50 and its validation among them, kept after 20 and gone on with from there."""

    def fit(compile, saved=None):
        denoiser, batches = make_denoiser(), make_batches()
        generator = torch.Generator().manual_seed(0)
        validation = Validation(
            batches.data[:9],
            batches.condition[:9],
            denoiser=denoiser,
            event_shape=(2,),
            generator=torch.Generator().manual_seed(2),
        )
        keep, options = Keep(20), TrainingOptions(compile=compile, times=LossAware(4, 2))
        result = train(
            denoiser,
            batches,
            generator=generator,
            max_steps=60,
            options=options,
            validation=validation,
            callbacks=[keep],
            run=Run(None, saved),
        )
        return result, keep.state

    eager, _ = fit(False)
    recordings = []

    def counted(function, device, generators):
        recordings.append(function)
        return function

    monkeypatch.setattr("tabdiff.training.loop.TrainingStep", partial(TrainingStep, record=counted))
    whole, state = fit("graph")
    rest, _ = fit("graph", state)
    assert len(recordings) == 2
    for result in (whole, rest):
        assert result.history["loss"] == eager.history["loss"]
        assert result.history["validation_loss"] == eager.history["validation_loss"]
        for mine, theirs in zip(result.denoiser.parameters(), eager.denoiser.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_what_cannot_be_recorded_is_run_with_one_warning():
    def fails(function, device, generators):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    eager = make_step(TrainingOptions(compile=False))
    step = make_step(TrainingOptions(compile="auto"), record=fails)
    with pytest.warns(UserWarning, match=r"not recorded .*operation not permitted") as caught:
        assert run(eager) == run(step)
    assert len(caught) == 1 and not step.is_recorded
    assert torch.equal(weights(eager), weights(step))


@pytest.mark.filterwarnings("error")
def test_steps_run_one_by_one_where_nobody_asked_for_more():
    step = make_step(TrainingOptions())
    run(step)
    assert not step.is_recorded


def test_a_graph_without_a_gpu_is_a_warning():
    with pytest.warns(UserWarning, match="the device is 'cpu'"):
        make_step(TrainingOptions(compile="graph"))


class Own(nn.Module):
    """A network that counts its calls in Python, which a recording would not repeat."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = nn.Linear(2, 2), 0

    def forward(self, x, t, c):
        self.calls += 1
        return self.inner(x)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("compile", ["auto", "graph"])
def test_a_network_of_ones_own_is_recorded_when_asked_for(compile):
    step = make_step(TrainingOptions(compile=compile), make_denoiser(Own()), record=again)
    run(step)
    assert step.is_recorded == (compile == "graph")


def test_a_loss_that_cannot_be_compiled_is_run_with_one_warning():
    def fails(*args, **kwargs):
        raise RuntimeError("no compiler")

    step = make_step(TrainingOptions(compile="default"))
    step._compiled_loss = fails
    with pytest.warns(UserWarning, match=r"not compiled .*no compiler") as caught:
        losses = run(step)
    assert len(caught) == 1 and losses == run(make_step(TrainingOptions(compile=False)))


@pytest.mark.exhaustive
def test_a_compiled_loss_is_that_of_the_network():
    eager, step = (make_step(TrainingOptions(compile=c)) for c in (False, "default"))
    assert run(step) == pytest.approx(run(eager), rel=1e-3)
    assert step._compiled_loss is not None
    torch.testing.assert_close(weights(step), weights(eager), rtol=1e-3, atol=1e-4)


def test_the_share_of_an_average_may_be_a_tensor():
    """As it is on a GPU, where a recorded step reads it."""
    model = nn.Linear(3, 3)
    plain, recorded = EMA(model, 0.99), EMA(model, 0.99)
    recorded._share = torch.ones(())
    for i in range(5):
        with torch.no_grad():
            model.weight.add_(i)
        plain.update(model)
        recorded.update(model)
        torch.testing.assert_close(recorded.model.weight, plain.model.weight, rtol=1e-6, atol=1e-6)


# --------------------------------------------------------------------- on a GPU

# Kernels are the same in both; what adds up in another order is the gradient of embeddings, by atomic additions.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.cuda
@pytest.mark.parametrize("options", [{}, {"times": LossAware(4, 2)}, {"accumulation_steps": 2}])
def test_a_recorded_step_is_the_eager_one(options):
    eager, recorded = (make_step(TrainingOptions(compile=c, **options), device="cuda") for c in (False, "graph"))
    torch.testing.assert_close(torch.tensor(run(recorded, 40)), torch.tensor(run(eager, 40)), **TOLERANCE)
    assert recorded.is_recorded
    torch.testing.assert_close(weights(recorded), weights(eager), **TOLERANCE)


@pytest.mark.cuda
def test_random_numbers_go_on_behind_a_recording():
    eager, recorded = (make_step(TrainingOptions(compile=c), device="cuda") for c in (False, "graph"))
    run(eager), run(recorded)
    assert torch.equal(eager.generator.get_state(), recorded.generator.get_state())
    drawn = [torch.rand(5, generator=step.generator, device="cuda") for step in (eager, recorded)]
    assert torch.equal(*drawn)


@pytest.mark.cuda
def test_a_recording_that_breaks_off_leaves_the_generator_usable():
    class Reads(Own):
        def forward(self, x, t, c):
            return self.inner(x) * float(x.mean() > -1e9)

    eager = make_step(TrainingOptions(compile=False), make_denoiser(Reads()), device="cuda")
    step = make_step(TrainingOptions(compile="graph"), make_denoiser(Reads()), device="cuda")
    with pytest.warns(UserWarning, match="not recorded"):
        losses = run(step)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(run(eager)), **TOLERANCE)
