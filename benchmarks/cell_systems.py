"""The systems that cells.py compares: cells and wanted labels in, cells with these labels out, in a process of its own.

    python benchmarks/cell_systems.py --system scvi_prior --input train.h5ad --wanted wanted.h5ad --output cells.h5ad \
        --by cell_type --seed 0 --max-time 600 --threads 2

`wanted` holds an obs with the columns of --by and a row per cell to draw. Writes the cells and, beside them,
cells.json: seconds of fitting and of sampling, peak memory and versions. "tabdiff" needs this package; the others need
an environment with requirements-cells-peers.txt. Every system has its default settings but where a comment says why
not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

Sampler = Callable[[pd.DataFrame], Any]


@dataclass(frozen=True)
class Budget:
    """What a fit may use. `max_steps` is for quick looks; None leaves it to the system."""

    seed: int
    max_time: float
    threads: int
    max_steps: int | None = None


def joined(obs: pd.DataFrame, by: list[str]) -> pd.Series:
    """One label a row, for systems that know a single attribute."""
    return obs[by].astype(str).agg(" / ".join, axis=1)


def fit_tabdiff(train: AnnData, by: list[str], budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    from tabdiff import DiffusionGenerator

    settings = {} if budget.max_steps is None else {"max_steps": budget.max_steps}
    gen = DiffusionGenerator(random_state=budget.seed, max_time=budget.max_time, **settings).fit(train, condition=by)
    return lambda wanted: gen.sample(condition=wanted[by]).X, {
        "steps": gen.n_steps_,
        "device": next(gen.denoiser_.parameters()).device.type,
    }


# ---------------------------------------------------------------------------------------------------------- scVI


def _fit_scvi(train: AnnData, by: list[str], budget: Budget) -> tuple[Any, AnnData, dict[str, Any]]:
    """Train scVI (Lopez et al., 2018) with the type as its batch: the covariate that its decoder is given."""
    import scvi

    scvi.settings.seed = budget.seed
    scvi.settings.verbosity = 30
    cells = train.copy()
    cells.X = sparse.csr_matrix(cells.X, dtype=np.float32)
    cells.obs["type"] = joined(cells.obs, by).to_numpy()
    scvi.model.SCVI.setup_anndata(cells, batch_key="type")
    model = scvi.model.SCVI(cells)
    # A last batch of one cell cannot be normalised.
    batch_size = 128 if len(cells) % 128 != 1 else 127
    model.train(
        max_epochs=budget.max_steps,
        accelerator="auto",
        train_size=1.0,
        batch_size=batch_size,
        enable_progress_bar=False,
        logger=False,
        max_time={"seconds": budget.max_time},
    )
    epochs = int(model.trainer.current_epoch)
    return model, cells, {"settings": {"epochs": epochs}, "device": model.device.type}


def _rows_of_types(types: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each wanted label a cell that has it, none twice before all were taken."""
    rows = np.empty(len(wanted), dtype=int)
    for label in np.unique(wanted):
        own, places = np.flatnonzero(types == label), np.flatnonzero(wanted == label)
        turns = [rng.permutation(own) for _ in range(-(-len(places) // len(own)))]
        rows[places] = np.concatenate(turns)[: len(places)]
    return rows


def _scvi_sampler(train: AnnData, by: list[str], budget: Budget, prior: bool) -> tuple[Sampler, dict[str, Any]]:
    import torch

    model, cells, details = _fit_scvi(train, by, budget)
    rng = np.random.default_rng(budget.seed)
    types = cells.obs["type"].to_numpy()
    library = np.log(np.asarray(cells.X.sum(axis=1), dtype=np.float32).reshape(-1, 1))
    code = {label: i for i, label in enumerate(model.adata_manager.get_state_registry("batch").categorical_mapping)}

    def sample(wanted: pd.DataFrame) -> Any:
        labels = joined(wanted, by).to_numpy()
        rows = _rows_of_types(types, labels, rng)
        parts = []
        for start in range(0, len(rows), 512):
            some = rows[start : start + 512]
            if prior:
                z = torch.randn(len(some), model.module.n_latent)
            else:
                z = torch.from_numpy(model.get_latent_representation(cells, indices=some, give_mean=False)).float()
            with torch.inference_mode():
                drawn = model.module.generative(
                    z=z.to(model.device),
                    # The library sizes of training cells of the type: scVI's default has no model of its own for them.
                    library=torch.from_numpy(library[some]).to(model.device),
                    batch_index=torch.tensor([[code[x]] for x in types[some]], device=model.device),
                )["px"].sample()
            parts.append(sparse.csr_matrix(drawn.cpu().numpy()))
        return sparse.vstack(parts, format="csr")

    return sample, details


def fit_scvi_prior(train: AnnData, by: list[str], budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    return _scvi_sampler(train, by, budget, prior=True)


def fit_scvi_posterior(train: AnnData, by: list[str], budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    """Training cells through the encoder and out again: needs a real cell for each that it makes."""
    return _scvi_sampler(train, by, budget, prior=False)


# ----------------------------------------------------------------------------------------------------- scDesigner

JOINT_GENES = 1000


def fit_scdesigner(train: AnnData, by: list[str], budget: Budget) -> tuple[Sampler, dict[str, Any]]:
    """scDesigner, the Python scDesign3 (Song et al., 2024): a negative binomial per gene and type, a Gaussian copula.

    Correlations are shrunk (Ledoit and Wolf, 2004), without which it refuses types of fewer cells than genes, and are
    those of the 1,000 most expressed genes at most: a matrix a type of all would not fit in memory.
    """
    import torch
    from scdesigner.copulas import StandardCopula
    from scdesigner.distributions import NegBin
    from scdesigner.simulators import SCD3Simulator

    torch.manual_seed(budget.seed)
    np.random.seed(budget.seed)  # noqa: NPY002 - scDesigner draws from the global generator
    cells = train.copy()
    labels = joined(cells.obs, by)
    names = {label: f"t{i}" for i, label in enumerate(sorted(labels.unique()))}
    dtype = pd.CategoricalDtype(list(names.values()))
    cells.obs = pd.DataFrame({"type": labels.map(names).astype(dtype)}, index=cells.obs_names)
    cells.X = sparse.csr_matrix(cells.X, dtype=np.float32)
    top = JOINT_GENES if cells.n_vars > JOINT_GENES else None
    # The intercept is left out so that each type has a column of its own.
    by_type = "~ 0 + type"
    marginal = NegBin({"mean": by_type, "dispersion": by_type})
    model = SCD3Simulator(marginal, StandardCopula(by_type, "ledoit_wolf", top_k=top))
    settings = {"batch_size": len(cells)} if len(cells) < 1000 else {}
    if budget.max_steps is not None:
        settings["max_epochs"] = budget.max_steps
    model.fit(cells, verbose=False, **settings)

    def sample(wanted: pd.DataFrame) -> Any:
        obs = pd.DataFrame({"type": joined(wanted, by).map(names).astype(dtype).to_numpy()})
        return sparse.csr_matrix(model.sample(obs).X)

    return sample, {"settings": {"joint_genes": top or cells.n_vars}, "device": "cpu"}


FITS: dict[str, Callable[[Any, list[str], Budget], tuple[Sampler, dict[str, Any]]]] = {
    "tabdiff": fit_tabdiff,
    "scvi_prior": fit_scvi_prior,
    "scvi_posterior": fit_scvi_posterior,
    "scdesigner": fit_scdesigner,
}
# Those that need the environment of requirements-cells-peers.txt.
PEERS = ("scvi_prior", "scvi_posterior", "scdesigner")
MODULES = {
    "tabdiff": "tabdiff.estimators.generator",
    "scvi_prior": "scvi",
    "scvi_posterior": "scvi",
    "scdesigner": "scdesigner",
}
PACKAGES = ("tabdiff", "scvi-tools", "scdesigner", "torch", "anndata", "scanpy", "scikit-learn", "pandas")


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux's getrusage counts the parent's memory too, from before the process became this program.
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    # Bytes on macOS, kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def found_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=FITS, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--wanted", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--by", action="append", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-time", type=float, default=600.0)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    import anndata
    import torch

    torch.set_num_threads(args.threads)
    budget = Budget(args.seed, args.max_time, args.threads, args.max_steps)
    train, wanted = anndata.read_h5ad(args.input), anndata.read_h5ad(args.wanted).obs
    # The seconds of a fit are not those of an import.
    importlib.import_module(MODULES[args.system])
    start = time.perf_counter()
    sample, details = FITS[args.system](train, args.by, budget)
    fitted = time.perf_counter()
    counts = sparse.csr_matrix(sample(wanted))
    sampled = time.perf_counter()
    anndata.AnnData(counts.astype(np.int32), obs=wanted[args.by].copy(), var=train.var[[]].copy()).write_h5ad(
        args.output
    )
    report = {
        "fit_seconds": round(fitted - start, 2),
        "sample_seconds": round(sampled - fitted, 2),
        "peak_rss_mb": round(peak_mb()),
        **details,
        "versions": found_versions(),
    }
    args.output.with_suffix(".json").write_text(json.dumps(report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
