import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from exhaustive import exhaustive

from tabdiff import MLP, DiffusionGenerator, DiT
from tabdiff.datasets import load_penguins
from tabdiff.training import Callback, Checkpoint, CheckpointError

QUICK = {"max_steps": 60, "hidden_size": 16, "n_blocks": 1, "batch_size": 64, "random_state": 0, "warm_start": True}


@pytest.fixture(scope="module", params=exhaustive(["mlp", "dit"]), autouse=True)
def denoiser(request):
    """Every test here holds for every network."""
    QUICK["denoiser"] = request.param


@pytest.fixture(scope="module")
def penguins():
    return load_penguins()


def same_weights(a, b):
    pairs = zip(a.denoiser_.state_dict().values(), b.denoiser_.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.slow
def test_the_first_fit_is_an_ordinary_one(penguins):
    warm, cold = (DiffusionGenerator(**{**QUICK, "warm_start": w}).fit(penguins) for w in (True, False))
    assert same_weights(warm, cold)
    assert not same_weights(warm.fit(penguins), cold.fit(penguins))


def test_a_second_fit_goes_on_with_network_history_and_steps(penguins):
    gen = DiffusionGenerator(**QUICK).fit(penguins, condition="species")
    codec, before = gen.codec_, [p.clone() for p in gen.denoiser_.parameters()]
    seen = []

    class First(Callback):
        def on_fit_begin(self, training):
            seen.extend(p.detach().clone() for p in training.denoiser.parameters())

    first_loss = list(gen.history_["loss"])
    gen.set_params(max_steps=50, callbacks=[First()], early_stopping=True).fit(penguins, condition="species")
    assert all(torch.equal(a, b) for a, b in zip(seen, before, strict=True))
    assert gen.codec_ is codec and gen.n_steps_ == 110
    assert gen.history_["step"] == [50.0, 60.0, 110.0] and gen.history_["loss"][:2] == first_loss
    assert gen.history_["validation_step"] == [110.0] and len(gen.history_["validation_loss"]) == 1
    assert (np.diff(gen.history_["seconds"]) > 0).all()
    assert gen.history_["loss"][2] < first_loss[0]
    assert len(gen.sample(5, condition={"species": "Gentoo"})) == 5


@pytest.mark.slow
def test_other_rows_may_follow(penguins):
    gen = DiffusionGenerator(**QUICK).fit(penguins, condition="species")
    gentoo = penguins[penguins["species"] == "Gentoo"]
    gen.fit(gentoo, condition="species")
    # What is drawn without a condition is drawn from the last rows; what the network knows stays.
    assert set(gen.sample(30)["species"]) == {"Gentoo"} and gen.n_samples_fit_ == len(gentoo)
    assert (gen.sample(5, condition="Adelie")["species"] == "Adelie").all()


@pytest.mark.slow
def test_a_model_from_a_file_goes_on(penguins, tmp_path):
    DiffusionGenerator(**QUICK).fit(penguins).save(tmp_path / "model")
    gen = DiffusionGenerator.load(tmp_path / "model").fit(penguins)
    assert gen.n_steps_ == 120
    direct = DiffusionGenerator(**QUICK).fit(penguins).fit(penguins)
    assert same_weights(gen, direct)


def test_cells_go_on_also_from_a_file(tmp_path):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"k": ["a", "b"] * 25}, index=[f"c{i}" for i in range(50)])
    cells = AnnData(rng.normal(size=(50, 4)).astype("float32"), obs=obs)
    gen = DiffusionGenerator(**QUICK).fit(cells, condition="k")
    gen.save(tmp_path / "model")
    for warm in (gen, DiffusionGenerator.load(tmp_path / "model")):
        assert warm.fit(cells, condition="k").n_steps_ == 120
        assert warm.sample(5, condition="a").shape == (5, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"X": "fewer columns"}, r"the columns were \['species', 'island'.* and are \['species'"),
        ({"X": "array", "arguments": {"condition": None}}, "kind 'table' and is 'array'"),
        ({"arguments": {"condition": "year"}}, r"condition was \['species'\].*is \['year'\]"),
        ({"arguments": {"condition": None}}, r"condition was \['species'\].*is None"),
        ({"hidden_size": 8}, "hidden_size was 16 and is 8"),
        ({"n_blocks": 2, "target": "x0"}, "target was 'v' and is 'x0'; n_blocks was 1 and is 2"),
        ({"schedule": "linear"}, "schedule was"),
        ({"n_timesteps": 10}, "schedule was"),
        ({"denoiser": lambda n, m, c: torch.nn.Identity()}, "denoiser is another"),
        ({"denoiser": "another"}, "denoiser is another"),
        ({"settings": {"conditioning": "addition"}}, "conditioning was 'adaln' and is 'addition'"),
        ({"settings": {"time_embedding": "learned"}}, "time_embedding was 'sinusoidal' and is 'learned'"),
        ({"X": "new level"}, "unknown|Gento"),
        ({"X": "new missing"}, "NaN|missing"),
    ],
    ids=lambda c: (
        "-".join(f"{k}={'callable' if callable(v) else v}" for k, v in c.items()) if isinstance(c, dict) else ""
    ),
)
def test_what_does_not_match_is_refused_and_leaves_the_model(penguins, case, message):
    frames = {
        "fewer columns": penguins[["species", "island"]],
        "array": np.ones((20, 7)),
        "new level": penguins.astype({"island": str}).replace({"island": {"Dream": "Atlantis"}}),
        "new missing": penguins.assign(year=penguins["year"].astype("Int64").mask(penguins["year"] == 2007)),
    }
    X = frames.get(case.get("X"), penguins)
    arguments = case.get("arguments", {"condition": "species"})
    gen = DiffusionGenerator(**QUICK).fit(penguins, condition="species")
    before = gen.sample(5, random_state=0)
    if case.get("denoiser") == "another":
        case = {"denoiser": {"mlp": "dit", "dit": "mlp"}[gen.denoiser]}
    if "settings" in case:
        case = {"denoiser": {"mlp": MLP, "dit": DiT}[gen.denoiser](**case["settings"])}
    gen.set_params(**{k: v for k, v in case.items() if k not in ("X", "arguments")})
    with pytest.raises(ValueError, match=message):
        gen.fit(X, **arguments)
    assert gen.n_steps_ == 60 and gen.n_features_in_ == 8
    pd.testing.assert_frame_equal(gen.sample(5, random_state=0), before)


def test_sizes_that_are_automatic_do_not_stand_in_the_way():
    rng = np.random.default_rng(0)
    gen = DiffusionGenerator(
        denoiser=QUICK["denoiser"], max_steps=3, batch_size=32, random_state=0, refine=False, warm_start=True
    )
    gen.fit(pd.DataFrame(rng.normal(size=(50, 2)))).fit(pd.DataFrame(rng.normal(size=(6000, 2))))
    assert gen.model_.config.hidden_size == {"mlp": 256, "dit": 96}[QUICK["denoiser"]]


@pytest.mark.slow
def test_a_warm_fit_that_was_interrupted_goes_on(penguins, tmp_path):
    class Stop(Callback):
        def on_step_end(self, training):
            if training.step == 30:
                raise KeyboardInterrupt

    def fitted():
        return DiffusionGenerator(**QUICK).fit(penguins)

    whole = fitted().fit(penguins)
    with pytest.raises(KeyboardInterrupt):
        fitted().set_params(callbacks=[Stop(), Checkpoint(tmp_path, every=0)]).fit(penguins)
    again = fitted().fit(penguins, resume_from=tmp_path)
    assert same_weights(again, whole) and again.n_steps_ == whole.n_steps_ == 120
    # The same data and parameters, but what it started from is another fit.
    with pytest.raises(CheckpointError, match="started after 60 steps"):
        DiffusionGenerator(**QUICK).fit(penguins, resume_from=tmp_path)
