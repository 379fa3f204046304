import numpy as np
import pandas as pd
import pytest
from encoded import noise

from tabdiff import DiffusionGenerator
from tabdiff.codecs import ArrayCodec, TableCodec
from tabdiff.codecs.tables.joint_rules import JointRules

DRUGS = ["insulin", "metformin", "glipizide", "glyburide"]


def patients(n=4000, seed=0):
    """A patient is treated if any drug is named; the dose changed if one says so, or if there are two drugs."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({d: rng.choice(["no", "steady", "up"], n, p=[0.7, 0.2, 0.1]) for d in DRUGS})
    frame["age"] = rng.normal(60, 15, n).round()
    return frame.assign(**said(frame))


def said(frame):
    given = frame[DRUGS] != "no"
    changed = (frame[DRUGS] == "up").any(axis=1) | (given.sum(axis=1) > 1)
    return {"treated": given.any(axis=1), "changed": pd.Categorical(np.where(changed, "yes", "no"))}


def broken(rows):
    return {name: int((rows[name].to_numpy() != np.asarray(wanted)).sum()) for name, wanted in said(rows).items()}


def found(codec):
    schema = codec.schema_
    return {c: set(f) for c, f in zip(schema["column"], schema["follows_from"], strict=True) if f is not None}


# ---------------------------------------------------------------- what is found


def test_rules_of_several_columns_are_found_and_hold_in_every_row():
    codec = TableCodec().fit(patients())
    rules = found(codec)
    assert rules.keys() == {"treated", "changed"}
    # What tells most of a rule can be another column that follows from the same ones.
    assert rules["treated"] >= set(DRUGS) and rules["changed"] == set(DRUGS)
    rows = codec.decode(noise(codec, 5000))
    assert broken(rows) == {"treated": 0, "changed": 0}
    assert codec.n_levels_ == [3, 3, 3, 3, 2, 2]  # both stay in the network


def test_training_rows_come_back_as_they_were():
    frame = patients()
    codec = TableCodec().fit(frame)
    pd.testing.assert_frame_equal(codec.decode(codec.encode(frame)), frame)


def test_thresholds_of_numbers_with_missing_values():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.exponential(10, 5000).round(2), "kind": rng.choice(list("abc"), 5000)})
    frame.loc[::9, "x"] = np.nan
    frame["high"] = np.where((frame["x"] > 12) & (frame["kind"] != "c"), "high", "low")
    codec = TableCodec().fit(frame)
    assert found(codec) == {"high": {"x", "kind"}}
    rows = codec.decode(noise(codec, 5000))
    assert rows["x"].isna().any()
    # Between the two observed numbers next to the threshold the tree may put it anywhere.
    sure = rows["x"].isna() | ((rows["x"] - 12).abs() > 0.1)
    wanted = np.where((rows["x"] > 12) & (rows["kind"] != "c"), "high", "low")
    assert (rows["high"].to_numpy() == wanted)[sure].all() and sure.mean() > 0.98


@pytest.mark.parametrize("kind", ["nearly", "rare", "few rows", "wide"])
def test_what_is_no_rule_or_cannot_be_known_is_not_found(kind):
    frame = patients(1000 if kind == "few rows" else 4000)
    rng = np.random.default_rng(1)
    frame = frame.drop(columns="changed")
    if kind == "nearly":  # one row in a hundred is otherwise
        frame["treated"] ^= rng.random(len(frame)) < 0.01
    elif kind == "rare":
        frame["treated"] = (frame[DRUGS] == "up").all(axis=1) & (rng.random(len(frame)) < 0.5)
        frame.loc[:3, "treated"] = True
    elif kind == "wide":
        numbers = pd.DataFrame(rng.normal(size=(len(frame), 260))).add_prefix("x")
        frame = pd.concat([frame, numbers], axis=1)
    assert found(TableCodec().fit(frame)) == {}


def test_they_are_not_looked_for_where_dependencies_are_not_nor_in_arrays():
    frame = patients()
    assert found(TableCodec(dependencies=False).fit(frame)) == {}
    assert found(ArrayCodec().fit(frame[["age"]].assign(b=frame["treated"]).to_numpy(float))) == {}


def test_a_column_that_another_one_determines_alone_is_looked_up_there():
    frame = patients()
    frame["treated_too"] = frame["treated"].map({True: "y", False: "n"})
    codec = TableCodec().fit(frame)
    rows = codec.decode(noise(codec, 2000))
    assert ((rows["treated_too"] == "y") == rows["treated"]).all()


def test_of_columns_that_determine_each_other_only_one_is_looked_up():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4000)) < 0.5
    codec = TableCodec().fit(pd.DataFrame({"a": a, "b": b, "c": a ^ b}))
    assert len(found(codec)) == 1
    rows = codec.decode(noise(codec, 2000))
    assert (rows["c"] == rows["a"] ^ rows["b"]).all()


def test_rules_are_applied_after_those_whose_targets_they_look_at():
    rng = np.random.default_rng(0)
    p, q, r = rng.random((3, 4000)) < 0.5
    data = np.stack([p & q, (p & q) ^ r, p, q, r], axis=1).astype(np.float32)
    rules = JointRules.find(data, {1: 2, 0: 2})
    # The second was found first, and can be told from the first and r.
    assert [rule.target for rule in rules.rules_] == [0, 1] and 0 not in rules.rules_[0].inputs
    for rule in rules.rules_:
        assert np.array_equal(rule(data[:, rule.inputs]), data[:, rule.target])


def test_state_survives_and_models_without_rules_have_none():
    codec = TableCodec().fit(patients())
    state = codec.state()
    again = TableCodec.from_state(state)
    pd.testing.assert_frame_equal(again.decode(noise(codec, 500)), codec.decode(noise(codec, 500)))
    assert found(again) == found(codec)
    del state["joint_rules"]
    assert found(TableCodec.from_state(state)) == {}


# ---------------------------------------------------------------- in a model


@pytest.fixture(scope="module")
def model():
    frame = patients()
    settings = {"hidden_size": 64, "n_blocks": 2, "max_steps": 200, "batch_size": 256, "refine": False}
    return frame, DiffusionGenerator(random_state=0, **settings).fit(frame)


@pytest.mark.slow
def test_drawn_rows_keep_the_rules_and_others_do_not(model, tmp_path):
    frame, gen = model
    rows = gen.sample(2000, random_state=0)
    assert broken(rows) == {"treated": 0, "changed": 0}
    assert rows["treated"].mean() == pytest.approx(frame["treated"].mean(), abs=0.1)
    gen.save(tmp_path / "patients.safetensors")
    again = DiffusionGenerator.load(tmp_path / "patients.safetensors")
    pd.testing.assert_frame_equal(again.sample(2000, random_state=0), rows)
    free = (
        DiffusionGenerator(**{**gen.get_params(), "codec": TableCodec(dependencies=False)})
        .fit(frame)
        .sample(2000, random_state=0)
    )
    assert min(broken(free).values()) > 20


@pytest.mark.slow
def test_what_is_held_stays_and_the_others_go_with_it(model):
    _, gen = model
    rows = gen.sample(500, condition={"treated": False}, random_state=0)
    assert not rows["treated"].any()
    assert (rows[DRUGS] == "no").mean().mean() > 0.9


@pytest.mark.parametrize("n_draws", [1, 2])
def test_holes_follow_from_cells_that_are_there(model, n_draws):
    frame, gen = model
    holes = frame.head(300).astype({"treated": object})
    holes["changed"] = pd.Categorical([None] * 300, categories=["no", "yes"])
    filled = gen.impute(holes, n_draws=n_draws, random_state=0)
    filled = filled if n_draws == 1 else filled[0]
    assert (filled["changed"].to_numpy() == frame["changed"].head(300).to_numpy()).all()


def test_where_these_are_estimates_too_the_likeliest_level_is_filled_in(model):
    frame, gen = model
    holes = frame.head(300).astype({"treated": object})
    holes[[*DRUGS, "treated"]] = None
    filled = gen.impute(holes, random_state=0)
    # The likeliest of each drug is "no", and still most patients are treated.
    assert (filled[DRUGS] == "no").mean().mean() > 0.9 and filled["treated"].mean() > 0.6
    drawn = gen.impute(holes, n_draws=2, random_state=0)[0]
    assert broken(drawn)["treated"] == 0
