"""Conditions that were left out of the fit: how far is the mean profile of cells drawn there from the real one.

A profile is the mean of log-normalised expression (counts per 10,000, log1p) over cells. The cells of the held-out
condition are split in half, 20 times: each prediction is compared with the profile of one half, and the floor is that
of the other half. The error is the root mean square over genes, or over the 50 genes whose profile at the held-out
condition differs most from the fitted cells' of the group; where a condition has groups, their mean weighted by cells.

- nearest: the profile of the seen condition that is nearest to the truth, with hindsight, among those that differ in
  one attribute by one step: the next dose or time of the group below and above; the same type without the stimulus,
  and the other types with it.
- shift: of the next dose or time below and above, the line between their profiles (linear in time, in log(1 + dose /
  smallest dose)); for a combination, the type's profile without the stimulus plus what the stimulus changes in the
  other types, weighted by the smaller of their numbers of cells, and never below zero.
- direction: of the genes that the held-out condition changes significantly from the fitted cells of the group (Welch's
  test, Benjamini-Hochberg at 5 %), the share that a prediction moves to the right side of these.
- tabdiff: 5,000 cells or a few more, drawn with the labels of the held-out cells.

The floor is from half as many cells as there are, so a smooth prediction can be below it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cell_data import load_set
from cell_runs import draw_cells, job, key, may_run
from harness import data_loader, measured, provenance, read_results, write_result
from scipy import stats

from tabdiff.evaluation.cells import log_normalize

SYSTEMS = ("holdout", "nearest", "shift", "tabdiff")
# Fewest held-out cells of a group, and fewest cells of a neighbour, that a profile is taken of.
MIN_HELD, MIN_CELLS = 20, 10
# Enough cells that their own noise is small beside that of the held-out ones.
TOP_GENES, N_DRAWN, REPEATS = 50, 5000, 20


@dataclass(frozen=True)
class Task:
    """A condition to leave out.

    Parameters
    ----------
    data : str
        The set.
    by : tuple of str
        Conditions of the fit.
    held : dict
        Columns of obs and the value that the cells left out have there.
    number : str, optional
        The continuous condition, of which the held column has the steps. None: the held columns are a combination, the
        first the group and the second the stimulus.
    log : bool
        Whether its scale is logarithmic.
    genes : int, optional
        How many of the most variable genes are taken; None takes those of the set.
    """

    data: str
    by: tuple[str, ...]
    held: dict[str, str]
    number: str | None = None
    log: bool = False
    genes: int | None = None

    @property
    def groups(self) -> list[str]:
        return [name for name in self.by if self.number is not None and name != self.number]


TASKS = {
    **{
        f"A549 at dose {dose}": Task("sciplex_a549_dex", ("dose",), {"dose_level": dose}, "dose", log=True)
        for dose in ("5.0", "50.0")
    },
    **{
        f"embryo at {time} min": Task(
            "celegans_embryo_neurons", ("cell_type", "embryo_time"), {"embryo_time_bin": time}, "embryo_time"
        )
        for time in ("390-450", "510-580")
    },
    **{
        f"{label}, stimulated": Task("kang_ifnb", ("cell_type", "condition"), {"cell_type": label, "condition": "stim"})
        for label in ("CD14+ Monocytes", "B cells")
    },
    # A fifth of the fit's time.
    **{
        f"{label}, stimulated, 2,000 genes": Task(
            "kang_ifnb", ("cell_type", "condition"), {"cell_type": label, "condition": "stim"}, genes=2000
        )
        for label in ("CD14+ Monocytes", "B cells")
    },
}


@dataclass
class Group:
    """One profile to predict.

    Attributes
    ----------
    held : array (n, n_genes)
        Log-normalised cells of the held-out condition.
    seen : array (n_genes,)
        Profile of the group's fitted cells.
    neighbours : list of array (n_genes,)
        Profiles of the seen conditions next to it.
    shift : array (n_genes,)
        Profile by the mean-shift rule.
    label : str
        Of the group.
    variance : array (n_genes,), optional
        Of the mean of `seen`; without it nothing is significant.
    """

    held: np.ndarray
    seen: np.ndarray
    neighbours: list[np.ndarray]
    shift: np.ndarray
    label: str
    variance: np.ndarray | None = None

    def significant(self) -> np.ndarray:
        """Genes that differ between the held-out and the fitted cells."""
        if self.variance is None:
            return np.empty(0, dtype=np.int64)
        error = np.sqrt(self.held.var(axis=0) / len(self.held) + self.variance)
        p = 2 * stats.norm.sf(np.abs(self.held.mean(axis=0) - self.seen) / np.maximum(error, 1e-12))
        return np.flatnonzero(stats.false_discovery_control(p) < 0.05)


def group_labels(obs: pd.DataFrame, columns: list[str]) -> np.ndarray:
    if not columns:
        return np.full(len(obs), "all")
    return np.asarray(obs[columns].astype(str).agg(" / ".join, axis=1))


def held_mask(task: Task, obs: pd.DataFrame) -> np.ndarray:
    mask = np.ones(len(obs), dtype=bool)
    for name, value in task.held.items():
        mask &= np.asarray(obs[name].astype(str) == value)
    return mask


def number_groups(task: Task, obs: pd.DataFrame, x: np.ndarray, held: np.ndarray) -> list[Group]:
    """Groups of a task with a continuous condition: a profile for each class of the other conditions."""
    assert task.number is not None
    steps = obs[next(iter(task.held))].astype(str).to_numpy()
    number = obs[task.number].to_numpy(dtype=float)
    if task.log:
        number = np.log1p(number / number[number > 0].min())
    labels = group_labels(obs, task.groups)
    groups = []
    for label in np.unique(labels):
        own, seen = held & (labels == label), ~held & (labels == label)
        if own.sum() < MIN_HELD:
            continue
        middle = number[own].mean()
        places = {s: (number[seen & (steps == s)].mean(), seen & (steps == s)) for s in np.unique(steps[seen])}
        usable = [(place, rows) for place, rows in places.values() if rows.sum() >= MIN_CELLS]
        below = max((p for p in usable if p[0] < middle), key=lambda p: p[0], default=None)
        above = min((p for p in usable if p[0] >= middle), key=lambda p: p[0], default=None)
        near = [(place, x[rows].mean(axis=0)) for place, rows in filter(None, (below, above))]
        if not near:
            continue
        weight = (middle - near[0][0]) / (near[-1][0] - near[0][0]) if len(near) == 2 else 0.0
        shift = (1 - weight) * near[0][1] + weight * near[-1][1]
        variance = x[seen].var(axis=0) / seen.sum()
        nearby = [profile for _, profile in near]
        groups.append(Group(x[own], x[seen].mean(axis=0), nearby, shift, str(label), variance))
    return groups


def combination_group(task: Task, obs: pd.DataFrame, x: np.ndarray, held: np.ndarray) -> Group:
    (group, label), (stimulus, value) = task.held.items()
    types, given = obs[group].astype(str).to_numpy(), obs[stimulus].astype(str).to_numpy()

    def rows(one: str, stimulated: bool) -> np.ndarray:
        return ~held & (types == one) & ((given == value) == stimulated)

    without = x[rows(label, False)].mean(axis=0)
    neighbours, changes, weights = [without], [], []
    for other in np.unique(types[types != label]):
        n = [int(rows(other, s).sum()) for s in (False, True)]
        if n[1] >= MIN_CELLS:
            neighbours.append(x[rows(other, True)].mean(axis=0))
        if min(n) >= MIN_CELLS:
            changes.append(x[rows(other, True)].mean(axis=0) - x[rows(other, False)].mean(axis=0))
            weights.append(min(n))
    shift = np.maximum(without + np.average(changes, axis=0, weights=weights), 0.0)
    seen = x[~held & (types == label)]
    return Group(x[held], seen.mean(axis=0), neighbours, shift, label, seen.var(axis=0) / len(seen))


def errors(groups: list[Group], predictions: list[list[np.ndarray]] | None, seed: int) -> dict[str, float]:
    """Root mean square errors of the predicted profiles; None predicts each half by the other.

    Of several predictions for a group, that with the smaller error counts.
    """
    rng = np.random.default_rng(seed)
    total = {"rmse": 0.0, "rmse_top": 0.0}
    right: list[np.ndarray] = []
    for i, one in enumerate(groups):
        changed = one.significant()
        true = np.sign(one.held.mean(axis=0) - one.seen)[changed]
        sides: list[list[np.ndarray]] = []
        top = np.argsort(-np.abs(one.held.mean(axis=0) - one.seen))[:TOP_GENES]
        found: list[list[tuple[float, float]]] = []
        for _ in range(REPEATS):
            order = rng.permutation(len(one.held))
            half, other = (one.held[rows].mean(axis=0) for rows in np.array_split(order, 2))
            tried = [other] if predictions is None else predictions[i]
            squares = [(half - profile) ** 2 for profile in tried]
            found.append([(float(np.sqrt(s.mean())), float(np.sqrt(s[top].mean()))) for s in squares])
            sides.append([np.sign(profile - one.seen)[changed] == true for profile in tried])
        mean = np.mean(found, axis=0)
        best = mean[np.argmin(mean[:, 0])]
        right.append(np.mean([side[int(np.argmin(mean[:, 0]))] for side in sides], axis=0))
        total["rmse"] += float(best[0]) * len(one.held)
        total["rmse_top"] += float(best[1]) * len(one.held)
    n = sum(len(one.held) for one in groups)
    report = {name: value / n for name, value in total.items()}
    of_all = np.concatenate(right)
    return {**report, "direction": float(of_all.mean())} if len(of_all) else report


def run_held_out(args: argparse.Namespace, path: Path) -> None:
    """Run what is missing from the results."""
    loader = data_loader()
    done = {key(row) for row in read_results(path) if not (args.retry and "failed" in row)}
    systems = [s for s in SYSTEMS if s != "tabdiff" or s in args.systems]
    for name in args.tasks:
        task, adata, x = TASKS[name], None, np.empty(0)
        for seed in args.seeds:
            for system in systems:
                row = job(name, system, seed, args)
                if not may_run(row, done, args):
                    continue
                if adata is None:
                    adata = load_set(loader, task.data, args.genes or task.genes)
                    x = log_normalize(adata).astype(np.float64)
                row = {**row, **measure(task, adata, x, row, args)}
                write_result(path, row, key)
                shown = row.get("failed") or f"rmse {row['rmse']:.4g}, top genes {row['rmse_top']:.4g}"
                print(f"{name} {system} seed {seed}: {shown}", flush=True)


def measure(task: Task, adata: Any, x: np.ndarray, row: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Errors of one system, fitted without the held-out cells if it needs a fit."""
    held = held_mask(task, adata.obs)
    groups = (
        number_groups(task, adata.obs, x, held)
        if task.number is not None
        else [combination_group(task, adata.obs, x, held)]
    )
    report: dict[str, Any] = {"threads": args.threads, **provenance()}
    predictions: list[list[np.ndarray]] | None = None
    if row["system"] == "nearest":
        predictions = [one.neighbours for one in groups]
    elif row["system"] == "shift":
        predictions = [[one.shift] for one in groups]
    elif row["system"] == "tabdiff":
        usable = held
        if task.groups:
            usable = held & np.isin(group_labels(adata.obs, task.groups), [one.label for one in groups])
        obs = adata.obs[usable]
        wanted = pd.concat([obs] * -(-N_DRAWN // len(obs)), ignore_index=True).rename(index=str)
        drawn, report = draw_cells(row, adata[~held].copy(), wanted, task.by, args)
        if drawn is None:
            return report
        profile = log_normalize(drawn).astype(np.float64)
        of = group_labels(drawn.obs, task.groups)
        predictions = [[profile[of == (one.label if task.groups else "all")].mean(axis=0)] for one in groups]
    size = {"held": int(held.sum()), "fitted": int((~held).sum()), "genes": adata.n_vars, "groups": len(groups)}
    return {**size, **errors(groups, predictions, row["seed"]), **report, **measured("numpy", "anndata")}
