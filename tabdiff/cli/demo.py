"""``tabdiff demo``: fit one half of a data set, sample as many rows as the other half has, and compare.

Cells, a table and images are real; sequences are made up, so that what is in them is known. One half of the
real rows is the yardstick: the samples, the other half (which is as good as anything can be that comes from the same
source), and a simple baseline are all measured against it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.cli.demo_pictures import draw_cells, draw_images, draw_sequences, draw_table, write_picture
from tabdiff.utils.processes import torch_threads

__all__ = ["demo_cells", "demo_images", "demo_sequences", "demo_table"]

FLOOR, CELL_BASELINE, TABLE_BASELINE = "real half (floor)", "NB per type", "independent columns"
PIXEL_BASELINE, LETTER_BASELINE = "independent pixels", "independent letters"
# Of the metrics of images, what each is called and what it is at best.
IMAGE_SCORES = {
    "class_accuracy": ("recognised as what was asked for", 1.0),
    "frechet_distance": ("Fréchet distance", 0.0),
    "precision": ("precision", 1.0),
    "recall": ("recall", 1.0),
    "memorisation_ratio": ("distance to the nearest fitted image / an unseen one's", 1.0),
}
# Of the made-up promoters: letters, half of which are in the box's class, what stands where, and how often it is right.
LENGTHS, BOX, BOX_AT, KEPT = (20, 24), "TATAAT", 7, 0.95
HAIRPIN = ((1, 18), (2, 17), (3, 16))


def demo_cells(
    folder: str | os.PathLike = ".",
    *,
    seed: int = 0,
    max_steps: str | int = "auto",
    max_time: float | None = None,
) -> pd.DataFrame:
    """Fit and score 700 blood cells, print a scorecard and draw ``tabdiff-demo-cells.png``.

    Parameters
    ----------
    folder : path-like
        Where the picture goes; one that is there already is replaced.
    seed : int
        Of the split, the fit, the samples and the scores: the same seed gives the same scorecard on one machine.
    max_steps, max_time : optional
        As in `DiffusionGenerator`.

    Returns
    -------
    DataFrame
        A row per metric; columns "ideal", "tabdiff", "real half (floor)" and "NB per type".
    """
    from tabdiff import DiffusionGenerator
    from tabdiff.datasets import load_pbmc68k_counts
    from tabdiff.evaluation import cell_scorecard

    label = "bulk_labels"
    cells = load_pbmc68k_counts()
    seen = _random_half(cells.obs[label], seed)
    train, unseen = cells[seen].copy(), cells[~seen].copy()
    print(f"Blood cells (Zheng et al., 2017): {cells.n_obs} cells × {cells.n_vars} genes of counts, labelled by type.")
    print(f"Fitting {train.n_obs} of them, a random half of each type ...", flush=True)
    start = time.perf_counter()
    gen = DiffusionGenerator(random_state=seed, max_steps=max_steps, max_time=max_time)
    # A second thread gains little on so small a network, and costs much where the machine is busy.
    with torch_threads(1):
        gen.fit(train, condition=label)
    fitted = time.perf_counter()
    synthetic = gen.sample(condition={label: unseen.obs[label].value_counts().to_dict()}, random_state=seed)
    _print_times(synthetic.n_obs, "cells, as many of each type as in the unseen half,", start, fitted)
    scores = cell_scorecard(unseen, synthetic, by=label, floor=train, seed=seed).rename(
        columns={"synthetic": "tabdiff", "real half": FLOOR, "NB baseline": CELL_BASELINE}
    )
    _print_scores(scores)
    print(
        "Every column is compared with the unseen half. RF-AUC: can a random forest tell the cells from real ones\n"
        "(0.5: no; 1: always)? RBF-MMD, Wasserstein-2: how far apart are the clouds of cells? Within-type\n"
        "correlation: do genes that vary together in real cells do so here? The floor is what real cells score; the\n"
        "baseline draws each gene by itself from a negative binomial per type: no structure inside a type."
    )
    write_picture(Path(folder) / "tabdiff-demo-cells.png", draw_cells, gen, unseen, synthetic, label)
    return scores


def demo_table(folder: str | os.PathLike = ".", *, seed: int = 0, max_steps: str | int = "auto") -> pd.DataFrame:
    """Fit and score the Palmer penguins, print a scorecard and draw ``tabdiff-demo-table.png``.

    Parameters
    ----------
    folder : path-like
        Where the picture goes; one that is there already is replaced.
    seed : int
        Of the split, the fit, the samples and the scores: the same seed gives the same scorecard on one machine.
    max_steps : optional
        As in `DiffusionGenerator`.

    Returns
    -------
    DataFrame
        A row per metric; columns "ideal", "tabdiff", "real half (floor)" and "independent columns". The two metrics of
        copying have no floor (NaN), which would compare the fitted rows with themselves.
    """
    from tabdiff import DiffusionGenerator
    from tabdiff.datasets import load_penguins
    from tabdiff.evaluation import independent_columns

    label = "species"
    penguins = load_penguins()
    seen = _random_half(penguins[label], seed)
    train, unseen = (penguins[rows].reset_index(drop=True) for rows in (seen, ~seen))
    n_missing = int(penguins.isna().to_numpy().sum())
    print(
        f"Palmer penguins (Gorman et al., 2014): {len(penguins)} birds × {penguins.shape[1]} columns of mixed types, "
        f"{n_missing} values missing."
    )
    print(f"Fitting {len(train)} of them, a random half of each species ...", flush=True)
    start = time.perf_counter()
    gen = DiffusionGenerator(random_state=seed, max_steps=max_steps)
    with torch_threads(1):
        gen.fit(train, condition=label)
    fitted = time.perf_counter()
    synthetic = gen.sample(condition={label: unseen[label].value_counts().to_dict()}, random_state=seed)
    _print_times(len(synthetic), "birds, as many of each species as in the unseen half,", start, fitted)
    columns = {
        "tabdiff": synthetic,
        FLOOR: train,
        TABLE_BASELINE: independent_columns(train, len(unseen), random_state=seed),
    }
    scores = pd.DataFrame({name: _table_scores(train, unseen, rows, seed) for name, rows in columns.items()})
    scores.insert(0, "ideal", [0.0, 0.0, 0.0, 1.0, 1.0, 50.0])
    scores.index.name = "metric"
    _print_scores(scores)
    print(
        "Every column is compared with the unseen half. Shape: is the distribution of each column right? Trend: the\n"
        "dependence of each two? C2ST: can gradient boosting tell the rows from real ones (1: no; 0: always)? The\n"
        "floor is what real rows score; independent columns have no dependence at all. The last two rows tell copying\n"
        "from learning: under 0.9, or far above 50 %, samples lie closer to the fitted birds than unseen birds do."
    )
    write_picture(Path(folder) / "tabdiff-demo-table.png", draw_table, gen, unseen, synthetic)
    return scores


def demo_images(folder: str | os.PathLike = ".", *, seed: int = 0, max_steps: int = 500) -> pd.DataFrame:
    """Fit and score scikit-learn's digits of 8 × 8 pixels, print a scorecard and draw ``tabdiff-demo-images.png``.

    Parameters
    ----------
    folder : path-like
        Where the picture goes; one that is there already is replaced.
    seed : int
        Of the split, the fit, the samples and the scores.
    max_steps : int, default=500
        As in `DiffusionGenerator`; by default fewer, on a smaller network, than it would take, for the sake of time.

    Returns
    -------
    DataFrame
        A row per metric; columns "ideal", "tabdiff", "real half (floor)" and "independent pixels".
    """
    from sklearn.datasets import load_digits

    from tabdiff import DiffusionGenerator
    from tabdiff.evaluation import evaluate_images

    digits = load_digits()
    images, classes = np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target
    seen = _random_half(pd.Series(classes), seed)
    train, unseen = images[seen], images[~seen]
    asked = np.sort(classes[~seen])
    print(f"Handwritten digits (Alpaydin and Kaynak, 1998): {len(images)} images of 8 × 8 pixels, of ten classes.")
    print(f"Fitting {len(train)} of them, a random half of each class ...", flush=True)
    start = time.perf_counter()
    gen = DiffusionGenerator(random_state=seed, max_steps=max_steps, hidden_size=16, n_blocks=1, batch_size=64)
    gen.fit(train, classes[seen])
    fitted = time.perf_counter()
    drawn = gen.sample(len(asked), condition=asked, steps=20, random_state=seed)
    _print_times(len(drawn), "images, as many of each class as in the unseen half,", start, fitted)
    labels = {"real": classes[seen], "synthetic": asked, "holdout": classes[~seen]}
    table = evaluate_images(train, drawn, holdout=unseen, labels=labels, random_state=seed).set_index("metric")
    found = table.loc[list(IMAGE_SCORES), ["synthetic", "floor", "independent"]]
    scores = found.rename(columns={"synthetic": "tabdiff", "floor": FLOOR, "independent": PIXEL_BASELINE})
    scores.insert(0, "ideal", [ideal for _, ideal in IMAGE_SCORES.values()])
    scores.index = pd.Index([name for name, _ in IMAGE_SCORES.values()], name="metric")
    _print_scores(scores)
    print(
        "Every column is compared with the fitted half, by the features of a classifier that was trained on it; the\n"
        "floor is what the unseen half scores. Recognised: does the classifier see the digit that was asked for?\n"
        "Fréchet: how far apart are the clouds of features? Precision: how many drawn images lie among real ones?\n"
        "Recall: how many real ones lie among drawn ones? The last row tells copying from learning: far under 1,\n"
        "images lie closer to the fitted ones than unseen images do."
    )
    right_half = np.arange(64).reshape(8, 8) % 8 > 3
    given = unseen[[np.flatnonzero(classes[~seen] == k)[0] for k in range(10)]]
    filled = gen.impute(given, mask=right_half, n_draws=3, steps=20, random_state=seed)
    path = Path(folder) / "tabdiff-demo-images.png"
    write_picture(path, draw_images, gen, (train, unseen, drawn), (classes[~seen], asked), (given, right_half, filled))
    return scores


def demo_sequences(folder: str | os.PathLike = ".", *, seed: int = 0, max_steps: str | int = "auto") -> pd.DataFrame:
    """Fit and score made-up promoters, print a scorecard and draw ``tabdiff-demo-sequence.png``.

    Parameters
    ----------
    folder : path-like
        Where the picture goes; one that is there already is replaced.
    seed : int
        Of the strings, the fit, the samples and the scores.
    max_steps : optional
        As in `DiffusionGenerator`.

    Returns
    -------
    DataFrame
        A row per metric; columns "ideal" (what the rules of the strings say), "tabdiff", "real half (floor)" and
        "independent letters".
    """
    from tabdiff import DiffusionGenerator

    strings, kinds = _promoters(3000, np.random.default_rng(seed))
    seen = _random_half(pd.Series(kinds), seed)
    train, unseen = strings[seen], strings[~seen]
    print(
        f"Made-up promoters: {len(strings)} strings of {LENGTHS[0]} or {LENGTHS[1]} letters of DNA. Half of them have "
        f"{BOX} in its place,\nall of them have a hairpin: three letters that pair with three further on."
    )
    print(f"Fitting {len(train)} of them, a random half of each kind ...", flush=True)
    start = time.perf_counter()
    gen = DiffusionGenerator(random_state=seed, max_steps=max_steps)
    with torch_threads(1):
        gen.fit(train, kinds[seen])
    fitted = time.perf_counter()
    asked = np.sort(kinds[~seen])
    drawn = gen.sample(len(asked), condition=asked, random_state=seed)
    _print_times(len(drawn), "strings, as many of each kind as in the unseen half,", start, fitted)
    columns = {
        "tabdiff": (drawn, asked),
        FLOOR: (train, kinds[seen]),
        LETTER_BASELINE: (_independent_letters(train, kinds[seen], asked, np.random.default_rng(seed)), asked),
    }
    scores = pd.DataFrame({name: _sequence_scores(unseen, kinds[~seen], *side) for name, side in columns.items()})
    exact = 100 * np.array([(1 + 3 * KEPT) / 4, ((1 + 3 * KEPT) / 4) ** len(BOX)])
    scores.insert(0, "ideal", [0.0, 0.0, *exact, 0.0, 0.0])
    scores.index.name = "metric"
    _print_scores(scores)
    print(
        "The first two rows and the last compare with the unseen half: the share of each letter at each place, of\n"
        "each word of three letters, and of each length. The rest is how often the rules are kept, beside how often\n"
        "the strings were made to. The floor is what real strings score; independent letters have the right shares at\n"
        "each place, per kind, and nothing else: no hairpin."
    )
    path = Path(folder) / "tabdiff-demo-sequence.png"
    write_picture(path, draw_sequences, gen, (unseen, kinds[~seen]), (np.asarray(drawn), asked))
    return scores


def _random_half(labels: pd.Series, seed: int) -> np.ndarray:
    """Mask (n,) of a random half of each label, the larger one where the number is odd."""
    rng = np.random.default_rng(seed)
    codes = labels.astype("category").cat.codes.to_numpy()
    chosen = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        chosen[rows[: (len(rows) + 1) // 2]] = True
    return chosen


def _table_scores(train: pd.DataFrame, unseen: pd.DataFrame, rows: pd.DataFrame, seed: int) -> dict[str, float]:
    from tabdiff.evaluation import c2st, dcr_share, missingness_error, nearest_neighbour_ratio, shape_error, trend_error

    fitted = rows is train
    return {
        "shape error (%)": shape_error(unseen, rows),
        "trend error (%)": trend_error(unseen, rows),
        "missingness error (%)": missingness_error(unseen, rows),
        "C2ST": c2st(unseen, rows, random_state=seed),
        "distance to the nearest fitted row / an unseen row's": np.nan
        if fitted
        else nearest_neighbour_ratio(train, rows, unseen),
        "nearer to fitted than to unseen rows (%)": np.nan
        if fitted
        else dcr_share(train, rows, unseen, random_state=seed),
    }


def _promoters(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Strings (n,) and kinds (n,), of which the rules are known."""
    letters = np.array(list("ACGT"))
    shares = np.random.default_rng(7).dirichlet(np.full(4, 2.0), size=LENGTHS[1])
    codes = np.stack([rng.choice(4, size=n, p=p) for p in shares], axis=1)

    def put(rows: np.ndarray, place: int, right: np.ndarray) -> None:
        # Otherwise any letter, which may be the right one.
        codes[rows, place] = np.where(rng.random(len(right)) < KEPT, right, rng.integers(4, size=len(right)))

    everyone, promoter = np.arange(n), np.flatnonzero(rng.random(n) < 0.5)
    for first, second in HAIRPIN:
        put(everyone, second, 3 - codes[:, first])
    for place, letter in enumerate(BOX, start=BOX_AT):
        put(promoter, place, np.full(len(promoter), "ACGT".index(letter)))
    short = rng.random(n) < 1 / 3
    strings = ["".join(letters[row])[: LENGTHS[0] if cut else None] for row, cut in zip(codes, short)]
    return np.array(strings), np.where(np.isin(everyone, promoter), "promoter", "background")


def _independent_letters(
    train: np.ndarray, kinds: np.ndarray, asked: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Strings with the letters of each place, and the lengths, each of another string of the kind."""
    rows = []
    for kind in asked:
        pool = train[kinds == kind]
        length = len(rng.choice(pool))
        pool = pool[[len(s) >= length for s in pool]]
        rows.append("".join(pool[rng.integers(len(pool))][i] for i in range(length)))
    return np.array(rows)


def _sequence_scores(unseen: np.ndarray, kinds: np.ndarray, strings: Any, asked: np.ndarray) -> dict[str, float]:
    def at_places(some: Any) -> np.ndarray:
        padded = np.array([list(s.ljust(LENGTHS[1])) for s in some])
        return np.stack([(padded == letter).mean(axis=0) for letter in "ACGT"])

    def words(some: Any) -> pd.Series:
        return pd.Series([s[i : i + 3] for s in some for i in range(len(s) - 2)]).value_counts(normalize=True)

    box = np.array([s[BOX_AT : BOX_AT + len(BOX)] == BOX for s in strings])
    pairs = [s[i] + s[j] in ("AT", "TA", "CG", "GC") for s in strings for i, j in HAIRPIN]
    long, real_long = (np.mean([len(s) == LENGTHS[1] for s in some]) for some in (strings, unseen))
    odd = np.mean([len(s) not in LENGTHS for s in strings])
    return {
        "letters: largest error of a share (%)": 100 * np.abs(at_places(strings) - at_places(unseen)).max(),
        "words of three letters: error (%)": 50 * words(strings).sub(words(unseen), fill_value=0).abs().sum(),
        "hairpin: letters that pair (%)": 100 * float(np.mean(pairs)),
        f"{BOX} in promoters (%)": 100 * float(box[asked == "promoter"].mean()),
        f"{BOX} in others (%)": 100 * float(box[asked != "promoter"].mean()),
        "lengths: error (%)": 100 * float(abs(long - real_long) + odd),
    }


# ------------------------------------------------------------------- printing


def _print_times(n: int, what: str, start: float, fitted: float) -> None:
    print(f"Fitted in {fitted - start:.0f} s; sampled {n} {what} in {time.perf_counter() - fitted:.1f} s.\n")


def _print_scores(scores: pd.DataFrame) -> None:
    def decimals(row: pd.Series) -> int:
        largest = row.abs().max()
        return 1 if largest >= 10 else 2 if largest >= 2 else 3

    # Adding 0 turns the -0.0 of rounding into 0.0.
    text = {
        name: ["–" if np.isnan(v) else f"{round(v, decimals(row)) + 0.0:.{decimals(row)}f}" for v in row]
        for name, row in scores.iterrows()
    }
    shown = pd.DataFrame.from_dict(text, orient="index", columns=scores.columns)
    print(shown.to_string(), end="\n\n")
