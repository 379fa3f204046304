"""Rows without end: shards that are drawn by any number of processes, each a function of its number alone.

A request for n rows is cut into shards. What a shard holds follows from the model, the request, the seed and the
number of the shard, so that a run that was killed goes on where it stood, a job of a cluster draws some of them, and
no number of workers changes a row. A manifest beside the shards says what they are of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from tabdiff.codecs.conditions.scalar import is_scalar
from tabdiff.generation.options import SamplingOptions
from tabdiff.generation.sampling import SamplePlan, with_condition_columns
from tabdiff.io.data_files import DataFileError
from tabdiff.io.manifest import claim_folder, read_manifest
from tabdiff.io.serialization import pack
from tabdiff.io.shard_files import join_shards, output_format, parquet_schema, write_images, write_shard
from tabdiff.utils.processes import check_n_jobs, torch_threads
from tabdiff.utils.validation import is_integer

if TYPE_CHECKING:
    from tabdiff.model.fitted import FittedModel

__all__ = ["Shards", "as_table", "is_begun", "sample_to"]

MANIFEST = "_tabdiff.json"
# Of images, which lie beside each other, a note for each shard that is whole.
NOTES = ".tabdiff"
# Values of a shard together, which take some hundred megabytes while they are drawn.
SHARD_VALUES = 2**22
MIN_SHARD_ROWS, MAX_SHARD_ROWS = 1_000, 1_000_000
CELLS = 20_000
FREE_OPTIONS = ("batch_size", "n_jobs", "random_state")
# Rows of which the types of columns in Parquet files are told.
EXAMPLE_ROWS = 256


@dataclass(frozen=True)
class Shards:
    """How n rows are cut: into shards of one size, or into so many of nearly equal size.

    Attributes
    ----------
    n : int
    size : int or None
        Rows of each but the last; None where it follows from `count`.
    count : int
        Number of shards.
    """

    n: int
    size: int | None
    count: int

    @classmethod
    def of(cls, n: int, size: int) -> Shards:
        """Cut n rows into shards of a size."""
        return cls(n, size, math.ceil(n / size))

    def bounds(self, i: int) -> tuple[int, int]:
        """Return the first row of shard i, from 0 on, and the one behind its last.

        Examples
        --------
        >>> [Shards.of(10, 4).bounds(i) for i in range(3)], [Shards(10, None, 3).bounds(i) for i in range(3)]
        ([(0, 4), (4, 8), (8, 10)], [(0, 3), (3, 6), (6, 10)])
        """
        if self.size is None:
            return self.n * i // self.count, self.n * (i + 1) // self.count
        return i * self.size, min((i + 1) * self.size, self.n)

    def name(self, i: int) -> str:
        """Return the name of shard i, from 0 on; names count from 1."""
        width = max(5, len(str(self.count)))
        return f"part-{i + 1:0{width}}-of-{self.count:0{width}}"


@dataclass(frozen=True)
class _Request:
    """What a shard is drawn from, whatever its number.

    Attributes
    ----------
    model : FittedModel
    whole : SamplePlan or None
        Of all rows, where the request says of each what it is to be.
    which : dict
        ``condition``, ``obs``, ``like`` and ``library_size`` of `SamplePlan`.
    options : SamplingOptions
    seed : int
    shards : Shards
    kind : str
        Format of the files.
    folder : Path
    schema : pyarrow.Schema or None
    device : str
        Where the network of the model is.
    """

    model: FittedModel | None
    whole: SamplePlan | None
    which: dict[str, Any]
    options: SamplingOptions
    seed: int
    shards: Shards
    kind: str
    folder: Path
    schema: Any
    device: str

    def shard_seed(self, i: int) -> int:
        """Return the seed of shard i; the first has that of the request, so that one shard is what `sample` draws."""
        if i == 0:
            return self.seed
        return int(np.random.SeedSequence([self.seed, i]).generate_state(1)[0] >> 1)

    def path(self, i: int) -> Path:
        """Return the file of shard i, or of images the note that it is whole."""
        if self.kind == "png":
            return self.folder / NOTES / self.shards.name(i)
        return self.folder / f"{self.shards.name(i)}.{self.kind}"

    def job(self, i: int) -> tuple[_Request, int, SamplePlan | None]:
        """Return what a worker needs for shard i: of a plan of all rows, its own part."""
        if self.whole is None:
            return self, i, None
        start, stop = self.shards.bounds(i)
        own = self.whole if self.shards.count == 1 else self.whole.part(start, stop, self.shard_seed(i))
        return replace(self, model=None, whole=None), i, own

    def plan(self, i: int) -> SamplePlan:
        """Return the plan of a shard of which all rows are asked for alike."""
        assert self.model is not None
        start, stop = self.shards.bounds(i)
        plan = SamplePlan(self.model, stop - start, options=self.options, seed=self.shard_seed(i), **self.which)
        plan.first = start
        return plan


def sample_to(
    model: FittedModel,
    path: str | os.PathLike,
    n_samples: int | None,
    which: Mapping[str, Any],
    options: SamplingOptions,
    *,
    seed: int | None,
    new_seed: int,
    shard_size: str | int = "auto",
    shard: tuple[int, int] | None = None,
    format: str = "auto",
    n_jobs: int | None = None,
    verbose: int = 0,
) -> None:
    """Draw rows into files; see `DiffusionGenerator.sample_to`.

    Parameters
    ----------
    model : FittedModel
    path : path-like
    n_samples : int or None
    which : mapping
        ``condition``, ``obs``, ``like`` and ``library_size`` of `SamplePlan`, by name.
    options : SamplingOptions
    seed : int or None
        Of the request. None takes that of a run that was begun, or else `new_seed`.
    new_seed : int
    shard_size, shard, format, n_jobs
        As in `DiffusionGenerator.sample_to`.
    verbose : int
        1 shows a bar of the shards.

    Raises
    ------
    ValueError, TypeError, OSError, ImportError
        As there.
    """
    if shard_size != "auto" and not is_integer(shard_size, 1):
        raise ValueError(f"shard_size must be 'auto' or an integer of at least 1; got {shard_size!r}.")
    _check_shard(shard, shard_size)
    check_n_jobs(n_jobs)
    options = replace(options, n_jobs=1)  # processes draw shards, not parts of them
    kind, single = output_format(path, model.container, format)
    # Processes that joblib keeps from an earlier call stand in the folder where they were started.
    path = Path(path).absolute()
    folder = _folder(path, single)
    model = model.in_pandas()
    if kind == "fasta" and not model.codec.text_:
        raise ValueError(f"path must end in .parquet or .csv for sequences of numbers; got {path.name!r}.")
    if folder.exists() and not (folder / MANIFEST).exists() and any(_visible(folder)):
        raise FileExistsError(f"{folder} holds other files than shards of this package. Choose another path.")
    before = read_manifest(folder / MANIFEST)
    own_seed = seed is not None
    seed = seed if seed is not None else int(before["seed"]) if before is not None else new_seed
    # Looked at before anything is drawn; the warnings of it are given once.
    by_row = _says_of_each_row(which)
    plan = SamplePlan(model, n_samples if by_row else None, options=options, seed=seed, **which)
    n = plan.n if by_row or n_samples is None else n_samples
    if not is_integer(n, 1):
        raise ValueError(f"n_samples must be a positive integer, got {n_samples!r}.")
    shards = _cut(int(n), shard_size, shard, before, model)
    folder.mkdir(exist_ok=True)
    if kind == "png":
        (folder / NOTES).mkdir(exist_ok=True)
    # Rows depend neither on how many are evaluated at once nor, beyond the seed, on where that came from.
    asked = dict(which) | {name: value for name, value in vars(options).items() if name not in FREE_OPTIONS}
    try:
        claim_folder(
            folder / MANIFEST,
            {
                "model": _digest_model(model),
                "request": {name: _digest(value) for name, value in asked.items()},
                "seed": seed,
                "n_samples": shards.n,
                "shard_size": shards.size if shards.size is not None else 0,
                "n_shards": shards.count,
                "format": kind,
            },
        )
        schema = parquet_schema(_example(model)) if kind == "parquet" else None
        device = str(next(model.denoiser.parameters()).device)
        whole = plan if by_row else None
        request = _Request(model, whole, dict(which), options, seed, shards, kind, folder, schema, device)
        wanted = range(shards.count) if shard is None else [shard[0] - 1]
        missing = [i for i in wanted if not request.path(i).exists()]
        if not missing and not own_seed and not single and shard is None:
            raise FileExistsError(
                f"{folder} holds all rows of a run that is over. For others, choose another path, or remove the folder."
            )
        _draw_shards(request, missing, n_jobs, verbose)
        if single and shard is None:
            join_shards([request.path(i) for i in range(shards.count)], path, kind, shards.n)
            shutil.rmtree(folder)
    finally:
        # Of a run that has not finished a shard there is nothing to keep.
        if single and folder.is_dir() and not any(p.name.startswith("part-") for p in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)


def is_begun(model: FittedModel, path: str | os.PathLike, format: str = "auto") -> bool:
    """Whether a run into `path` was begun, whose seed a call without one goes on with.

    Parameters
    ----------
    model : FittedModel
    path, format
        As in `sample_to`.

    Raises
    ------
    ValueError, ImportError
        For another ending or format.
    """
    _, single = output_format(path, model.container, format)
    return (_folder(Path(path), single) / MANIFEST).exists()


def _folder(path: Path, single: bool) -> Path:
    """Return where shards lie until one file is whole, or for good."""
    return path.with_name(f".{path.name}.shards") if single else path


def _visible(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.name[0] not in "._") if folder.is_dir() else iter([folder])


def _check_shard(shard: Any, shard_size: Any) -> None:
    if shard is None:
        return
    whole = isinstance(shard, tuple | list) and len(shard) == 2 and all(is_integer(v, 1) for v in shard)
    if not whole or shard[0] > shard[1]:
        raise ValueError(f"shard must be (i, k), the i-th of k shards, i from 1 to k; got {shard!r}.")
    if shard_size != "auto":
        raise ValueError(f"shard_size follows from shard={shard!r}, the number of shards. Leave one of them out.")


def _cut(
    n: int, size: str | int, shard: tuple[int, int] | None, before: dict[str, Any] | None, model: FittedModel
) -> Shards:
    """Return how n rows are cut: as asked, or as they were by the run that goes on."""
    if shard is not None:
        if shard[1] > n:
            raise ValueError(f"shard must be of at most as many shards as rows, {n}; got {tuple(shard)!r}.")
        return Shards(n, None, int(shard[1]))
    if size != "auto":
        return Shards.of(n, int(size))
    if before is not None:
        return Shards(n, before["shard_size"] or None, before["n_shards"])
    if model.container == "cells":
        return Shards.of(n, CELLS)
    width = model.config.n_continuous + len(model.codec.n_levels_)
    return Shards.of(n, int(np.clip(SHARD_VALUES // max(width, 1), MIN_SHARD_ROWS, MAX_SHARD_ROWS)))


def _says_of_each_row(which: Mapping[str, Any]) -> bool:
    """Whether a request is not the same for every row."""
    if any(which.get(name) is not None for name in ("obs", "like")):
        return True
    size = which.get("library_size")
    if size is not None and not isinstance(size, str) and np.ndim(size) > 0:
        return True
    condition = which.get("condition")
    values = list(condition.values()) if isinstance(condition, Mapping) else [condition]
    return not all(value is None or is_scalar(value) for value in values)


# ---------------------------------------------------------------- which run


def _digest_model(model: FittedModel) -> str:
    """Return a hash of everything that what is drawn depends on."""
    digest, arrays = hashlib.sha256(), dict[str, np.ndarray]()
    networks = [n for n in (model.denoiser, model.guiding_denoiser) if n is not None]
    for i, network in enumerate(networks):
        arrays |= {f"{i} {name}": value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    state: dict[str, Any] = {"autoguidance": model.autoguidance, "precision": model.precision, "source": model.source}
    for name in ("codec", "conditions", "refinement"):
        part = getattr(model, name)
        state[name] = None if part is None else part.state()
    try:
        digest.update(json.dumps(pack(state, arrays)).encode())
    except TypeError:  # a model that only pickles: its weights tell it from others
        digest.update(b"no description")
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _digest(value: Any) -> Any:
    """Return a part of a request as it stands in a manifest: itself, or a hash of what is in it."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return {str(name): _digest(entry) for name, entry in value.items()}
    import joblib

    plain = _plain(value)
    return f"{type(value).__name__} {joblib.hash(plain)}"


def _plain(value: Any) -> Any:
    """Return a container as arrays and plain values, of which equal ones have equal hashes."""
    if isinstance(value, pd.Series):
        return [value.name, str(value.dtype), value.to_list()]
    if isinstance(value, pd.DataFrame):
        return [list(value.index), [_plain(value.iloc[:, j]) for j in range(value.shape[1])]]
    if hasattr(value, "obs") and hasattr(value, "obs_names"):
        x = value.X
        return [_plain(value.obs), list(value.var_names), None if x is None else x[:]]
    return value if isinstance(value, np.ndarray | list | tuple) else (type(value).__qualname__, vars(value))


# ------------------------------------------------------------------- drawing


def _draw_shards(request: _Request, missing: list[int], n_jobs: int | None, verbose: int) -> None:
    """Draw shards by as many processes as asked."""
    import joblib
    from tqdm import tqdm

    if not missing:
        return
    # Without a model in each of them, where it lies in the plan of its rows.
    jobs = (joblib.delayed(_draw_shard)(*request.job(i)) for i in missing)
    with _one_thread(request.device):
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator" if verbose else "list")
        try:
            done = parallel(jobs)
            for _ in tqdm(done, total=len(missing), disable=not verbose, desc="sample", unit="shard"):
                pass
        except Exception as error:
            if "TerminatedWorker" in type(error).__name__:
                raise RuntimeError(
                    "a process that drew rows was ended, most likely because memory was full. Shards that are whole "
                    "are kept, and the same call goes on: take fewer n_jobs, or a smaller shard_size in another folder."
                ) from error
            raise


@contextlib.contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Compute with one thread on the CPU: with others, sums differ in their last bits."""
    from threadpoolctl import threadpool_limits

    with torch_threads(1), threadpool_limits(1):
        yield


def _draw_shard(request: _Request, i: int, plan: SamplePlan | None) -> None:
    """Draw one shard and write it; it runs in a process of its own, or in the one that asked."""
    if torch.get_num_threads() != 1:  # another process, which does nothing else
        torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say was said of the whole request
        plan = request.plan(i) if plan is None else plan
        plan.quiet = True
        if str(next(plan.model.denoiser.parameters()).device) != request.device:
            plan.model.to(request.device)
        rows, labels = plan.rows()
    start, path = request.shards.bounds(i)[0], request.path(i)
    try:
        if request.kind == "png":
            write_images(rows, request.folder, labels, start, request.shards.n)
            path.touch()
        elif request.kind in ("h5ad", "zarr", "npy"):
            write_shard(rows, path, request.kind)
        elif request.kind == "fasta":
            names = [f"synthetic-{start + j}" for j in range(len(rows))]
            if labels is not None:
                texts = labels.astype(str).agg(" ".join, axis=1)
                names = [f"{name} {text}" for name, text in zip(names, texts, strict=True)]
            write_shard(list(rows), path, request.kind, names=names)
        else:
            write_shard(as_table(plan.model, rows, labels), path, request.kind, schema=request.schema)
    except (DataFileError, OSError) as error:
        kind = OSError if isinstance(error, OSError) else DataFileError
        raise kind(
            f"shard {i + 1} of {request.shards.count}: {error}. Shards that are whole are kept, and the same call "
            "goes on with the others."
        ) from error


def _example(model: FittedModel) -> pd.DataFrame:
    """Return some rows that have a value in every column, but for those that have none."""
    codec, n = model.codec, EXAMPLE_ROWS
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(n, codec.n_continuous_ + len(codec.n_levels_), generator=generator)
    for j, levels in enumerate(codec.n_levels_, start=codec.n_continuous_):
        data[:, j] = torch.arange(n) % max(levels, 1)
    codec.mark_present(data)
    codes = None
    if model.conditions is not None:
        known = model.conditions.codes[~np.isnan(model.conditions.codes).any(axis=1)]
        known = known if len(known) else model.conditions.codes
        codes = torch.from_numpy(np.asarray(known[np.arange(n) % len(known)], dtype=np.float32))
    rows = codec.decode(data, codes, generator)
    labels = None if model.conditions is None or codes is None else model.conditions.decode(codes.numpy())
    return as_table(model, with_condition_columns(model, rows, labels), labels)


def as_table(model: FittedModel, rows: Any, labels: Any) -> pd.DataFrame:
    """Return rows and, where the fit took them from outside the rows, their conditions as one table.

    Parameters
    ----------
    model : FittedModel
    rows : DataFrame, ndarray (n, d) or sequences (n,)
        What was drawn.
    labels : DataFrame, array-like or None
        The conditions of the rows.
    """
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        rows = pd.DataFrame(rows, columns=[f"x{j}" for j in range(rows.shape[1])])
    elif not isinstance(rows, pd.DataFrame):
        rows = pd.DataFrame({"sequence": [v if isinstance(v, str) else " ".join(map(str, v)) for v in rows]})
    if labels is None or model.conditions is None:
        return rows
    if not isinstance(labels, pd.DataFrame):
        labels = pd.DataFrame({model.conditions.names[0]: list(labels) if np.ndim(labels) > 1 else labels})
    given = labels[[name for name in labels.columns if name not in rows.columns]]
    for name in model.conditions.vector_names:
        # A file of text has no vectors: a column for each of their numbers.
        if name in given and np.ndim(vectors := np.stack(given[name].to_list())) == 2:
            spread = pd.DataFrame(vectors, columns=[f"{name}_{j}" for j in range(vectors.shape[1])])
            given = pd.concat([given.drop(columns=[name]), spread], axis=1)
    table = pd.concat([rows, given], axis=1) if given.shape[1] else rows
    table.attrs = rows.attrs
    return table
