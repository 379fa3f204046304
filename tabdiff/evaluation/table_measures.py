"""What the report of a table measures beyond shapes and classifiers: neighbours, utility, the target, imputation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.evaluation import figures
from tabdiff.evaluation.classifiers import two_sample
from tabdiff.evaluation.distances import gower_nearest, nearer_share, nearest_by_group
from tabdiff.evaluation.frames import check_frames, draw_rows, encode
from tabdiff.evaluation.intervals import Z, bootstrap, jackknife_error
from tabdiff.evaluation.joint import column_utilities
from tabdiff.evaluation.prediction import Downstream, downstream
from tabdiff.evaluation.report import Drawing
from tabdiff.evaluation.tables import independent_columns

__all__ = ["GROUPS", "Sides", "measure_conditional", "measure_downstream", "measure_neighbours", "measure_utility"]

# Differences of numbers that a search for neighbours may take, from which follows how many rows are searched from.
SEARCH_BUDGET, MIN_QUERIES = 3e9, 500
# Groups of rows, of which a jackknife leaves out one at a time.
GROUPS = 10
SHARES_GIVEN = (0.25, 0.5, 0.75)


@dataclass
class Sides:
    """What is compared with the real rows.

    Attributes
    ----------
    real : DataFrame
    others : dict of str to DataFrame
        By the name of their column.
    rows : dict of str to int
        Most rows, by what is measured.
    rng : numpy.random.Generator
    seed : int
    """

    real: pd.DataFrame
    others: dict[str, pd.DataFrame]
    rows: dict[str, int]
    rng: np.random.Generator
    seed: int

    def some(self, frame: pd.DataFrame, what: str) -> pd.DataFrame:
        """Draw so many rows as what is measured may take."""
        return frame.iloc[draw_rows(len(frame), self.rows[what], self.rng)]


def measure_neighbours(
    sides: Sides,
    held: pd.DataFrame | None,
    columns: dict[str, dict[str, float]],
    intervals: dict[str, tuple[float, float]],
    drawings: dict[str, Drawing],
    sizes: dict[str, str],
) -> None:
    """Distances to training and to unseen rows."""
    real, rng = sides.real, sides.rng
    d = real.shape[1]
    n_queries = int(min(max(SEARCH_BUDGET / (len(real) * d), MIN_QUERIES), sides.rows["classifiers"]))

    def few(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.iloc[draw_rows(len(frame), n_queries, rng)]

    queries = {name: few(frame) for name, frame in sides.others.items()}
    if held is not None:
        order = rng.permutation(len(held))
        half = max(len(order) // 2, 1)
        fresh, reference = few(held.iloc[order[:half]]), held.iloc[order[half:]] if len(order) > 1 else held
        names = [*queries, "floor"]
        frames = [*queries.values(), fresh, few(held), held, reference]
        encoded = encode(real, *frames)
        to_real = {name: gower_nearest(encoded[0], encoded[k + 1], encoded[0]) for k, name in enumerate(names)}
        unseen = gower_nearest(encoded[0], encoded[-3], encoded[0])
        for name in names:
            pool = encoded[-1] if name == "floor" else encoded[-2]
            n = min(len(real), len(pool))
            seen, other = (t.take(draw_rows(len(t), n, rng)) for t in (encoded[0], pool))
            query = encoded[names.index(name) + 1]
            groups = np.arange(n) % GROUPS
            near = [nearest_by_group(encoded[0], query, t, groups, GROUPS) for t in (seen, other)]
            columns[name]["dcr_share"] = nearer_share(near[0].min(axis=1), near[1].min(axis=1))
            if name == "synthetic":
                value = columns[name]["dcr_share"]
                error = _share_error(near[0], near[1])
                intervals["dcr_share"] = (value - Z * error, value + Z * error)
    else:
        names = list(queries)
        rows = draw_rows(len(real), n_queries, rng)
        encoded = encode(real, *queries.values())
        to_real = {name: gower_nearest(encoded[0], encoded[k + 1], encoded[0]) for k, name in enumerate(names)}
        if len(real) < 2:
            return
        # Without unseen rows, a row's nearest other row stands in.
        unseen = _to_others(encoded[0], rows)
        order = rng.permutation(len(real))
        one, other = encoded[0].take(order[: len(order) // 2]), encoded[0].take(order[len(order) // 2 :])
        fresh_rows = other.take(draw_rows(len(other), n_queries, rng))
        to_real["floor"] = gower_nearest(encoded[0], fresh_rows, one)
        floor_unseen = _to_others(one, draw_rows(len(one), n_queries, rng)) if len(one) > 1 else unseen
        columns["floor"]["nearest_neighbour_ratio"] = _ratio(to_real["floor"], floor_unseen)
    for name in to_real:
        if name != "floor" or held is not None:
            columns[name]["nearest_neighbour_ratio"] = _ratio(to_real[name], unseen)
    value = columns["synthetic"]["nearest_neighbour_ratio"]
    if np.isfinite(value) and np.median(unseen) > 0:
        intervals["nearest_neighbour_ratio"] = bootstrap(_ratio, to_real["synthetic"], unseen, rng=rng)
    sizes["distances"] = f"from {len(queries['synthetic']):,} rows to all {len(real):,} real rows"
    drawings["neighbours"] = Drawing(
        figures.draw_neighbours,
        {"synthetic": to_real["synthetic"], "unseen": unseen, "independent": to_real["independent"]},
        "Distribution of the distance to the nearest training row: synthetic rows beside unseen real rows and "
        "independent columns. Synthetic rows that lie to the left of the unseen ones are copies.",
    )


def _to_others(table: Any, rows: np.ndarray) -> np.ndarray:
    """Distance of rows to the nearest other row of their own table."""
    half = np.full(len(rows), np.inf)
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 500)):
        chosen = rows[part]
        rest = np.setdiff1d(np.arange(len(table)), chosen)
        block = (
            gower_nearest(table, table.take(chosen), table.take(rest)) if len(rest) else np.full(len(chosen), np.inf)
        )
        if len(chosen) > 1:
            block = np.minimum(block, gower_nearest(table, table.take(chosen), table.take(chosen), exclude_self=True))
        half[part] = block
    return half


def _ratio(ours: np.ndarray, fresh: np.ndarray) -> float:
    below, above = float(np.median(fresh)), float(np.median(ours))
    if below == 0:
        return 1.0 if above == 0 else float("inf")
    return above / below


def _share_error(to_real: np.ndarray, to_holdout: np.ndarray) -> float:
    """Standard error of the share of nearer rows: leaving a tenth of queries and of both references out at once."""
    n_groups = to_real.shape[1]
    part = np.arange(len(to_real)) % n_groups
    values = []
    for g in range(n_groups):
        rest = np.arange(n_groups) != g
        rows = part != g
        values.append([nearer_share(to_real[rows][:, rest].min(axis=1), to_holdout[rows][:, rest].min(axis=1))])
    return float(jackknife_error(np.array(values))[0])


def measure_utility(
    sides: Sides,
    held: pd.DataFrame | None,
    columns: dict[str, dict[str, float]],
    intervals: dict[str, tuple[float, float]],
    details: dict[str, pd.DataFrame],
    sizes: dict[str, str],
) -> None:
    """Every column predicted from the others."""
    real, seed = sides.real, sides.seed
    if real.shape[1] < 2 or len(real) < 4:
        return
    if held is None:
        order = sides.rng.permutation(len(real))
        train, test = real.iloc[order[: len(order) // 2]], real.iloc[order[len(order) // 2 :]]
    else:
        train, test = real, held
    frames = {**sides.others, "floor": train}
    # Equal sizes, for what is learned grows with them.
    n = min(len(frame) for frame in frames.values())
    found = {name: column_utilities(frame[:n], test, random_state=seed) for name, frame in frames.items()}
    table = pd.DataFrame(found)[["synthetic", "floor", "independent"]].rename_axis("column").reset_index()
    if not len(table):
        return
    table["lost"] = table["floor"] - table["synthetic"]
    details["utility"] = table.sort_values("lost", ascending=False, ignore_index=True, kind="stable")
    for name in found:
        columns[name]["global_utility"] = float(found[name].mean())
    error = float(table["lost"].std(ddof=1) / np.sqrt(len(table))) if len(table) > 1 else np.nan
    value = columns["synthetic"]["global_utility"]
    intervals["global_utility"] = (value - Z * error, value + Z * error)
    sizes["global utility"] = (
        f"{len(table)} columns, at most 4,000 rows to learn from and to test on; the interval is over columns"
    )


def measure_downstream(
    sides: Sides,
    held: pd.DataFrame,
    target: Any,
    columns: dict[str, dict[str, float]],
    intervals: dict[str, tuple[float, float]],
) -> None:
    """A model of the target, learned on each side and tested on unseen rows."""
    frames = {**sides.others, "floor": sides.real}
    for name, frame in frames.items():
        found = downstream(frame, held, target, random_state=sides.seed)
        measures: dict[str, Callable[[Downstream], float]] = (
            {"downstream_r2": Downstream.score, "downstream_rmse": Downstream.rmse}
            if found.numeric
            else {"downstream_auc": Downstream.score, "downstream_calibration": Downstream.calibration_error}
        )
        for metric, measure in measures.items():
            columns[name][metric] = measure(found)
            if name == "synthetic":

                def again(rows: np.ndarray, found: Downstream = found, measure: Any = measure) -> float:
                    part = found.take(rows)
                    return measure(part) if found.numeric or len(np.unique(part.y)) > 1 else np.nan

                rows = np.arange(len(found.y))
                values = [again(rows[sides.rng.integers(len(rows), size=len(rows))]) for _ in range(40)]
                error = float(np.nanstd(values))
                intervals[metric] = (columns[name][metric] - Z * error, columns[name][metric] + Z * error)


def measure_conditional(
    sides: Sides,
    held: pd.DataFrame | None,
    complete: Callable[[pd.DataFrame], Any],
    columns: dict[str, dict[str, float]],
    intervals: dict[str, tuple[float, float]],
    sizes: dict[str, str],
) -> None:
    """Real rows of which a share of the cells is hidden and filled again, against real rows."""
    source = held if held is not None else sides.real
    rows = source.iloc[draw_rows(len(source), 1_000, sides.rng)].reset_index(drop=True)
    reference = sides.real.iloc[draw_rows(len(sides.real), len(rows), sides.rng)].reset_index(drop=True)
    for share in SHARES_GIVEN:
        hidden = sides.rng.random(rows.shape) >= share
        metric = f"c2st ({100 * share:.0f} % of cells given)"
        baseline = independent_columns(sides.real, len(rows), random_state=sides.seed)
        filled = complete(rows.mask(hidden))
        test = two_sample(reference, check_frames(real=reference, filled=filled)[1], random_state=sides.seed)
        columns["synthetic"][metric], intervals[metric] = test.score, test.interval(Z)
        columns["floor"][metric] = two_sample(reference, rows, random_state=sides.seed).score
        mixed = rows.where(~hidden, baseline)
        columns["independent"][metric] = two_sample(reference, mixed.astype(rows.dtypes), random_state=sides.seed).score
    sizes["C2ST by share of cells given"] = f"{len(rows):,} real rows whose hidden cells are filled again"
