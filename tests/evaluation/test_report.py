"""Reports: what they catch, what they say, and that the page needs nothing else."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from tabdiff import DiffusionGenerator, compare, evaluate
from tabdiff.datasets import load_penguins
from tabdiff.evaluation import (
    c2st,
    copied_keys,
    dcr_share,
    downstream_score,
    global_utility,
    independent_columns,
    lr_c2st,
    missingness_error,
    nearest_neighbour_ratio,
    pattern_error,
    rules_broken,
    shape_error,
    trend_error,
    trivariate_error,
    wnmis,
)
from tabdiff.evaluation.classifiers import two_sample
from tabdiff.evaluation.meanings import MEANINGS, distance_from_best
from tabdiff.evaluation.rules import find_rules
from tabdiff.evaluation.tells import telling_columns, telling_pairs, telling_rows


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with threadpool_limits(1, user_api="openmp"):
        yield


def ledger(n, seed):
    """Rows with a key, rules, two modes, holes that come together, and a target."""
    rng = np.random.default_rng(seed)
    mode = rng.random(n) < 0.35
    debit = rng.integers(0, 500, n)
    credit = rng.integers(0, 500, n)
    region = rng.choice(["north", "south", "east"], n, p=[0.5, 0.3, 0.2])
    height = np.where(mode, rng.normal(8, 1, n), rng.normal(0, 1, n))
    width = 0.9 * height + rng.normal(0, 0.6, n)
    paid = pd.Series(rng.gamma(2.0, 10, n).round(2))
    note = pd.Series(rng.choice(["x", "y"], n))
    holes = rng.random(n) < 0.15
    first = rng.integers(0, 1000, n)
    return pd.DataFrame(
        {
            "key": [f"AC-{v:08d}" for v in rng.choice(10**8, n, replace=False)],
            "debit": debit,
            "credit": credit,
            "net": debit - credit,
            "region": pd.Categorical(region),
            "tax": pd.Series(region).map({"north": "low", "south": "high", "east": "low"}),
            "height": height,
            "width": width,
            "first": first,
            "last": first + rng.integers(0, 300, n),
            "paid": paid.mask(holes),
            "note": note.mask(holes),
            "good": (width + rng.normal(0, 2, n)) > 3,
        }
    )


N = 400


@pytest.fixture(scope="module")
def real():
    return ledger(N, 0)


@pytest.fixture(scope="module")
def holdout():
    return ledger(N, 1)


@pytest.fixture(scope="module")
def faults(real):
    """Fresh rows, and what is wrong with others."""
    rng = np.random.default_rng(5)
    fresh = ledger(N, 2)
    wrong = fresh["net"] + (rng.random(N) < 0.2)
    return {
        "fresh": fresh,
        "shuffled": fresh.assign(width=rng.permutation(fresh["width"])),
        "copied": real.sample(frac=1, random_state=0),
        "dropped mode": fresh[fresh["height"] < 4],
        "noised": fresh.assign(height=fresh["height"] + rng.normal(0, 2, N)),
        "broken rules": fresh.assign(net=wrong, tax=rng.permutation(fresh["tax"])),
        "holes apart": fresh.assign(note=rng.permutation(fresh["note"])),
        "independent": independent_columns(real).assign(key=fresh["key"]),
        "leaked key": fresh.assign(key=real["key"].to_numpy()),
    }


@pytest.fixture(scope="module")
def reports(real, holdout, faults):
    names = ("fresh", "broken rules", "independent")
    return {k: evaluate(real, faults[k], holdout=holdout, target="good").named(k) for k in names}


MEASURES = {
    "shape_error": lambda real, rows, _: shape_error(real, rows),
    "trend_error": lambda real, rows, _: trend_error(real, rows),
    "trivariate_error": lambda real, rows, _: trivariate_error(real, rows),
    "wnmis": lambda real, rows, _: 1 - wnmis(real, rows),
    "missingness_error": lambda real, rows, _: missingness_error(real, rows),
    "pattern_error": lambda real, rows, _: pattern_error(real, rows),
    "c2st": lambda real, rows, _: 1 - c2st(real, rows),
    "lr_c2st": lambda real, rows, _: 1 - lr_c2st(real, rows),
    "rules_broken": lambda real, rows, _: rules_broken(real, rows),
    "copied_keys": lambda real, rows, _: copied_keys(real, rows),
    "global_utility": lambda _, rows, held: 1 - global_utility(rows, held),
    "downstream": lambda _, rows, held: 1 - downstream_score(rows, held, "good"),
    "nearest_neighbour_ratio": lambda real, rows, held: abs(1 - nearest_neighbour_ratio(real, rows, held)),
    "dcr_share": lambda real, rows, held: abs(50 - dcr_share(real, rows, held)) / 50,
}
# What is broken, and the figures that are meant for it.
CAUGHT = [
    ("shuffled", ["trend_error", "wnmis", "c2st", "trivariate_error"]),
    ("copied", ["nearest_neighbour_ratio", "dcr_share", "copied_keys"]),
    ("dropped mode", ["shape_error", "c2st", "lr_c2st"]),
    ("noised", ["c2st"]),
    ("broken rules", ["rules_broken", "c2st"]),
    ("holes apart", ["missingness_error", "pattern_error"]),
    ("independent", ["trend_error", "c2st", "wnmis", "global_utility", "downstream", "rules_broken"]),
    ("leaked key", ["copied_keys"]),
]


@pytest.fixture(scope="module")
def measured():
    return {}


@pytest.mark.parametrize(("fault", "metrics"), CAUGHT, ids=[fault for fault, _ in CAUGHT])
def test_each_fault_is_caught_by_the_figures_meant_for_it(faults, real, holdout, measured, fault, metrics):
    def measure(metric, rows):
        frames = [real, rows, holdout]
        if metric not in ("copied_keys", "rules_broken"):
            frames = [frame.drop(columns="key") for frame in frames]
        return MEASURES[metric](*frames)

    for metric in metrics:
        if metric not in measured:
            measured[metric] = measure(metric, faults["fresh"])
        assert measure(metric, faults[fault]) > 1.1 * measured[metric] + 0.01, metric


def test_identical_rows_score_best_in_every_figure_of_fidelity(real):
    again = real.sample(frac=1, random_state=1)
    zero = ("shape_error", "trend_error", "trivariate_error", "wnmis", "missingness_error", "pattern_error")
    for metric in (*zero, "rules_broken"):
        assert MEASURES[metric](real, again, None) == pytest.approx(0, abs=1e-9), metric
    assert c2st(real, again) > 0.9


@pytest.mark.slow
def test_fresh_rows_score_like_the_floor(reports):
    scores = reports["fresh"].to_frame().set_index("metric")
    for metric, row in scores.iterrows():
        if metric == "dcr_share":
            continue
        ends = [distance_from_best(row[c], row["better"], row["floor"]) for c in ("synthetic", "low", "high")]
        # As far from the floor as so few rows may be by chance.
        assert min(ends) < (0.08 if MEANINGS[metric].high == 1 else 4.0), metric


@pytest.mark.slow
def test_copies_pass_the_classifier_and_no_figure_of_copying(real, holdout):
    few = ["height", "width", "good"]
    report = evaluate(real[few], real[few].sample(frac=1, random_state=0), holdout=holdout[few])
    scores = report.to_frame().set_index("metric")
    assert scores.loc["c2st", "synthetic"] > 0.95
    assert scores.loc["nearest_neighbour_ratio", "high"] < 0.1
    assert any("too near to training rows" in finding for finding in report.findings)


@pytest.mark.slow
def test_what_gives_rows_away_is_named(reports, real, faults):
    broken = reports["broken rules"].details
    assert set(broken["rules"]["rule"][:2]) == {"debit = credit + net", "region determines tax"}
    assert broken["rules"]["synthetic"][0] > 15 and (broken["rules"]["floor"] < 0.5).all()
    assert any("break a rule" in finding for finding in reports["broken rules"].findings)
    real, shuffled = (frame.drop(columns="key") for frame in (real, faults["shuffled"]))
    found = two_sample(real, shuffled)
    columns = telling_columns(found, real)
    assert set(columns["column"][:2]) == {"width", "height"}
    pairs = telling_pairs(found, real, columns)
    assert set(pairs.loc[0, ["first", "second"]]) == {"width", "height"}
    rows = telling_rows(found, real, shuffled)
    assert rows["by"].isin(["width", "height", "good"]).mean() >= 0.7
    assert (rows["probability"] > 0.9).all() and (rows["width"] == shuffled["width"][rows.index]).all()


def test_rules_that_chance_gives_are_none():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(500, 4)), columns=list("abcd")).assign(k=rng.choice(list("uvw"), 500))
    assert find_rules(table) == []
    assert np.isnan(rules_broken(table, table))
    assert np.isnan(copied_keys(table, table))


def test_declared_rules_are_checked_and_their_names_too():
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0, 2.0]})
    assert rules_broken(table, table, constraints=["a <= b"]) == pytest.approx(100 / 3)
    with pytest.raises(ValueError, match="must name columns of numbers or dates; got 'c'"):
        rules_broken(table, table, constraints=["c <= b"])


@pytest.mark.slow
def test_a_model_adds_rows_that_were_given_in_part_and_its_constraints():
    penguins = load_penguins().dropna().reset_index(drop=True).drop(columns="year")
    gen = DiffusionGenerator(max_steps=20, refine=False, random_state=0).fit(penguins)
    report = evaluate(penguins, gen.sample(150), model=gen)
    scores = report.to_frame().set_index("metric")["synthetic"]
    given = [scores[f"c2st ({share} % of cells given)"] for share in (25, 50, 75)]
    assert given[0] < given[2] and all(0 <= value <= 1 for value in given)
    images = DiffusionGenerator(max_steps=1, random_state=0).fit(np.random.default_rng(0).random((30, 4, 4)))
    with pytest.raises(TypeError, match="model= is for tables"):
        evaluate(penguins, penguins, model=images)


def test_compare_ranks_and_refuses_other_data(reports, real):
    table = compare([reports[name] for name in ("independent", "fresh", "broken rules")])
    assert table.index[0] == "fresh"
    assert table["rank"].is_monotonic_increasing and "c2st" in table
    few = ["height", "width"]
    other = evaluate(real[few][:60], real[few][60:120])
    with pytest.raises(ValueError, match="2 real data sets"):
        compare([reports["fresh"], other])
    with pytest.raises(ValueError, match="at least one report"):
        compare([])


def test_a_report_is_plain_data_too(reports):
    found = json.loads(json.dumps(reports["fresh"].to_dict()))
    assert found["kind"] == "table" and found["scores"][0]["metric"] == "shape_error"
    assert set(found["details"]) == set(reports["fresh"].details)
    assert "c2st" in repr(reports["fresh"]) and "meaning" not in repr(reports["fresh"])


@pytest.mark.slow
def test_sequences():
    rng = np.random.default_rng(0)

    def draw(n):
        first = rng.choice(list("ACGT"), (n, 1), p=[0.4, 0.3, 0.2, 0.1])
        rest = np.where(rng.random((n, 7)) < 0.7, first, rng.choice(list("ACGT"), (n, 7)))
        return ["".join(row)[: rng.integers(5, 9)] for row in np.hstack([first, rest])]

    real, fresh, held = draw(400), draw(400), draw(400)
    shuffled = ["".join(rng.permutation(list(text))[: len(text)]) for text in draw(400)]
    independent = ["".join(rng.choice(list("ACGT"), 8)) for _ in range(400)]
    good, bad, copied = (
        evaluate(real, x, holdout=held).to_frame().set_index("metric") for x in (fresh, independent, real)
    )
    for metric in ("length_error", "position_error", "kmer_error", "pair_error", "c2st"):
        assert abs(good.loc[metric, "synthetic"] - good.loc[metric, "floor"]) < abs(
            bad.loc[metric, "synthetic"] - bad.loc[metric, "floor"]
        ), metric
    assert copied.loc["copied_sequences", "synthetic"] == 100 > copied.loc["copied_sequences", "floor"]
    assert len(shuffled) == 400
    with pytest.raises(TypeError, match="target= is not for sequences"):
        evaluate(real, fresh, target="x")


# ------------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """What a page holds: tags, texts for pictures, and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.alts, self.addresses, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.alts.append(found.get("alt", ""))
        self.addresses += [v for k, v in found.items() if k in ("src", "srcset", "href", "action")]
        if tag not in ("meta", "img", "link", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_is_whole_small_and_asks_for_nothing(reports, tmp_path):
    pytest.importorskip("matplotlib")
    report = reports["broken rules"]
    text = report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    assert len(text.encode()) < 3_000_000
    page = Page(text)
    assert page.open == []
    assert len(page.alts) >= 4 and all(len(alt) > 20 for alt in page.alts)
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|https?:", text)
    assert sorted(report.figures) == sorted(report.drawings)
    assert report._repr_html_().startswith("<style>")


@pytest.mark.slow
def test_the_page_escapes_what_the_data_say():
    bad = "<script>alert(1)</script>"
    frame = pd.DataFrame({bad: ["<b>", "x"] * 30, "v": np.arange(60.0) % 7})
    text = evaluate(frame, frame.sample(frac=1, random_state=0)).to_html()
    assert bad not in text and "&lt;script&gt;alert(1)" in text and "<b>&lt;" not in text


CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_opens_in_a_browser_without_errors_and_sorts(reports, tmp_path):
    text = reports["broken rules"].to_html()
    probe = """<script>
    window.onerror = function (m) { document.title = "ERROR " + m; };
    var button = document.querySelectorAll("table.scores th button")[1];
    button.click();
    var values = Array.from(document.querySelectorAll("table.scores tbody tr")).map(
      function (row) { return parseFloat(row.cells[1].dataset.value); });
    var sorted = values.every(function (v, i) { return i === 0 || !(v > values[i - 1]); });
    var asked = performance.getEntriesByType("resource").filter(
      function (e) { return e.name.indexOf("data:") !== 0; }).length;
    document.title = document.title.indexOf("ERROR") === 0 ? document.title : "sorted " + sorted + " asked " + asked;
    </script></body>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", probe), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'page.html'}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert "<title>sorted true asked 0</title>" in done.stdout
    assert "CONSOLE" not in done.stderr
