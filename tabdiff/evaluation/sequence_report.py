"""The report of sequences: lengths, letters, runs of letters, pairs of places, and whether a classifier tells them."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabdiff.codecs.sequences import read_sequences
from tabdiff.evaluation.classifiers import TwoSample, two_sample
from tabdiff.evaluation.figures import REAL, SYNTHETIC
from tabdiff.evaluation.frames import draw_rows
from tabdiff.evaluation.intervals import Z, jackknife
from tabdiff.evaluation.report import Drawing, Report, finish_scores
from tabdiff.utils.fingerprint import frame_digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["evaluate_sequences", "is_sequences"]

# Places of a sequence that are compared, letters of the alphabet that have a code of their own, and pairs of places.
MAX_PLACES, MAX_LETTERS, MAX_PAIRS, KMER, MAX_ROWS = 512, 32, 200, 3, 10_000


def is_sequences(values: Any) -> bool:
    """Tell whether values are sequences: strings, or lists of integer tokens, and no table."""
    if isinstance(values, pd.DataFrame) or hasattr(values, "obs") or isinstance(values, str | bytes):
        return False
    if isinstance(values, list | tuple | pd.Series) or (isinstance(values, np.ndarray) and values.ndim == 1):
        return len(values) > 0 and isinstance(next(iter(values)), str | list | tuple | np.ndarray)
    return False


def _read(values: Any, name: str) -> list[Any]:
    found = read_sequences(values)
    if found is None:
        raise TypeError(
            f"{name} must be sequences as real is, a list of strings or of token lists; got {type(values).__name__}."
        )
    return [v if isinstance(v, str) else tuple(np.asarray(v).tolist()) for v in found[0]]


def evaluate_sequences(
    real: Any, synthetic: Any, *, holdout: Any = None, max_rows: int | None = MAX_ROWS, random_state: int | None = 0
) -> Report:
    """Score sequences; see `tabdiff.evaluate`."""
    given = {"real": real, "synthetic": synthetic} | ({} if holdout is None else {"holdout": holdout})
    texts = {name: _read(values, name) for name, values in given.items()}
    rng = np.random.default_rng(random_state)
    digest = frame_digest(pd.DataFrame({"sequence": [str(v) for v in texts["real"]]}))
    if holdout is None:
        order = rng.permutation(len(texts["real"]))
        half = len(order) // 2
        train = [texts["real"][i] for i in order[:half]]
        floor = [texts["real"][i] for i in order[half:]]
    else:
        train, floor = texts["real"], texts["holdout"]
    if min(map(len, (train, floor, texts["synthetic"]))) < 3:
        raise ValueError("real, synthetic and holdout need at least 6, 3 and 3 sequences each.")
    letters = sorted({letter for text in train for letter in text}, key=str)
    codes = {letter: i + 1 for i, letter in enumerate(letters[: MAX_LETTERS - 2])}
    length = min(max(map(len, train)), MAX_PLACES)
    # As many of each: shares of rare runs fall apart in few sequences.
    n = min(len(train), len(floor), len(texts["synthetic"]), max_rows or 2**62)
    tables = {
        name: _table([values[i] for i in draw_rows(len(values), n, rng)], codes, length)
        for name, values in (("real", train), ("synthetic", texts["synthetic"]), ("floor", floor))
    }
    tables["independent"] = rng.permuted(tables["real"], axis=0)
    pairs = _pairs(length, rng)
    seen = set(train)
    columns: dict[str, dict[str, float]] = {}
    tests: dict[str, TwoSample] = {}
    for name in ("synthetic", "floor", "independent"):
        columns[name] = _scores(tables["real"], tables[name], pairs)
        tests[name] = two_sample(_frame(tables["real"]), _frame(tables[name]), random_state=random_state)
        columns[name]["c2st"] = tests[name].score
    usual = _repeats(floor)
    for name, values in (("synthetic", texts["synthetic"]), ("floor", floor)):
        columns[name]["duplicate_gap"] = _repeats(values[: len(floor)]) - usual
        columns[name]["copied_sequences"] = 100 * float(np.mean([v in seen for v in values]))
    columns["independent"] |= {"duplicate_gap": np.nan, "copied_sequences": np.nan}
    errors = jackknife(lambda a, b: _scores(tables["real"][a], tables["synthetic"][b], pairs), [n, n], rng, groups=10)
    intervals = {m: (columns["synthetic"][m] - Z * e, columns["synthetic"][m] + Z * e) for m, e in errors.items()}
    intervals["c2st"] = tests["synthetic"].interval(Z)
    for metric in ("duplicate_gap", "copied_sequences"):
        value, size = columns["synthetic"][metric], len(texts["synthetic"])
        share = min(max(abs(value) / 100, 0), 1)
        half_width = 100 * Z * float(np.sqrt(share * (1 - share) / size))
        intervals[metric] = (value - half_width, value + half_width)
    scores = finish_scores(columns, intervals)
    shown = min(length, 60)
    profile = {
        name: [
            (tables[name][:, j][:, None] == np.arange(1, min(len(letters), 6) + 1)).mean(axis=0) for j in range(shown)
        ]
        for name in ("real", "synthetic")
    }
    drawings = {
        "letters": Drawing(
            _draw_letters,
            {"real": np.array(profile["real"]), "synthetic": np.array(profile["synthetic"]), "letters": letters[:6]},
            "Share of each letter at each place, synthetic over real.",
            (7.2, 3.2),
        )
    }
    text = (
        f"Synthetic sequences have a C2ST of {columns['synthetic']['c2st']:.2f} (1: never told from real ones); real "
        f"ones score {columns['floor']['c2st']:.2f}, shuffled letters {columns['independent']['c2st']:.2f}."
    )
    sizes = {"all figures": f"{n:,} sequences of either side, {length} places, {len(letters)} letters"}
    details = {"runs": _worst_runs(tables["real"], tables["synthetic"], letters)}
    return Report("sequences", scores, details, [text], sizes, drawings, fingerprint=digest)


def _table(texts: list[Any], codes: dict[Any, int], length: int) -> np.ndarray:
    """Codes (n, length): 0 after the end, 1 to 30 for letters, 31 for all others."""
    out = np.zeros((len(texts), length), dtype=np.int64)
    for i, text in enumerate(texts):
        for j, letter in enumerate(text[:length]):
            out[i, j] = codes.get(letter, MAX_LETTERS - 1)
    return out


def _frame(table: np.ndarray) -> pd.DataFrame:
    """What a classifier sees: the letter at each place, the length, and how often each letter occurs."""
    places = {f"p{j}": pd.Categorical(table[:, j]) for j in range(min(table.shape[1], 100))}
    counts = {f"n{k}": (table == k).sum(axis=1) for k in range(1, int(table.max(initial=1)) + 1)}
    return pd.DataFrame(places | counts | {"length": (table > 0).sum(axis=1)})


def _pairs(length: int, rng: np.random.Generator) -> np.ndarray:
    if length * (length - 1) // 2 <= MAX_PAIRS:
        return np.array(list(combinations(range(length), 2)), dtype=int).reshape(-1, 2)
    drawn = {tuple(sorted(rng.choice(length, 2, replace=False).tolist())) for _ in range(2 * MAX_PAIRS)}
    return np.array(sorted(drawn)[:MAX_PAIRS])


def _distance(a: np.ndarray, b: np.ndarray, size: int) -> float:
    if min(len(a), len(b)) == 0:
        return 0.0 if len(a) == len(b) else 100.0
    p, q = (np.bincount(x, minlength=size) / len(x) for x in (a, b))
    return 50 * float(np.abs(p - q).sum())


def _runs(table: np.ndarray) -> np.ndarray:
    if table.shape[1] < KMER:
        return np.empty(0, dtype=int)
    parts = [table[:, k : table.shape[1] - KMER + 1 + k] for k in range(KMER)]
    code = sum(part * MAX_LETTERS ** (KMER - 1 - k) for k, part in enumerate(parts))
    return np.asarray(code)[np.all([part > 0 for part in parts], axis=0)]


def _scores(real: np.ndarray, other: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    lengths = [(t > 0).sum(axis=1) for t in (real, other)]
    size = MAX_LETTERS
    out = {"length_error": _distance(lengths[0], lengths[1], real.shape[1] + 1)}
    places = [_distance(real[:, j], other[:, j], size) for j in range(real.shape[1])]
    out["position_error"] = float(np.mean(places))
    out["kmer_error"] = _distance(_runs(real), _runs(other), size**KMER)
    if len(pairs):
        joint = [_distance(real[:, i] * size + real[:, j], other[:, i] * size + other[:, j], size**2) for i, j in pairs]
        out["pair_error"] = float(np.mean(joint))
    return out


def _repeats(values: list[Any]) -> float:
    return 100 * (1 - len(set(values)) / len(values))


def _worst_runs(real: np.ndarray, synthetic: np.ndarray, letters: list[Any], n: int = 20) -> pd.DataFrame:
    size = MAX_LETTERS**KMER
    shares = [np.bincount(_runs(t), minlength=size) / max(len(_runs(t)), 1) for t in (real, synthetic)]
    order = np.argsort(-np.abs(shares[0] - shares[1]), kind="stable")[:n]
    order = order[(shares[0] + shares[1])[order] > 0]

    def text(code: int) -> str:
        digits = [code // MAX_LETTERS ** (KMER - 1 - k) % MAX_LETTERS for k in range(KMER)]
        parts = [str(letters[d - 1]) if d <= len(letters) and d < MAX_LETTERS - 1 else "?" for d in digits]
        return "".join(parts) if all(len(p) == 1 for p in parts) else " ".join(parts)

    return pd.DataFrame(
        {"run": [text(int(c)) for c in order], "real %": 100 * shares[0][order], "synthetic %": 100 * shares[1][order]}
    )


def _draw_letters(figure: Figure, real: np.ndarray, synthetic: np.ndarray, letters: list[Any]) -> None:
    grid = figure.subplots(len(letters), 1, sharex=True, squeeze=False)[:, 0]
    for k, (axes, letter) in enumerate(zip(grid, letters, strict=True)):
        places = np.arange(1, len(real) + 1)
        axes.fill_between(places, real[:, k], step="mid", color=REAL, alpha=0.5, linewidth=0, label="real")
        axes.step(places, synthetic[:, k], where="mid", color=SYNTHETIC, label="synthetic")
        axes.set_ylabel(str(letter), rotation=0, labelpad=10)
        axes.set_yticks([])
    grid[-1].set_xlabel("place")
    grid[0].legend(loc="upper right", fontsize=6, ncols=2)
