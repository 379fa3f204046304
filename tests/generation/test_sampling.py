"""What guidance, methods and batch sizes make of the rows of a fitted generator."""

import copy
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator, SamplingOptions
from tabdiff.diffusion import AutoGuidance, ClassifierFreeGuidance, Heun, MultiConditionGuidance, RePaint
from tabdiff.generation.sampling import SamplePlan
from tabdiff.training import Checkpoint

QUICK = {"hidden_size": 16, "n_blocks": 1, "random_state": 0, "learning_rate": 1e-2}


def table(n=200, seed=0):
    rng = np.random.default_rng(seed)
    kind, site = rng.choice(["a", "b"], n), rng.choice(["x", "y", "z"], n)
    return pd.DataFrame(
        {
            "number": rng.normal(size=n) + 2 * (kind == "a"),
            "other": rng.normal(size=n),
            "colour": pd.Categorical(np.where(rng.random(n) < 0.8, np.where(kind == "a", "red", "blue"), "green")),
            "kind": kind,
            "site": site,
        }
    )


@pytest.fixture(scope="module")
def plain():
    gen = DiffusionGenerator(max_steps=60, refine=False, **QUICK)
    return gen.fit(table(), condition=["kind", "site"])


@pytest.fixture(scope="module")
def refined():
    """A model with refinement and autoguidance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tabdiff.model.refinement.refinement.MIN_DRAWN", 400)
        patch.setattr("tabdiff.model.refinement.refinement.DRAWN_PER_ROW", 1)
        gen = DiffusionGenerator(max_steps=20, refine=True, autoguidance=1.5, **QUICK)
        return gen.fit(table()[["number", "other", "colour", "kind"]], condition="kind")


def bare(gen):
    """The same model without refinement and autoguidance."""
    other = copy.copy(gen)
    other.model_ = replace(gen.model_.with_autoguidance(1.0), refinement=None)
    return other


def own(d, s):
    return ClassifierFreeGuidance(d, 1.0)


@pytest.mark.parametrize(
    "guided",
    [
        {"guidance": "cfg++", "guidance_scale": 1},
        {"guidance": "cfg++", "guidance_scale": 0.5},
        {"guidance_scale": 2.0},
        {"guidance_scale": 0.0},
        {"guidance": own},
    ],
    ids=["cfg++ at 1", "cfg++ at .5", "scale 2", "scale 0", "a callable"],
)
def test_nothing_corrects_rows_that_guidance_leads_elsewhere(refined, guided):
    condition = ["a"] * 12
    assert refined.refinement_ is not None and refined.guiding_denoiser_ is not None
    rows = refined.sample(condition=condition, random_state=1, **guided)
    pd.testing.assert_frame_equal(rows, bare(refined).sample(condition=condition, random_state=1, **guided))
    # They take the steps of rows that are not refined.
    pd.testing.assert_frame_equal(rows, refined.sample(condition=condition, random_state=1, steps=50, **guided))


def test_without_guidance_both_correct(refined):
    rows = refined.sample(condition=["a"] * 12, random_state=1)
    assert not rows.equals(bare(refined).sample(condition=["a"] * 12, random_state=1))
    one = refined.sample(condition=["a"] * 12, random_state=1, guidance_scale=np.float64(1))
    pd.testing.assert_frame_equal(rows, one)


def test_a_callable_guides_a_model_without_condition():
    X = np.random.default_rng(0).normal(size=(100, 2))
    gen = DiffusionGenerator(max_steps=5, refine=False, **QUICK).fit(X)
    weak = copy.deepcopy(gen.denoiser_)
    with torch.no_grad():
        for p in weak.parameters():
            p.mul_(0.5)
    led = gen.sample(5, guidance=lambda d, s: AutoGuidance(d, weak, s), guidance_scale=3.0, random_state=0)
    assert np.abs(led - gen.sample(5, random_state=0)).max() > 1e-3
    with pytest.raises(ValueError, match="guidance must be one of"):
        gen.sample(5, guidance="strong")


def test_scale_0_is_unconditional_in_numbers_and_categories(plain):
    given = plain.sample(200, {"kind": "a", "site": "x"}, guidance_scale=0.0, random_state=3)
    free = plain.sample(200, "unconditional", random_state=3)
    columns = ["number", "other", "colour"]
    pd.testing.assert_frame_equal(given[columns], free[columns])
    conditional = plain.sample(200, {"kind": "a", "site": "x"}, random_state=3)
    assert (conditional["colour"] != free["colour"]).mean() > 0.1


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_the_scale_reaches_guidance_as_it_is(plain, scale):
    condition = {"kind": "a", "site": "x"}
    rows = plain.sample(20, condition, guidance_scale=scale, random_state=3)
    same = plain.sample(
        20, condition, guidance=lambda d, _: ClassifierFreeGuidance(d, scale), guidance_scale=7.0, random_state=3
    )
    pd.testing.assert_frame_equal(rows, same)
    given = []
    plain.sample(1, condition, guidance=lambda d, s: given.append(s) or d, guidance_scale=scale)
    assert given == [scale]


@pytest.mark.parametrize(
    "method", ["euler", "heun", "rk4", "rk45", "euler_maruyama", "dpmpp_2m", Heun(churn=2.0)], ids=str
)
def test_cfg_plus_plus_is_refused_before_anything_is_drawn(plain, method, monkeypatch):
    monkeypatch.setattr("tabdiff.generation.sampling.SamplePlan.rows", lambda self: pytest.fail("rows were drawn"))
    with pytest.raises(ValueError, match=r"must be 'ddim', 'ddpm' or 'predictor_corrector'.*Use method='ddim'"):
        plain.sample(3, {"kind": "a"}, guidance="cfg++", guidance_scale=0.5, method=method)


def test_cfg_plus_plus_follows_the_advice(plain):
    for method in ("ddim", "ddpm", "predictor_corrector"):
        assert len(plain.sample(3, {"kind": "a"}, guidance="cfg++", guidance_scale=0.5, method=method, steps=5)) == 3


def test_what_is_no_method_is_refused(plain):
    for method in (RePaint(), 3, "ddqm"):
        with pytest.raises(ValueError, match="method"):
            plain.sample(3, method=method)


@pytest.mark.parametrize(
    "method", ["ddpm", "dpmpp_2m_sde", "dpmpp_3m_sde", "euler_maruyama", "predictor_corrector", "auto"]
)
def test_rows_of_a_seed_do_not_depend_on_the_batch_size(plain, method):
    settings = {"condition": ["a", "b"] * 10, "method": method, "steps": 6, "random_state": 5}
    settings["condition"] = pd.DataFrame({"kind": ["a", "b"] * 10, "site": ["x", "y"] * 10})
    whole, parts = plain.sample(**settings), plain.sample(**settings, batch_size=7)
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-3, atol=1e-4)


def test_refined_rows_of_a_seed_do_not_depend_on_the_batch_size(refined):
    settings = {"condition": ["a", "b"] * 10, "method": "ddpm", "steps": 6, "random_state": 5}
    whole, parts = refined.sample(**settings), refined.sample(**settings, batch_size=7)
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-3, atol=1e-4)


def test_refined_rows_asked_for_in_parts_are_those_of_the_whole(refined):
    condition, options = ["a", "b", "b"] * 5, SamplingOptions(steps=4)
    whole, in_parts = (SamplePlan(refined.model_, None, condition, options, seed=3) for _ in range(2))
    rows, labels = whole.rows()
    parts = [in_parts.rows(start, start + 6) for start in range(0, 15, 6)]
    assert [len(part) for part, _ in parts] == [6, 6, 3]
    pd.testing.assert_frame_equal(pd.concat([part for part, _ in parts], ignore_index=True), rows)
    pd.testing.assert_frame_equal(pd.concat([part for _, part in parts], ignore_index=True), labels)


# ------------------------------------------------ conditions dropped one by one


def spied(monkeypatch, **parameters):
    """Share of rows by the attributes that are null in training, and the fitted model."""
    from tabdiff.diffusion.mixed_denoiser import MixedDenoiser

    seen = []
    loss = MixedDenoiser.loss

    def spy(self, x0, condition=None, *, t, eps):
        seen.append(self.split(condition)[0].isnan())
        return loss(self, x0, condition, t=t, eps=eps)

    monkeypatch.setattr(MixedDenoiser, "loss", spy)
    gen = DiffusionGenerator(max_steps=20, refine=False, batch_size=256, **QUICK, **parameters)
    return torch.cat(seen) if gen.fit(table(), condition=["kind", "site"]) and seen else None, gen


def test_conditions_are_dropped_one_by_one_with_their_probabilities(monkeypatch):
    null, gen = spied(monkeypatch, condition_dropout={"kind": 0.3, "site": 0.5})
    n = len(null)

    def near(share, p):
        return abs(share.float().mean().item() - p) < 4.5 * (p * (1 - p) / n) ** 0.5

    assert near(null[:, 0], 0.3) and near(null[:, 1], 0.5)
    assert near(null.sum(1) == 1, 0.3 * 0.5 + 0.7 * 0.5)
    assert near(null.all(1), 0.15)
    scales = [1.0, 1.0]
    guided = {"guidance": lambda d, s: MultiConditionGuidance(d, scales)}
    rows = gen.sample(4, {"kind": "a", "site": "x"}, random_state=0, **guided)
    assert rows["number"].notna().all()


def test_by_default_conditions_are_dropped_together(monkeypatch):
    null, _ = spied(monkeypatch)
    assert (null.sum(1) == 1).sum() == 0
    assert abs(null.all(1).float().mean().item() - 0.1) < 4.5 * (0.09 / len(null)) ** 0.5


def test_a_condition_that_is_not_named_is_never_dropped(monkeypatch):
    null, _ = spied(monkeypatch, condition_dropout={"site": 0.4})
    assert not null[:, 0].any() and null[:, 1].any()


def test_vectors_are_dropped_whole(monkeypatch):
    from tabdiff.diffusion import Denoiser

    seen = []
    loss = Denoiser.loss

    def spy(self, x0, condition=None, *, t, eps):
        seen.append(self.split(condition)[0].isnan())
        return loss(self, x0, condition, t=t, eps=eps)

    monkeypatch.setattr(Denoiser, "loss", spy)
    rng = np.random.default_rng(0)
    condition = {"v": rng.normal(size=(100, 3)), "k": rng.choice(["a", "b"], 100)}
    gen = DiffusionGenerator(max_steps=10, refine=False, **QUICK, condition_dropout={"v": 0.5, "k": 0.5})
    gen.fit(rng.normal(size=(100, 2)), condition=condition)
    null = torch.cat(seen)
    vector = gen.conditions_.places[gen.conditions_.names.index("v")]
    hidden = null[:, vector]
    assert (hidden.all(1) == hidden.any(1)).all()
    assert 0.4 < hidden.all(1).float().mean() < 0.6


@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        ({"knid": 0.3}, r"condition_dropout must name those of the fit, \['kind', 'site'\]; got \['knid'\]"),
        ({"kind": 1.5}, r"condition_dropout\['kind'\] must lie in \[0, 1\]"),
        ({"kind": "often"}, r"condition_dropout\['kind'\] must be a finite number"),
        (1.5, r"condition_dropout must lie in \[0, 1\]"),
        ([0.1, 0.2], "condition_dropout must be a finite number"),
    ],
    ids=str,
)
def test_bad_dropouts_are_refused_before_training(dropout, message, monkeypatch):
    monkeypatch.setattr("tabdiff.model.fit.train", lambda *a, **k: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        DiffusionGenerator(condition_dropout=dropout).fit(table(), condition=["kind", "site"])


def test_dropouts_by_name_need_a_condition_and_the_remedy_works():
    with pytest.raises(ValueError, match=r"this fit has none.*condition_dropout=0\.1"):
        DiffusionGenerator(condition_dropout={"kind": 0.3}, max_steps=1, **QUICK).fit(table())
    DiffusionGenerator(condition_dropout=0.1, max_steps=1, refine=False, **QUICK).fit(table())


def test_dropouts_by_name_are_saved_whatever_the_names(tmp_path):
    frame = table().rename(columns={"kind": 7})
    gen = DiffusionGenerator(condition_dropout={7: np.float32(0.25)}, max_steps=1, refine=False, **QUICK)
    frame.columns = list(frame.columns)
    gen.fit(frame[["number", "colour"]], condition=frame[[7]])
    gen.save(tmp_path / "model")
    other = DiffusionGenerator.load(tmp_path / "model")
    assert other.condition_dropout == {7: 0.25}
    pd.testing.assert_frame_equal(other.sample(3, random_state=0), gen.sample(3, random_state=0))


def test_a_fit_with_other_dropouts_is_not_resumed(tmp_path):
    settings = {**QUICK, "max_steps": 2, "refine": False, "callbacks": [Checkpoint(tmp_path)]}
    DiffusionGenerator(condition_dropout={"kind": 0.3}, **settings).fit(table(), condition="kind")
    with pytest.raises(ValueError, match=r"condition_dropout was .*0\.3.* and is .*0\.4"):
        DiffusionGenerator(condition_dropout={"kind": 0.4}, **settings).fit(
            table(), condition="kind", resume_from=tmp_path
        )


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [2, 3])
def test_rows_do_not_depend_on_the_number_of_jobs(plain, refined, n_jobs):
    with joblib.parallel_config(backend="threading"):
        for gen in (plain, refined):
            alone, together = (gen.sample(400, random_state=3, batch_size=64, n_jobs=n) for n in (1, n_jobs))
            pd.testing.assert_frame_equal(alone, together)


def test_rows_of_other_processes_are_the_same(refined):
    alone, together = (refined.sample(300, random_state=3, batch_size=150, n_jobs=n) for n in (None, 2))
    pd.testing.assert_frame_equal(alone, together)


@pytest.mark.slow
def test_holes_are_filled_alike_with_any_number_of_jobs(plain):
    rows = table(300, seed=1)
    rows.loc[::2, "number"] = np.nan
    with joblib.parallel_config(backend="threading"):
        for strategy in ("draw", "mean"):
            filled = [plain.impute(rows, random_state=0, strategy=strategy, batch_size=40, n_jobs=n) for n in (1, 2)]
            pd.testing.assert_frame_equal(*filled)
