"""Filling the missing values of a table: draws from the model given the cells that are there, and point estimates."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs import container_name
from tabdiff.codecs.columns import NumericColumn, is_numeric
from tabdiff.codecs.conditions.conditions import resolve_condition
from tabdiff.codecs.tables.layout import slots
from tabdiff.codecs.tables.observed import copies, likeliest, patch, repeat, settle
from tabdiff.codecs.tables.unseen import hide_unknown, read_rows
from tabdiff.diffusion.generate import draw
from tabdiff.diffusion.masks import LEFT_OUT, PRESENT
from tabdiff.generation.options import SamplingOptions
from tabdiff.utils.processes import processes
from tabdiff.utils.random import RowStreams
from tabdiff.utils.validation import check_n_draws

if TYPE_CHECKING:
    from tabdiff.model.fitted import FittedModel

__all__ = ["check_masks", "encode_given", "impute"]

STRATEGIES = ("auto", "mean", "draw")
# A point estimate averages pairs of draws that start from opposite noise, whose errors cancel to first order.
PAIRS = 15
STEPS_MEAN, STEPS_DRAW = 5, 25


def check_masks(model: FittedModel, what: str) -> None:
    """Raise an error that says why a model cannot draw some columns given others, if it cannot.

    Raises
    ------
    TypeError
        If it was fitted on AnnData or sequences, or with a callable denoiser.
    ValueError
        If it was fitted with ``observed_masks=0``.
    """
    container = container_name(model.codec)
    if container == "sequences":
        raise TypeError(f"{what} is not available for sequences: a table with a column per position does it.")
    if container in ("cells", "multimodal", "images"):
        name = {"cells": "AnnData", "multimodal": "MuData"}.get(container, "images")
        raise TypeError(f"{what} is not available for {name}: a table model does it, fitted on a DataFrame or array.")
    if model.config.custom:
        raise TypeError(
            f"{what} needs a network that is told which entries are given, which a callable denoiser is not. "
            "Use denoiser='mlp' or 'dit'."
        )
    if model.config.missing_levels is None:
        raise ValueError(
            f"{what} needs a model fitted with observed_masks above 0; it was 0. Fit with "
            "training=TrainingOptions(observed_masks='auto')."
        )


def impute(
    model: FittedModel,
    features: Any,
    own: pd.DataFrame | None,
    table: Any,
    *,
    condition: Any,
    n_draws: int,
    strategy: str,
    options: SamplingOptions,
    seed: int,
    by_row: bool = False,
) -> Any:
    """Fill the missing values of a table; see `DiffusionGenerator.impute`.

    Parameters
    ----------
    model : FittedModel
    features : ndarray or DataFrame of shape (n, n_columns)
        Rows, checked, without condition columns.
    own : DataFrame or None
        Their condition, where the table carries it.
    table : ndarray or DataFrame
        What the values are put into; it stays as it is.
    condition, n_draws, strategy
        As in `DiffusionGenerator.impute`.
    options : SamplingOptions
        Its sampler, steps and batches are used.
    seed : int
    by_row : bool
        Whether the seed and a row alone decide what fills it, not its place or the rows beside it, so that the same
        rows come out alike in other batches (in float64, which takes longer). Draws for equal rows differ: the k-th of
        them gets the k-th draw.
    """
    check_n_draws(n_draws)
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {STRATEGIES}; got {strategy!r}.")
    if strategy == "mean" and n_draws > 1:
        raise ValueError(f"strategy='mean' gives one estimate; got {n_draws=}. Use strategy='draw'.")
    frame = pd.DataFrame(features).reset_index(drop=True)
    codes = None
    if condition is not None:
        codes = resolve_condition(model.conditions, len(frame), condition, 1.0, np.random.default_rng(seed))
    elif own is not None and model.conditions is not None:
        codes = torch.from_numpy(model.conditions.encode(own))
        holes_left = [name for name in model.condition_names if own[name].isna().any()]
        if holes_left:
            warnings.warn(
                f"the condition columns {holes_left} keep their missing values: a model draws rows given its declared "
                "conditions, not these. Fit without condition= to fill them too.",
                UserWarning,
                stacklevel=3,
            )
    # As the codec reads them: Arrow's numbers can be NaN beside null.
    every = model.codec.storage_.read(frame).isna().to_numpy()
    rows = np.flatnonzero(every.any(axis=1))
    part, examples = hide_unknown(model.codec, frame.iloc[rows].reset_index(drop=True))
    for name, example in examples.items():
        warnings.warn(
            f"column {name!r} holds values that it did not have in fit, such as {example!r}. They stay, and say "
            "nothing about the missing values beside them.",
            UserWarning,
            stacklevel=3,
        )
    # To the model an unknown level is a missing value too; what it draws there is not put in.
    is_missing = model.codec.storage_.read(part).isna().to_numpy()
    codes = codes[torch.from_numpy(rows)] if codes is not None else None
    mean = strategy == "mean" or (strategy == "auto" and n_draws == 1)
    settings: dict[str, Any] = {"method": options.method, "steps": options.steps, "batch_size": options.batch_size}
    settings |= {"precision": model.precision, "run": processes(options.n_jobs)}
    if options.steps == "auto" and options.method == "auto":
        settings["steps"] = STEPS_MEAN if mean else STEPS_DRAW
    generator: torch.Generator | RowStreams = torch.Generator().manual_seed(seed)
    rng: Any = np.random.default_rng(seed)
    denoiser = model.denoiser
    if by_row:
        settings["precision"], denoiser = "float32", copy.deepcopy(denoiser).double()
        generator = rng = RowStreams(_row_keys(part, seed, alike=mean))
    settings["generator"] = generator
    filled: list[Any] = []
    for _ in range(n_draws):
        if len(rows) == 0:
            filled.append(table.copy())
            continue
        data, means = (_estimate if mean else _draw)(model, denoiser, part, is_missing, codes, settings)
        for slot in slots(model.codec):
            if slot.presence is not None:
                data[:, slot.presence] = 0.0
        values = pd.DataFrame(model.codec.decode(data, codes, generator))
        for j, exact in means.items():
            if pd.api.types.is_float_dtype(values.iloc[:, j].dtype):
                series = values.iloc[:, j]
                values.isetitem(j, patch(series, is_missing[:, j], pd.Series(exact).astype(series.dtype)))
        if mean:
            likeliest(model.codec, values, is_missing, data)
        else:
            repeat(model.codec, values, part, is_missing, data)
        settle(model.codec, values, part, is_missing, rng)
        filled.append(_put_in(model, table, every, rows, values))
    return filled[0] if n_draws == 1 else filled


def _row_keys(frame: pd.DataFrame, seed: int, *, alike: bool) -> Tensor:
    """Return a key (n,) for the random numbers of each row, by what it holds; with `alike` one for all.

    Averages over the same noise for every row are a continuous function of the row: a last digit that differs does not
    change them.
    """
    seed_bytes = seed.to_bytes(8, "little")

    def key(content: bytes) -> int:
        return int.from_bytes(blake2b(content, digest_size=8, key=seed_bytes).digest(), "little", signed=True)

    if alike:
        return torch.full((len(frame),), key(b""))
    seen: Counter[bytes] = Counter()
    keys = []
    for row in pd.util.hash_pandas_object(frame, index=False).to_numpy():
        content = row.tobytes()
        keys.append(key(content + seen[content].to_bytes(8, "little")))
        seen[content] += 1
    return torch.tensor(keys, dtype=torch.int64)


def _draw(
    model: FittedModel, denoiser: Any, frame: pd.DataFrame, is_missing: np.ndarray, codes: Tensor | None, settings: Any
) -> tuple[Tensor, dict[int, np.ndarray]]:
    """Draw what is in missing cells; returns what `_estimate` does, without means."""
    given = encode_given(model.codec, frame, is_missing, settings["generator"], filling=True)
    return draw(denoiser, len(frame), codes, width=model.config.width, given=given, **settings), {}


def _estimate(
    model: FittedModel, denoiser: Any, frame: pd.DataFrame, is_missing: np.ndarray, codes: Tensor | None, settings: Any
) -> tuple[Tensor, dict[int, np.ndarray]]:
    """Estimate what is in missing cells: the mean of numbers, the likeliest level of categories.

    Returns
    -------
    data : Tensor of shape (n, d)
        Encoded rows.
    means : dict of ndarray
        For columns of floats, by their position, the mean itself: encoded, it would be rounded as the data are.
    """
    codec, generator, width = model.codec, settings["generator"], model.config.width
    given = encode_given(codec, frame, is_missing, None, filling=True)
    draws = []
    for _ in range(PAIRS):
        if isinstance(generator, RowStreams):
            noise = generator.normal(width)
        else:
            noise = torch.randn((len(frame), width), generator=generator)
        for start in (noise, -noise):
            draws.append(draw(denoiser, len(frame), codes, width=width, given=given, noise=start, **settings).numpy())
    stacked = np.stack(draws)
    data = draws[0].copy()
    means: dict[int, np.ndarray] = {}
    rebuilt = {target.column for target in codec.constraints_.rebuilt_}
    data[:, codec.equality_positions_] = 0.0  # a mean is no copy of another column, but that of copies
    copied = copies(codec, frame, is_missing, [torch.from_numpy(drawn) for drawn in draws])
    for j, slot in enumerate(slots(codec)):
        absent, column = is_missing[:, j], codec.columns_[j]
        for i in slot.values if absent.any() else []:
            values = stacked[:, absent, i]
            number = isinstance(column, NumericColumn)
            if not number and not is_numeric(column.dtype):
                data[absent, i] = _mode(values)
                continue
            # Few values make a number a category to the network; its mean is that of a number all the same.
            flat = values.ravel()
            if j in copied[0]:
                flat = np.stack([numbers[j][absent] for numbers in copied]).ravel()
            else:
                flat = column.decode_values(flat) if number else column.decode(flat).to_numpy(np.float64)
            mean = _mean(flat.reshape(values.shape))
            data[absent, i] = column.encode(mean, None) if number else column.encode(pd.Series(mean))
            # A rule that all values keep, what is filled in keeps too.
            rule = number and column.grid_ is not None
            if pd.api.types.is_float_dtype(column.dtype) and j not in rebuilt and not rule:
                means[j] = mean
    return torch.from_numpy(data), means


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of each column of an array (n_draws, n), also where the sum would be too large for a float."""
    with np.errstate(over="ignore"):
        mean = values.mean(axis=0)
    return mean if np.isfinite(mean).all() else np.where(np.isfinite(mean), mean, (values / len(values)).sum(axis=0))


def _mode(codes: np.ndarray) -> np.ndarray:
    """Return the most frequent code of each column of an array (n_draws, n), the smaller one of two."""
    ordered = np.sort(codes, axis=0)
    counts = np.stack([(ordered == row).sum(axis=0) for row in ordered])
    return np.take_along_axis(ordered, counts.argmax(axis=0)[None], axis=0)[0]


def encode_given(
    codec: Any, frame: pd.DataFrame, is_missing: np.ndarray, generator: torch.Generator | None, *, filling: bool
) -> Tensor:
    """Encode what is there of a table, in the form of `tabdiff.diffusion.masks`.

    Parameters
    ----------
    codec : TableCodec
        Fitted.
    frame : DataFrame of shape (n, n_columns)
        The rows; what stands in missing cells is not looked at.
    is_missing : ndarray of shape (n, n_columns)
        Where values are to be drawn.
    generator : torch.Generator, optional
        Draws places inside steps, as `TableCodec.encode` does.
    filling : bool
        Whether what is drawn is known not to be missing; else it may come out as missing.

    Returns
    -------
    Tensor of shape (n, d)
    """
    example = pd.DataFrame(codec.decode(torch.zeros(1, codec.n_continuous_ + len(codec.n_levels_))))
    complete = frame.copy(deep=False)
    for j, name in enumerate(frame.columns):
        absent = is_missing[:, j]
        if absent.any():
            value = example.iloc[0, j]
            complete[name] = _fill(frame[name], absent, value)
    # What is counted from a missing value may be none of the levels that were seen.
    rows = read_rows(codec, complete, len(complete), generator=generator)
    data = rows.data
    given = torch.full_like(data, torch.nan)
    # What stands for a rebuilt column is its distance from others, which missing values in these leave unknown.
    parts = {target.column: [i for _, i in target.parts] for target in codec.constraints_.rebuilt_}
    for j, slot in enumerate(slots(codec)):
        unknown = torch.from_numpy(is_missing[:, [j, *parts.get(j, [])]].any(axis=1))
        for i in slot.values:
            unknown = unknown | rows.unknown[:, i]
            given[:, i] = torch.where(unknown, PRESENT if filling else torch.nan, data[:, i])
        if slot.presence is not None:
            if filling:
                given[:, slot.presence] = LEFT_OUT
            else:
                given[~unknown, slot.presence] = 0.0
    return given


def _fill(series: pd.Series, where: np.ndarray, value: Any) -> pd.Series:
    """Return a Series with a value, which may be a tuple, in the place of some entries."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        code = dtype.categories.get_indexer(pd.Index([value], tupleize_cols=False))[0]
        if code >= 0:
            codes = np.where(where, code, series.cat.codes)
            return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype), series.index)
    elif dtype.kind in "fmM":
        return series.mask(where, value)
    out = series.astype(object).to_numpy(copy=True)
    for i in np.flatnonzero(where):
        out[i] = value
    return pd.Series(out, series.index, dtype=object)


def _put_in(model: FittedModel, X: Any, is_missing: np.ndarray, rows: np.ndarray, values: pd.DataFrame) -> Any:
    """Return a copy of X with values, which has a row for each of `rows`, in its missing values (n, n_columns)."""
    if isinstance(X, np.ndarray):
        drawn = values.to_numpy()
        # What was drawn is as exact as the fit's numbers, which may be more so than those of X.
        out = X.astype(np.promote_types(X.dtype, drawn.dtype))
        out[is_missing] = drawn[is_missing[rows]]
        fitted = out.astype(model.codec.dtype_)
        return fitted if np.array_equal(fitted, out) else out
    out = X.copy()
    for j, name in enumerate(model.codec.index_):
        absent = is_missing[:, j]
        if absent.any():
            # A Series, because pandas would look into a bare array of objects and take it for times.
            out[name] = patch(out[name], absent, values.iloc[:, j][absent[rows]])
    return out
