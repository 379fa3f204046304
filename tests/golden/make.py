"""Write the golden models: what this version saves, for later versions to read.

    PYTHONPATH=. python tests/golden/make.py

Run it for a new format version only, into a folder of its own; the files of the old ones stay as they are.
"""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from tabdiff import DiffusionGenerator

HERE = Path(__file__).resolve().parent / "format-1"
N = 240


def table() -> pd.DataFrame:
    """Every kind of column that a file can hold, two that are determined, and a sum."""
    rng = np.random.default_rng(0)
    size = rng.gamma(3.0, 2.0, N).round(2)
    city = rng.choice(["Kyiv", "Lviv", "Łódź", "Wien", "Graz"], N)
    a, b = rng.integers(0, 40, N), rng.integers(0, 60, N)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, N), unit="D")
    holes = rng.random(N) < 0.2
    frame = pd.DataFrame(
        {
            "size": size,
            "weight": (size * 3 + rng.normal(size=N)).astype(np.float32),
            "half": rng.normal(size=N).astype(np.float16),
            "with holes": pd.Series(rng.normal(size=N)).mask(holes),
            "a": a,
            "b": b,
            "total": a + b,
            "count": pd.Series(rng.integers(-5, 90, N), dtype="Int64").mask(holes),
            "ratio": pd.Series(rng.random(N), dtype="Float64"),
            "few": rng.choice([1, 2, 5], N),
            "flag": rng.random(N) < 0.3,
            "maybe": pd.Series(rng.random(N) < 0.5, dtype="boolean").mask(rng.random(N) < 0.1),
            "grade": pd.Categorical(rng.choice(["low", "high"], N), categories=["low", "mid", "high"], ordered=True),
            "city": city,
            "country": pd.Series(city).map(
                {"Kyiv": "Україна", "Lviv": "Україна", "Łódź": "Polska", "Wien": "Österreich", "Graz": "Österreich"}
            ),
            "note": pd.Series(rng.choice(["x", "y"], N), dtype="string").mask(holes),
            "day": days,
            "moment": (days + pd.to_timedelta(rng.integers(0, 86_400, N), unit="s")).tz_localize("UTC"),
            "lasted": pd.to_timedelta(rng.integers(1, 500, N), unit="min"),
            "date": pd.Series([d.date() for d in days], dtype=object),
            "constant": 7,
            "empty": np.full(N, np.nan),
            "kind": rng.choice(["red", "green", "blue"], N),
            "dose": rng.uniform(0.0, 10.0, N).round(3),
        }
    )
    for name in ("size", "with holes"):
        frame.loc[frame["kind"] == "red", name] += 8
    return frame


def array() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, N)
    X = rng.normal(size=(N, 4)) + y[:, None]
    X[rng.random((N, 4)) < 0.1] = np.nan
    return X, y


def cells() -> anndata.AnnData:
    rng = np.random.default_rng(2)
    kind = rng.choice(["B", "T"], N)
    rate = np.where((kind == "B")[:, None], rng.gamma(2.0, 1.0, 25), rng.gamma(2.0, 1.0, 25))
    return anndata.AnnData(
        sparse.csr_matrix(rng.poisson(rate).astype(np.int32)),
        obs=pd.DataFrame({"type": pd.Categorical(kind)}, index=[f"cell {i}" for i in range(N)]),
        var=pd.DataFrame({"long": rng.random(25) < 0.5}, index=[f"gene {j}" for j in range(25)]),
    )


def generator(**parameters: object) -> DiffusionGenerator:
    return DiffusionGenerator(max_steps=300, hidden_size=16, n_blocks=1, random_state=0, device="cpu", **parameters)


def noise(gen: DiffusionGenerator, n: int = 40) -> torch.Tensor:
    """Rows of the codec's tensor, the same everywhere."""
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(n, gen.codec_.n_continuous_))
    codes = [rng.integers(0, k, size=(n, 1)) for k in gen.codec_.n_levels_]
    return torch.from_numpy(np.concatenate([numbers, *codes], axis=1).astype(np.float32))


def written(frame: pd.DataFrame) -> dict[str, list]:
    """Columns as JSON: numbers as such, everything else as text, missing values as None."""
    out = {}
    for name in frame:
        column = frame[name]
        numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
        out[str(name)] = [None if pd.isna(v) else float(v) if numeric else str(v) for v in column]
    return out


def main() -> None:
    HERE.mkdir(exist_ok=True)
    expected = {}
    gen = generator(refine=True, constraints=["total = a + b"]).fit(table(), condition=["kind", "dose"])
    gen.save(HERE / "table.safetensors")
    drawn = gen.sample(400, random_state=0)
    expected["table"] = {
        "dtypes": {name: str(dtype) for name, dtype in drawn.dtypes.items()},
        "schema": json.loads(gen.schema_.to_json(orient="records")),
        "decoded": written(gen.codec_.decode(noise(gen))),
        "means": {c: float(drawn[c].mean()) for c in ("size", "weight", "a", "b", "ratio", "few", "flag", "dose")},
        "red": float(
            drawn.loc[drawn["kind"] == "red", "size"].mean() - drawn.loc[drawn["kind"] != "red", "size"].mean()
        ),
        "score": gen.score(table(), condition=table()[["kind", "dose"]]),
    }
    X, y = array()
    gen = generator().fit(X, y)
    gen.save(HERE / "array")
    expected["array"] = {
        "decoded": [[None if v != v else v for v in row] for row in gen.codec_.decode(noise(gen)).tolist()],
        "means": [np.nanmean(gen.sample(400, condition=k, random_state=0), axis=0).tolist() for k in range(3)],
        "score": gen.score(X, y),
    }
    gen = generator().fit(cells(), condition="type")
    gen.save(HERE / "cells.safetensors")
    expected["cells"] = {
        "means": {k: gen.sample(400, condition=k, random_state=0).X.mean(axis=0).tolist() for k in ("B", "T")}
    }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in sorted(HERE.rglob("*")):
        if path.is_file():
            print(f"{path.relative_to(HERE)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
