"""Small fits that go through every codec, network, target, loss, condition and mask, for tests of the training step."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

N = 96


def table() -> pd.DataFrame:
    """Numbers with holes, dates, times of a zone, levels with holes, a determined column and a sum."""
    rng = np.random.default_rng(0)
    city = rng.choice(["Kyiv", "Lviv", "Wien"], N)
    a, b = rng.integers(0, 40, N), rng.integers(0, 60, N)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, N), unit="D")
    holes = rng.random(N) < 0.3
    return pd.DataFrame(
        {
            "size": rng.gamma(3.0, 2.0, N),
            "with holes": pd.Series(rng.normal(size=N)).mask(holes),
            "more holes": pd.Series(rng.normal(size=N)).mask(rng.random(N) < 0.2),
            "a": a,
            "b": b,
            "total": a + b,
            "city": city,
            "country": pd.Series(city).map({"Kyiv": "Україна", "Lviv": "Україна", "Wien": "Österreich"}),
            "note": pd.Series(rng.choice(["x", "y"], N), dtype="string").mask(holes),
            "letter": rng.choice(list("abcdefghij"), N),
            "day": pd.Series(days).mask(rng.random(N) < 0.1),
            "moment": days + pd.to_timedelta(rng.integers(0, 86_400, N), unit="s"),
        }
    )


def cells() -> anndata.AnnData:
    """Counts of twenty genes with a class and a dose."""
    rng = np.random.default_rng(2)
    obs = pd.DataFrame({"type": pd.Categorical(rng.choice(["B", "T"], N)), "dose": rng.uniform(0, 3, N).round(1)})
    return anndata.AnnData(
        sparse.csr_matrix(rng.poisson(3.0, (N, 20)).astype(np.int32)), obs=obs.set_axis([f"cell {i}" for i in range(N)])
    )


def array() -> np.ndarray:
    """Four numbers of which one in ten is missing."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, 4))
    X[rng.random((N, 4)) < 0.1] = np.nan
    return X


def images(side: int = 8) -> np.ndarray:
    """Grey images of bytes."""
    return np.random.default_rng(3).integers(0, 256, (N, side, side), dtype=np.uint8)


def sequences() -> pd.Series:
    """Strings of four letters, of up to eight places."""
    rng = np.random.default_rng(4)
    return pd.Series(["".join(rng.choice(list("ACGT"), rng.integers(4, 9))) for _ in range(N)])


def labels() -> np.ndarray:
    """Three classes."""
    return np.random.default_rng(5).choice(["u", "v", "w"], N)


def conditions(*, vectors: bool = False) -> pd.DataFrame:
    """A class with holes and a dose, and on request a vector."""
    rng = np.random.default_rng(6)
    frame = pd.DataFrame({"kind": labels(), "dose": rng.choice([0.0, 1.0, 2.5], N)})
    if vectors:
        frame["text"] = list(rng.normal(size=(N, 5)))
    return frame
