"""The report of a table: every figure beside the real floor and independent columns, and what gives the rows away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.evaluation import figures
from tabdiff.evaluation.classifiers import (
    TwoSample,
    lr_two_sample,
    published_two_sample,
    two_sample,
)
from tabdiff.evaluation.distances import coverage
from tabdiff.evaluation.frames import check_frames, draw_rows, is_numeric
from tabdiff.evaluation.intervals import Z, bootstrap, jackknife
from tabdiff.evaluation.joint import (
    missing_patterns,
    pattern_error,
    triple_errors,
    trivariate_error,
    wnmis,
)
from tabdiff.evaluation.meanings import MEANINGS
from tabdiff.evaluation.report import Drawing, Report, finish_scores
from tabdiff.evaluation.rules import Rule, broken_rules, copied_keys, find_rules, key_columns
from tabdiff.evaluation.table_measures import (
    GROUPS,
    Sides,
    measure_conditional,
    measure_downstream,
    measure_neighbours,
    measure_utility,
)
from tabdiff.evaluation.tables import (
    column_shape_errors,
    independent_columns,
    missingness_error,
    pair_trend_errors,
    shape_error,
    trend_error,
)
from tabdiff.evaluation.tells import telling_columns, telling_pairs, telling_rows
from tabdiff.utils.fingerprint import frame_digest

__all__ = ["evaluate_table"]

# Rows of each frame, where "auto" is asked for: of classifiers, of coverage, of the published pipeline, and of what
# grows with the number of pairs and triples of columns.
CLASSIFIER_ROWS, COVERAGE_ROWS, PUBLISHED_ROWS, MARGINAL_ROWS = 20_000, 10_000, 10_000, 50_000
# Of the published pipeline: its one-hot columns are dense.
MAX_ONE_HOT = 300
# A rule that so large a share of the holdout breaks was chance.
MAX_CHANCE = 0.1
PLOTTED_COLUMNS, PLOTTED_ROWS = 12, 2_000


def evaluate_table(
    real: Any,
    synthetic: Any,
    *,
    holdout: Any = None,
    target: Any = None,
    classifier: Callable[[], Any] | None = None,
    constraints: Sequence[str] = (),
    complete: Callable[[pd.DataFrame], Any] | None = None,
    max_rows: int | str | None = "auto",
    random_state: int | None = 0,
) -> Report:
    """Score a table; see `tabdiff.evaluate`."""
    if target is not None and holdout is None:
        raise ValueError("target= needs holdout=: the downstream score is tested on real rows that trained nothing.")
    given = {"real": real, "synthetic": synthetic} | ({} if holdout is None else {"holdout": holdout})
    real, synthetic, *rest = (frame.reset_index(drop=True) for frame in check_frames(**given))
    rng = np.random.default_rng(random_state)
    seed = int(rng.integers(2**31))
    held = rest[0] if rest else None
    rows = _limits(max_rows)
    independent = independent_columns(real, len(synthetic), random_state=seed)
    sides = Sides(real, {"synthetic": synthetic, "independent": independent}, rows, rng, seed)

    columns: dict[str, dict[str, float]] = {"synthetic": {}, "floor": {}, "independent": {}}
    intervals: dict[str, tuple[float, float]] = {}
    details: dict[str, pd.DataFrame] = {}
    drawings: dict[str, Drawing] = {}
    sizes: dict[str, str] = {"all figures": f"{len(real):,} real rows, {len(synthetic):,} synthetic"}
    if held is not None:
        sizes["all figures"] += f", {len(held):,} held out"

    rules, keys = _trusted_rules(real, held, constraints), key_columns(real)
    _rules_and_keys(sides, held, rules, keys, columns, intervals, details)
    if keys and len(keys) < real.shape[1]:
        # All of their values are new, as they should be: they would hide what else there is.
        sides = Sides(
            real.drop(columns=keys), {k: v.drop(columns=keys) for k, v in sides.others.items()}, rows, rng, seed
        )
        held = None if held is None else held.drop(columns=keys)
        sizes["identifiers"] = f"{', '.join(map(str, keys))}: in no figure but rules and copied keys"
    _marginal(sides, held, columns, intervals, details, sizes)
    found = _classifiers(sides, held, classifier, columns, intervals, sizes)
    _tell(found, sides, details, seed)
    measure_neighbours(sides, held, columns, intervals, drawings, sizes)
    measure_utility(sides, held, columns, intervals, details, sizes)
    if target is not None and held is not None:
        measure_downstream(sides, held, target, columns, intervals)
    if complete is not None:
        measure_conditional(sides, held, complete, columns, intervals, sizes)
    order = [m for m in MEANINGS if m in columns["synthetic"]]
    order += [m for m in columns["synthetic"] if m not in order]
    columns = {side: {m: values.get(m, np.nan) for m in order} for side, values in columns.items()}
    scores = finish_scores(columns, intervals)
    drawings = _drawings(sides, scores, details) | drawings
    return Report(
        "table",
        scores,
        details,
        _findings(scores, details),
        sizes,
        drawings,
        fingerprint=frame_digest(real),
    )


def _limits(max_rows: int | str | None) -> dict[str, int]:
    auto = {
        "classifiers": CLASSIFIER_ROWS,
        "coverage": COVERAGE_ROWS,
        "published": PUBLISHED_ROWS,
        "marginals": MARGINAL_ROWS,
    }
    if isinstance(max_rows, str):
        return auto
    everything = 2**62 if max_rows is None else max_rows
    return {name: everything if name != "marginals" else 2**62 for name in auto}


def _trusted_rules(real: pd.DataFrame, held: pd.DataFrame | None, constraints: Sequence[str]) -> list[Rule]:
    """Rules that real rows keep which did not help to find them."""
    if held is None:
        half = np.random.default_rng(0).permutation(len(real)) < max(int(0.8 * len(real)), 1)
        found, tested = real[half], real[~half]
    else:
        found, tested = real, held
    rules = find_rules(found, constraints)
    if not rules or not len(tested):
        return rules
    table, _ = broken_rules(found, tested, rules=rules)
    kept = (table[0] <= MAX_CHANCE) | (table["kind"] == "declared")
    return [rule for rule, good in zip(rules, kept, strict=True) if good]


def _marginal(
    sides: Sides,
    held: pd.DataFrame | None,
    columns: dict[str, dict[str, float]],
    intervals: dict[str, tuple[float, float]],
    details: dict[str, pd.DataFrame],
    sizes: dict[str, str],
) -> None:
    """Shapes, pairs, triples, mutual information and missing values."""
    real, rng, seed = sides.some(sides.real, "marginals"), sides.rng, sides.seed

    def cheap(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
        return {"shape_error": shape_error(a, b), "trend_error": trend_error(a, b)} | joint(a, b)

    def joint(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
        out: dict[str, float] = {}
        if a.shape[1] > 2:
            out["trivariate_error"] = trivariate_error(a, b, random_state=seed)
        if a.shape[1] > 1:
            out["wnmis"] = wnmis(a, b)
        out["missingness_error"] = missingness_error(a, b)
        if a.isna().any(axis=None) or b.isna().any(axis=None):
            out["pattern_error"] = pattern_error(a, b)
        return out

    floor = held if held is not None else real.iloc[rng.integers(len(real), size=len(sides.others["synthetic"]))]
    compared = {name: sides.some(frame, "marginals") for name, frame in {**sides.others, "floor": floor}.items()}
    shapes = {name: column_shape_errors(real, frame) for name, frame in compared.items()}
    pairs = {name: pair_trend_errors(real, frame).to_numpy() for name, frame in compared.items()}
    above = np.triu_indices(real.shape[1], 1)
    for name, frame in compared.items():
        trend = float(pairs[name][above].mean()) if real.shape[1] > 1 else np.nan
        columns[name] |= {"shape_error": float(shapes[name].mean()), "trend_error": trend}
        columns[name] |= joint(real, frame)
    synthetic = compared["synthetic"]
    errors = jackknife(
        lambda a, b: cheap(real.iloc[a], synthetic.iloc[b]), [len(real), len(synthetic)], rng, groups=GROUPS
    )
    for metric, error in errors.items():
        value = columns["synthetic"].get(metric, np.nan)
        intervals[metric] = (value - Z * error, value + Z * error)
    sizes["shapes, pairs and triples"] = f"{len(real):,} real rows, {len(synthetic):,} synthetic"
    sizes["intervals of shapes, pairs and triples"] = "leaving a tenth of at most 10,000 rows out, ten times"
    details["columns"] = pd.DataFrame(shapes)[["synthetic", "floor", "independent"]].rename_axis("column").reset_index()
    details["columns"] = details["columns"].sort_values("synthetic", ascending=False, ignore_index=True, kind="stable")
    if real.shape[1] > 1:
        details["pairs"] = _worst_pairs(real, pairs)
    if real.shape[1] > 2:
        details["triples"] = triple_errors(real, synthetic, random_state=seed).head(20)
    if "pattern_error" in columns["synthetic"]:
        details["missing"] = missing_patterns(real, synthetic)


def _rules_and_keys(
    sides: Sides,
    held: pd.DataFrame | None,
    rules: list[Rule],
    keys: list[Any],
    columns: dict[str, dict[str, float]],
    intervals: dict[str, tuple[float, float]],
    details: dict[str, pd.DataFrame],
) -> None:
    """Rules that real rows keep, and identifiers that are those of real rows."""
    synthetic, rng = sides.others["synthetic"], sides.rng
    compared = {**sides.others, "floor": sides.real if held is None else held}
    if rules:
        names = list(compared)
        table, masks = broken_rules(sides.real, *(compared[n] for n in names), rules=rules)
        details["rules"] = table.rename(columns=dict(enumerate(names)))[
            ["rule", "kind", "synthetic", "floor", "independent"]
        ]
        details["rules"] = details["rules"].sort_values("synthetic", ascending=False, ignore_index=True, kind="stable")
        for name, mask in zip(names, masks, strict=True):
            columns[name]["rules_broken"] = 100 * float(mask.mean())
            if name == "synthetic":
                intervals["rules_broken"] = bootstrap(lambda x: 100 * x.mean(), mask, rng=rng)
    if keys:
        for name, frame in compared.items():
            # Real rows share no key with themselves as the floor where there is no holdout.
            columns[name]["copied_keys"] = 0.0 if name == "floor" and held is None else copied_keys(sides.real, frame)
        share = columns["synthetic"]["copied_keys"] / 100
        half = 100 * Z * float(np.sqrt(share * (1 - share) / len(synthetic)))
        intervals["copied_keys"] = (100 * share - half, 100 * share + half)


def _worst_pairs(real: pd.DataFrame, errors: dict[str, np.ndarray], n: int = 20) -> pd.DataFrame:
    """The pairs of columns whose dependence is furthest off, from the errors (d, d) of each side."""
    i, j = np.triu_indices(real.shape[1], 1)
    order = np.argsort(-errors["synthetic"][i, j], kind="stable")[:n]
    i, j = i[order], j[order]
    found = {"first": real.columns[i], "second": real.columns[j]}
    return pd.DataFrame(found | {name: errors[name][i, j] for name in ("synthetic", "floor", "independent")})


def _classifiers(
    sides: Sides,
    held: pd.DataFrame | None,
    classifier: Callable[[], Any] | None,
    columns: dict[str, dict[str, float]],
    intervals: dict[str, tuple[float, float]],
    sizes: dict[str, str],
) -> tuple[TwoSample, pd.DataFrame, pd.DataFrame]:
    """The three classifier tests, and coverage. Returns what tells the synthetic rows, and the rows it was shown."""
    real, seed = sides.real, sides.seed
    shown: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
    one_hot = _one_hot_columns(real)
    for what in ("classifiers", "coverage", "published"):
        reference = sides.some(real, what)
        pairs = {name: (reference, sides.some(frame, what)) for name, frame in sides.others.items()}
        if held is not None:
            pairs["floor"] = (reference, sides.some(held, what))
        else:
            order = sides.rng.permutation(len(reference))
            half = len(order) // 2
            pairs["floor"] = (reference.iloc[order[:half]], reference.iloc[order[half:]])
        for name, (a, b) in pairs.items():
            if what == "classifiers":
                tests = {"c2st": two_sample(a, b, classifier=classifier, random_state=seed)}
                tests["lr_c2st"] = lr_two_sample(a, b, random_state=seed)
                if name == "synthetic":
                    found, shown[name] = tests["c2st"], (a, b)
            elif what == "published":
                n = min(len(a), len(b))
                # Its one-hot columns would fill the memory where there are many levels.
                tests = {"published_c2st": published_two_sample(a[:n], b[:n])} if one_hot <= MAX_ONE_HOT else {}
            else:
                tests = {}
                measured = coverage(a, b, random_state=seed)
                columns[name] |= {"alpha_precision": measured.precision, "beta_recall": measured.recall}
                if name == "synthetic":
                    intervals |= measured.intervals(sides.rng, 60)
            for metric, test in tests.items():
                columns[name][metric] = test.score
                if name == "synthetic":
                    intervals[metric] = test.interval(Z)
        sizes[
            {"classifiers": "C2ST, LR-C2ST", "coverage": "α-precision, β-recall", "published": "C2ST, published form"}[
                what
            ]
        ] = (
            f"{min(len(pairs['synthetic'][0]), len(pairs['synthetic'][1])):,} rows of either"
            if what != "published" or one_hot <= MAX_ONE_HOT
            else f"left out: {one_hot:,} one-hot columns"
        )
    return (found, *shown["synthetic"])


def _one_hot_columns(frame: pd.DataFrame) -> int:
    """Return how many columns the levels of a frame make in the published pipeline."""
    levels = [c for c in frame.columns if not is_numeric(frame[c]) and frame[c].dtype != bool]
    return sum(frame[c].nunique(dropna=False) for c in levels)


def _tell(
    found: tuple[TwoSample, pd.DataFrame, pd.DataFrame], sides: Sides, details: dict[str, pd.DataFrame], seed: int
) -> None:
    test, real, synthetic = found
    if not test.models:
        return
    telling = telling_columns(test, real, random_state=seed)
    details["columns"] = details["columns"].merge(telling, on="column", how="left")
    details["columns"] = details["columns"].sort_values(
        ["auc lost", "synthetic"], ascending=False, ignore_index=True, kind="stable"
    )
    pairs = telling_pairs(test, real, telling, random_state=seed)
    if len(pairs):
        details["telling pairs"] = pairs.head(20)
    details["rows"] = telling_rows(test, real, synthetic, random_state=seed)


# ------------------------------------------------------------------------------------------------ words and pictures


def _drawings(sides: Sides, scores: pd.DataFrame, details: dict[str, pd.DataFrame]) -> dict[str, Drawing]:
    real, synthetic = (
        frame.iloc[draw_rows(len(frame), PLOTTED_ROWS, sides.rng)] for frame in (sides.real, sides.others["synthetic"])
    )
    names = list(details["columns"]["column"][:PLOTTED_COLUMNS])
    out = {
        "scores": Drawing(
            figures.draw_scores,
            {"scores": scores},
            "Each figure on a line from independent columns (left) to real rows (right), with its interval.",
            (7.0, 0.8 + 0.26 * len(scores)),
        ),
        "columns": Drawing(
            figures.draw_columns,
            {"real": real[names], "synthetic": synthetic[names]},
            f"Distributions of {len(names)} columns, synthetic over real, the most telling columns first.",
            (7.0, 1.0 + 1.5 * -(-len(names) // 4)),
        ),
    }
    if real.shape[1] > 1:
        errors = pair_trend_errors(real[names], synthetic[names])
        out["pairs"] = Drawing(
            figures.draw_pairs,
            {"errors": errors},
            "Error of the dependence of each two of these columns, in percent; dark is large.",
            (6.0, 5.0),
        )
    if "auc lost" in details["columns"]:
        out["tells"] = Drawing(
            figures.draw_tells,
            {"columns": details["columns"].head(PLOTTED_COLUMNS)},
            "How much worse the classifier tells rows when a column is permuted, by column.",
            (7.0, 0.9 + 0.28 * len(names)),
        )
    return out


def _findings(scores: pd.DataFrame, details: dict[str, pd.DataFrame]) -> list[str]:
    by = scores.set_index("metric")
    out = []
    c2st = by.loc["c2st"]
    told = "can hardly be told from real ones" if c2st["high"] >= c2st["floor"] - 0.03 else "can be told from real ones"
    text = f"Synthetic rows {told} by a strong classifier: C2ST {c2st['synthetic']:.2f}, real rows {c2st['floor']:.2f}"
    out.append(f"{text}, independent columns {c2st['independent']:.2f} (1: never told, 0: always).")
    columns = details["columns"]
    if "auc lost" in columns and len(columns) and columns["auc lost"].iloc[0] > 0.01:
        top = columns[columns["auc lost"] > 0.01]["column"].head(3)
        out.append(f"They are told most by {', '.join(map(repr, top))}.")
    if "rules" in details:
        broken = details["rules"][details["rules"]["synthetic"] > details["rules"]["floor"] + 0.05]
        n = len(details["rules"])
        if len(broken):
            worst = broken.iloc[0]
            out.append(
                f"{by.loc['rules_broken', 'synthetic']:.1f} % of the rows break a rule that real rows keep; most often "
                f"'{worst['rule']}' ({worst['synthetic']:.1f} %)."
            )
        else:
            out.append(f"All {n} rules that were found in the real rows hold.")
    if "copied_keys" in by.index and by.loc["copied_keys", "synthetic"] > 0:
        out.append(f"{by.loc['copied_keys', 'synthetic']:.1f} % of the rows have the identifier of a real row.")
    if "nearest_neighbour_ratio" in by.index and by.loc["nearest_neighbour_ratio", "high"] < 0.9:
        ratio = by.loc["nearest_neighbour_ratio", "synthetic"]
        out.append(
            f"Rows lie too near to training rows: at {ratio:.2f} of the distance of unseen ones. Audit their privacy."
        )
    if "dcr_share" in by.index and by.loc["dcr_share", "low"] > 52:
        share = by.loc["dcr_share", "synthetic"]
        out.append(f"{share:.1f} % of the rows are nearer to training than to unseen rows (50 is right). Audit them.")
    for metric in ("downstream_auc", "downstream_r2"):
        if metric in by.index:
            row = by.loc[metric]
            out.append(
                f"A model learned on synthetic rows scores {row['synthetic']:.3f} on real ones, one learned on real "
                f"rows {row['floor']:.3f}."
            )
    return out
