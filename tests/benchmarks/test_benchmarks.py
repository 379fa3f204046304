import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """Import a module beside the benchmark scripts, as they do when they run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.slow
@pytest.mark.parametrize("script", ["tables.py", "forest.py", "images.py"])
def test_each_script_says_how_it_is_used(script):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--threads" in done.stdout and "--max-time" in done.stdout


@pytest.mark.slow
def test_quality_and_speed_are_printed_a_line_a_run():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "quality_speed.py"), "--table"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = (BENCHMARKS / "results" / "quality_speed.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(done.stdout.splitlines()) == 2 + len(rows) and "| adult | 240 | before | 512 × 4 |" in done.stdout


def test_what_the_ablation_changes_is_there_to_be_changed(benchmark_module):
    ablation = benchmark_module("ablation")
    for _, _, change in (variant for variants in ablation.VARIANTS.values() for variant in variants.values()):
        if change is not None:
            with change():
                pass


def places(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    city = rng.integers(20, size=n)
    frame = pd.DataFrame(
        {
            "city": pd.Categorical([f"c{i}" for i in city]),
            "country": pd.Categorical([f"k{i % 4}" for i in city]),
            "id": np.arange(n),
            "constant": 1,
            "rare": city == 99,
            "x": rng.normal(size=n),
        }
    )
    frame.loc[city == 3, "country"] = np.nan  # a missing value is a value
    frame.loc[city == 5, "rare"] = True
    return frame


def test_dependencies_are_found_where_rows_could_break_them(benchmark_module):
    metrics = benchmark_module("table_metrics")
    found = metrics.find_dependencies(places())
    assert found == [("city", "country"), ("city", "rare")]


def test_repeated_rows_are_no_evidence_of_a_dependency(benchmark_module):
    metrics = benchmark_module("table_metrics")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=500), "b": rng.integers(5, size=500)})
    assert metrics.find_dependencies(pd.concat([frame, frame, frame], ignore_index=True)) == []


def test_broken_rows_counts_each_row_once_and_leaves_unknown_values_alone(benchmark_module):
    metrics = benchmark_module("table_metrics")
    frame = places()
    dependencies = [("city", "country"), ("city", "rare")]
    assert metrics.broken_rows(frame, frame, dependencies) == 0
    rows = pd.DataFrame(
        {
            "city": ["c1", "c1", "c1", "c3", "c3", "new"],
            "country": ["k1", "k2", "k2", None, "k3", "k0"],
            "rare": [False, False, True, False, False, True],
        }
    )
    assert metrics.broken_rows(frame, rows, dependencies) == 3


def test_copula_keeps_marginals_and_rank_correlation(benchmark_module):
    peers = benchmark_module("peers")
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 2)) @ np.array([[1, 0.8], [0, 0.6]])
    frame = pd.DataFrame(
        {
            "a": np.exp(z[:, 0]),
            "b": np.round(z[:, 1] * 3).astype("int64"),
            "c": pd.Categorical(np.where(z[:, 0] > 1, "rare", "common")),
        }
    )
    frame["spike"] = np.where(np.arange(4000) % 10 == 0, -100.0, rng.normal(size=4000))
    frame["hole"] = frame["a"].mask(rng.random(4000) < 0.25)
    sample, _ = peers.fit_copula(frame, peers.Budget(seed=0, max_time=1, threads=1))
    rows = sample(4000)
    assert list(rows.dtypes) == list(frame.dtypes)
    for name in frame:
        assert set(rows[name].dropna()) <= set(frame[name].dropna())
    assert abs(rows["hole"].isna().mean() - 0.25) < 0.03
    assert abs((rows["spike"] == -100).mean() - 0.1) < 0.02
    assert abs((rows["c"] == "rare").mean() - (frame["c"] == "rare").mean()) < 0.02
    gap = rows[["a", "b"]].corr("spearman") - frame[["a", "b"]].corr("spearman")
    assert gap.abs().max(axis=None) < 0.06
    again, _ = peers.fit_copula(frame, peers.Budget(seed=0, max_time=1, threads=1))
    pd.testing.assert_frame_equal(again(4000), rows)


def test_smote_interpolates_between_rows_and_keeps_holes_and_levels(benchmark_module):
    peers = benchmark_module("peers")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=300), "c": pd.Categorical(rng.choice([1, 2, 3], size=300))})
    frame["a2"] = (2 * frame["a"]).mask(rng.random(300) < 0.2)
    frame.loc[:20, "c"] = np.nan
    sample, _ = peers.fit_smote(frame, peers.Budget(seed=0, max_time=1, threads=1))
    rows = peers.restore(sample(500), frame)
    assert list(rows.dtypes) == list(frame.dtypes)
    assert rows["a"].between(frame["a"].min(), frame["a"].max()).all()
    assert 0.1 < rows["a2"].isna().mean() < 0.3
    assert 0.02 < rows["c"].isna().mean() < 0.15
    assert not np.isin(rows["a"], frame["a"]).any()


@pytest.mark.parametrize("mechanism", ["mcar", "mar"])
def test_holes_have_their_share_and_mar_follows_one_whole_column(benchmark_module, mechanism):
    imputation = benchmark_module("imputation")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(8000, 6)), columns=list("abcdef"))
    holes = imputation.remove(frame, mechanism, seed=1)
    assert abs(holes.mean() - 0.3) < 0.01
    dependence = [
        max(abs(np.corrcoef(frame[name], holes[:, j])[0, 1]) for name in frame)
        for j in range(6)
        if holes[:, j].any() and not holes[:, j].all()
    ]
    if mechanism == "mar":
        assert (~holes.any(axis=0)).sum() == 1
        assert min(dependence) > 0.2
    else:
        assert max(dependence) < 0.05


def test_imputation_errors_are_one_for_the_mean_and_nought_for_the_truth(benchmark_module):
    imputation = benchmark_module("imputation")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=3000), "c": pd.Categorical(rng.choice(["a", "b", "c"], 3000, p=[0.6, 0.3, 0.1]))}
    )
    holes = imputation.remove(frame, "mcar", seed=0)
    punched = imputation.punch(frame, holes)
    assert (punched.isna().to_numpy() == holes).all()
    mean = imputation.SYSTEMS["mean_mode"](punched, None, 0)
    scores = imputation.measure(frame, holes, mean)
    assert abs(scores["error"] - 1) < 0.05 and scores["energy"] is None
    truth = imputation.Filled(frame, [frame, frame], {})
    scores = imputation.measure(frame, holes, truth)
    assert scores["error"] == 0 and abs(scores["energy"]) < 1e-6
    with pytest.raises(RuntimeError, match="holes are left"):
        imputation.measure(frame, holes, imputation.Filled(punched, [], {}))


@pytest.mark.slow
def test_a_system_in_its_own_process_returns_the_dtypes_and_says_what_it_took(tmp_path):
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"code": pd.Categorical(rng.choice([3, 7], 50)), "x": rng.normal(size=50), "n": np.arange(50)})
    frame.to_feather(tmp_path / "in.feather")
    files = ["--input", str(tmp_path / "in.feather"), "--output", str(tmp_path / "out.feather")]
    command = [sys.executable, str(BENCHMARKS / "peers.py"), "--system", "copula", "--n", "20", *files]
    subprocess.run(command, check=True)
    rows = pd.read_feather(tmp_path / "out.feather")
    assert len(rows) == 20 and list(rows.dtypes) == list(frame.dtypes)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["fit_seconds"] >= 0 and report["peak_rss_mb"] > 10 and "python" in report["versions"]


def test_a_result_takes_the_place_of_one_with_the_same_key(benchmark_module, tmp_path):
    harness = benchmark_module("harness")
    path = tmp_path / "results" / "x.jsonl"

    def key(row):
        return (row["a"],)

    for row in ({"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 1, "b": 3}):
        harness.write_result(path, row, key)
    assert harness.read_results(path) == [{"a": 1, "b": 3}, {"a": 2, "b": 2}]


def test_targets_are_met_or_not_by_the_means_over_seeds(benchmark_module):
    metrics = benchmark_module("table_metrics")
    common = {"device": "cpu", "table": "adult", "trend_error": 1.0, "dependencies": 1, "rows": 100}
    good = {"c2st_xgb": 0.95, "downstream": 0.9, "beta_recall": 0.5, "dcr_share": 50, "nearest_neighbour_ratio": 1}
    rows = [
        {**common, **good, "system": "tabdiff", "seed": 0, "shape_error": 1.0, "broken_rows": 0},
        {**common, **good, "system": "tabdiff", "seed": 1, "shape_error": 2.0, "broken_rows": 1},
        {**common, **good, "system": "bootstrap", "seed": 0, "shape_error": 1.0, "broken_rows": 0},
        {**common, **good, "system": "holdout", "seed": 0, "shape_error": 2.0, "broken_rows": 0},
    ]
    lines = metrics.targets(rows, "tabdiff")
    verdicts = {line.split(":")[0]: line.endswith(", met") for line in lines}
    not_met = [line for line, met in verdicts.items() if not met]
    assert len(lines) == 9 and [line[2:12] for line in not_met] == ["shape erro", "mean β-rec", "rows that "]
    text = metrics.tables(rows, ["adult"])
    assert "| tabdiff | 1.50 (1.00 to 2.00) | 1.50 |" in text


def test_the_tables_of_images_show_what_was_measured(benchmark_module):
    images = benchmark_module("images")
    sides = {side: dict.fromkeys(images.METRICS, value) for side, value in (("synthetic", 0.5), ("floor", 0.25))} | {
        "independent": {"frechet_distance": 8.0}
    }
    row = {
        **{"set": "digits", "seed": 0, "device": "cpu", "max_steps": None, "max_time": 60.0, "batch_size": None},
        **{"guidance_scale": 1.0, "training_steps": 10, "parameters": 1234, "fit_seconds": 5.0, "fit_cpu_seconds": 9.0},
        **{"threads": 2, "images": 100, "sample_seconds": 1.0, "sample_cpu_seconds": 2.0, "features": "a network"},
        **sides,
    }
    auto, *steps = [{**row, "method": m, "steps": s} for m, s in (("auto", "auto"), ("ddim", 10), ("ddim", 50))]
    text = images.tables([auto, *steps])
    assert "| Fréchet distance | 0.50 | 0.25 | 8.00 |" in text and "| class accuracy | 0.500 | 0.250 |  |" in text
    assert "1,234 parameters" in text and "at most 60 s" in text and "| ddim | 0.50 | 0.50 |" in text
    assert len({images.key(r) for r in (auto, *steps)}) == 3


def test_drawn_sequences_have_the_probabilities_that_are_called_exact(benchmark_module):
    sequences = benchmark_module("sequences")
    codes, labels = sequences.draw(40_000, 0)
    report = sequences.measure(codes, labels)
    assert report["z_rms"] < 1.4 and report["odd_lengths"] == 0
    for share in sequences.PAIRS.values():
        assert report[f"information_{share:g}"] == pytest.approx(1.0, abs=0.05)
    assert sequences.exact_frequencies().sum(1) == pytest.approx(np.ones(sequences.LENGTH))
    assert (sequences.to_codes(sequences.to_text(codes[:50])) == codes[:50]).all()


@pytest.mark.slow
def test_the_width_of_equal_parameters_is_one(benchmark_module):
    denoisers = benchmark_module("denoisers")
    width = denoisers.equal_width("digits", 0)
    gens = [
        denoisers.train_on("digits", {"max_steps": 1, "batch_size": 8, "random_state": 0, **p})
        for p in ({"denoiser": "dit"}, {"denoiser": "mlp", "hidden_size": width})
    ]
    transformer, mlp = (denoisers.n_weights(gen.denoiser_) for gen in gens)
    assert mlp == pytest.approx(transformer, rel=0.1)


@pytest.mark.slow
def test_the_speed_of_training_is_measured_beside_a_product():
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--quick", "--sections", "growth", "--seconds", "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Matrix product" in done.stdout and "| 128 | 6 | 10 | 64 |" in done.stdout


@pytest.mark.slow
def test_what_there_is_no_time_for_is_said():
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--quick", "--sections", "sampling", "--seconds", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "There was no time for:\nraw draws\nrefined rows" in done.stdout
