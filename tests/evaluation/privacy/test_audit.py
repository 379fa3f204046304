"""The audit: what must fail fails, what must pass passes, and each measure in a case that is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from threadpoolctl import threadpool_limits

from tabdiff import DiffusionGenerator, privacy_report
from tabdiff.evaluation.frames import encode
from tabdiff.evaluation.intervals import clopper_pearson
from tabdiff.evaluation.privacy import (
    Attack,
    attribute_inference,
    epsilon_lower_bound,
    linkability,
    singling_out,
    smote_rows,
    tpr_at_fpr,
)
from tabdiff.evaluation.privacy.search import neighbours


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with threadpool_limits(1, user_api="openmp"):
        yield


def draw(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    frame = pd.DataFrame({f"n{k}": 0.6 * x + rng.normal(size=n) for k in range(4)})
    frame["whole"] = rng.poisson(4, n)
    frame["kind"] = pd.Categorical(np.where(x + rng.normal(size=n) > 0, "high", "low"))
    return frame.assign(letter=rng.choice(list("abcde"), n)).mask(rng.random((n, 7)) < 0.02)


@pytest.fixture(scope="module")
def train():
    return draw(600, 0)


@pytest.fixture(scope="module")
def holdout():
    return draw(1200, 1)


@pytest.mark.slow
def test_a_bootstrap_and_smote_fail_and_fresh_rows_pass(train, holdout):
    fresh = privacy_report(draw(600, 2), train, holdout)
    frame = fresh.to_frame().set_index("metric")
    assert (frame["verdict"] == "passes").all()
    assert "pass this audit" in fresh.findings[0] and "controls came out right" in fresh.findings[-1]
    controls = fresh.details["controls"].set_index("data")
    assert controls["verdict"].to_dict() == {
        "synthetic": "passes",
        "fresh real": "passes",
        "bootstrap": "fails",
        "SMOTE": "fails",
    }
    assert (controls.loc[["bootstrap", "SMOTE"], "TPR at 1 %"] > 0.05).all()
    assert (controls.loc[["bootstrap", "SMOTE"], "epsilon, at least"] > 0.5).all()
    copied = privacy_report(smote_rows(train, 600, random_state=5), train, holdout)
    assert "fail this audit" in copied.findings[0]
    assert copied.to_frame().set_index("metric").loc["exact copies %", "synthetic"] < 5
    # The rows that it is based on most are those that are exposed most.
    assert copied.details["exposed"]["row"].between(0, 599).all()
    assert (copied.details["exposed"]["unseen rows as sure %"] < 1).all()


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_no_false_alarm_on_fresh_rows(seed):
    report = privacy_report(draw(300, seed), draw(300, 10 + seed), draw(600, 20 + seed), random_state=seed)
    controls = report.details["controls"].set_index("data")["verdict"]
    assert controls["synthetic"] == controls["fresh real"] == "passes"


@pytest.mark.slow
def test_an_overfitted_model_is_recognised_from_inside_and_a_fresh_one_is_not():
    train, holdout = draw(90, 6), draw(900, 7)
    settings = {"refine": False, "early_stopping": False, "random_state": 0, "hidden_size": 256}
    over = DiffusionGenerator(max_steps=1200, **settings).fit(train)
    report = privacy_report(over.sample(400, random_state=0), train, holdout, over)
    frame = report.to_frame().set_index("metric")
    inside = frame[frame.index.str.contains("loss")]
    assert (inside.loc[inside.index.str.startswith("TPR at 1 %"), "synthetic"]).max() > 0.05
    assert (inside.loc[inside.index.str.startswith("AUC"), "verdict"] == "fails").any()
    assert any("Who has the model itself" in finding for finding in report.findings)
    young = DiffusionGenerator(max_steps=15, **settings).fit(train)
    scores = privacy_report(young.sample(200, random_state=0), train, holdout, young).to_frame().set_index("metric")
    assert scores.loc["AUC (loss)", "synthetic"] < 0.6


@pytest.mark.slow
def test_identifiers_are_looked_at_alone(train, holdout):
    def keyed(frame, start):
        return frame.assign(key=[f"K{v:07d}" for v in range(start, start + len(frame))])

    ours = keyed(draw(600, 2), 9 * 10**5)
    ours.loc[:299, "key"] = keyed(train, 0)["key"][:300]
    report = privacy_report(ours, keyed(train, 0), keyed(holdout, 5000))
    assert any("50.0 % of the rows have a 'key' of a training row" in finding for finding in report.findings)
    assert "key" in report.sizes["identifiers"]


@pytest.mark.slow
def test_cells_and_images_are_audited_too():
    anndata = pytest.importorskip("anndata")
    rng = np.random.default_rng(0)

    def cells(n):
        mean = np.exp(rng.normal(size=(n, 1)) * 0.5 + np.linspace(-1, 1, 20))
        return anndata.AnnData(rng.poisson(mean).astype(np.int32))

    train, holdout = cells(150), cells(240)
    report = privacy_report(train[rng.integers(150, size=150)].copy(), train, holdout)
    assert report.details["controls"].set_index("data")["verdict"]["synthetic"] == "fails"
    assert not report.to_frame()["metric"].str.startswith("inference").any()
    images = rng.integers(0, 256, (400, 5, 5)).astype(np.uint8)
    report = privacy_report(images[:150], images[150:250], images[250:])
    assert report.to_frame().set_index("metric").loc["exact copies %", "synthetic"] == 0
    with pytest.raises(TypeError, match="holdout is a DataFrame, but others are AnnData"):
        privacy_report(train, train, draw(100, 0))


def test_what_cannot_be_audited_is_refused(train, holdout):
    with pytest.raises(ValueError, match="holdout must have at least 60 rows for an audit; got 20"):
        privacy_report(train, train, holdout[:20])
    with pytest.raises(ValueError, match="secrets must be columns; got 'salary'"):
        privacy_report(train, train, holdout, secrets=["salary"])
    with pytest.raises(ValueError, match="synthetic must have the columns of train"):
        privacy_report(train[["n0"]], train, holdout)


# ------------------------------------------------------------------------------------------------- known cases


def test_rates_of_scores_that_are_known():
    others = np.arange(100.0)
    assert tpr_at_fpr(np.array([98.5, 99.5, 3.0]), others, 0.01) == pytest.approx(2 / 3)
    assert tpr_at_fpr(np.array([99.5, 3.0]), others, 0.0) == pytest.approx(1 / 2)
    # Scores that all share find as many members as others, whatever the threshold.
    assert tpr_at_fpr(np.zeros(50), np.zeros(200), 0.1) == pytest.approx(0.1)
    attack = Attack("shift", np.random.default_rng(0).normal(1, 1, 4000), np.random.default_rng(1).normal(0, 1, 4000))
    assert attack.auc == pytest.approx(0.7602, abs=0.015)  # Φ(1 / √2)
    low, high = attack.auc_interval()
    assert high - low == pytest.approx(2 * 1.96 * 0.0053, rel=0.1)
    assert attack.tpr(0.1) == pytest.approx(0.389, abs=0.03)  # 1 - Φ(1.2816 - 1)


def test_clopper_pearson_against_tables_and_coverage():
    # Of 0 and of 10 successes in 10 tries: 1 - (α/2)^(1/n), and its mirror.
    assert clopper_pearson(0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1))
    assert clopper_pearson(3, 20)[0] == pytest.approx(beta.ppf(0.025, 3, 18))


def test_epsilon_of_randomised_response_is_bounded_below_but_not_overstated():
    # Each answer is true with probability e^ε / (1 + e^ε).
    rng, epsilon = np.random.default_rng(0), 1.5
    share = np.exp(epsilon) / (1 + np.exp(epsilon))
    bounds = []
    for seed in range(20):
        members, others = (rng.random(4000) < p for p in (share, 1 - share))
        bounds.append(epsilon_lower_bound(members.astype(float), others.astype(float), random_state=seed))
    assert max(bounds) < epsilon + 0.05 and np.mean(bounds) > 1.2
    assert epsilon_lower_bound(np.zeros(10), np.zeros(10)) == 0


def test_a_perfect_attack_gives_the_bound_of_its_rows():
    # 500 of 500 tested and none of 500: log of the ends of the intervals.
    bound = epsilon_lower_bound(np.ones(1000), np.zeros(1000))
    low, high = 0.025 ** (1 / 500), 1 - 0.025 ** (1 / 500)
    assert bound == pytest.approx(np.log(low / high))


def test_risks_of_copies_and_of_fresh_rows(train, holdout):
    fresh = draw(600, 8)
    for attack in (singling_out, linkability):
        assert attack(train, train, holdout).risk > 0.5
        assert attack(fresh, train, holdout).z < 3
    copied = attribute_inference(train, train, holdout, "letter")
    assert copied.rates[0] > 0.9 and copied.rates[1] < 0.4
    assert copied.interval()[0] > 0.8
    assert abs(attribute_inference(fresh, train, holdout, "n0").z) < 3
    with pytest.raises(ValueError, match="secret must be a column; got 'w'"):
        attribute_inference(fresh, train, holdout, "w")


def test_smote_lies_between_neighbours_and_keeps_dtypes():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=50), "k": rng.integers(0, 9, 50), "c": rng.choice(list("ab"), 50)})
    rows = smote_rows(frame, 200, random_state=1)
    assert rows.dtypes.equals(frame.dtypes) and len(rows) == 200
    assert rows["x"].between(frame["x"].min(), frame["x"].max()).all()
    line = pd.DataFrame({"x": [0.0, 10.0]})
    assert smote_rows(line, 100)["x"].between(0, 10).all() and smote_rows(line, 100)["x"].nunique() == 100
    with pytest.raises(ValueError, match="at least two rows"):
        smote_rows(line[:1], 3)


def test_neighbours_leave_the_row_itself_out():
    (rows,) = encode(pd.DataFrame({"x": [0.0, 1.0, 1.0, 5.0]}))
    near = neighbours(rows, rows, rows, 2, own=np.arange(4))
    assert near.tolist() == [[1, 2], [2, 0], [1, 0], [1, 2]]


def test_a_model_whose_losses_say_nothing_of_rows_is_refused_with_what_to_do():
    letters = ["TATAAT", "TATGAT", "TACAAT", "TATACT"] * 20
    gen = DiffusionGenerator(max_steps=2, random_state=0).fit(letters)
    with pytest.raises(TypeError, match=r"got one of sequences\. Leave it out"):
        privacy_report(letters[:5], letters[:40], letters[40:], gen)


def test_errors_name_the_argument_that_was_given():
    frame = pd.DataFrame({"a": np.arange(80.0)})
    with pytest.raises(TypeError, match=r"^train is a ndarray.*pandas.DataFrame\(array\)"):
        privacy_report(frame, frame.to_numpy(), frame)
    with pytest.raises(ValueError, match="holdout must have the columns of train"):
        privacy_report(frame, frame, frame.rename(columns={"a": "b"}))
