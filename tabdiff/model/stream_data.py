"""What stands before training starts where rows do not fit into memory: two passes over them.

The first surveys the rows for the codec (`tabdiff.codecs.tables.survey`), the second encodes them into one file of
small types, of which training reads blocks (`tabdiff.io.row_store`). What looks at rows themselves, the refinement and
autoguidance, sees the survey's sample of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.columns import FrameStorage, LevelColumn, text_codes
from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.codecs.inputs import FitInputs
from tabdiff.codecs.tables.survey import TableSurvey
from tabdiff.io.atomic import ScratchFolder, replacing
from tabdiff.io.csv_files import CsvForm
from tabdiff.io.data_files import DataFileError
from tabdiff.io.frame_source import FrameSource
from tabdiff.io.row_store import RowStore, StoredColumns, record_dtype
from tabdiff.model.build import new_codec
from tabdiff.model.fitted import FittedModel
from tabdiff.training.checkpoint import describe_parameters
from tabdiff.utils.random import RowStreams

__all__ = [
    "EncodedStream",
    "Folder",
    "check_stream",
    "encode_stream",
    "fit_table_codec",
    "in_memory",
    "stream_folder",
    "survey_rows",
]

# Chunks after which the first pass is noted, so that one that is killed goes on from there.
NOTED_CHUNKS = 64
PASSES = ("survey", "encode")


class EncodedStream:
    """Rows of a stream, encoded, and what else a fit needs to know of them.

    Attributes
    ----------
    data, condition : StoredColumns
        Rows (n, d), and their condition (n, k) or None.
    held_out : tuple of Tensor, or None
        Encoded rows that training does not see and their condition or None.
    frequencies : list of ndarray
        Share of each level of each code among all rows.
    """

    def __init__(
        self, store: RowStore, held_out: np.ndarray | None, counts: list[np.ndarray], n_condition: int
    ) -> None:
        self.data = StoredColumns(store, ["numbers", "codes"])
        self.condition = StoredColumns(store, ["given"]) if n_condition else None
        self.held_out: tuple[Tensor, Tensor | None] | None = None
        if held_out is not None:
            names = [name for name in ("numbers", "codes") if name in (held_out.dtype.names or ())]
            rows = np.concatenate([held_out[name].astype(np.float32) for name in names], axis=1)
            given = torch.from_numpy(held_out["given"].copy()) if n_condition else None
            self.held_out = torch.from_numpy(rows), given
        self.frequencies = [count / max(count.sum(), 1) for count in counts]


class Folder:
    """Where what the passes leave lies: in a folder of the user's, for a pass that is killed, or a temporary one.

    Parameters
    ----------
    cache_dir : path-like, optional
        Files of several fits can lie in it.
    name : str
        Of this fit: what the files depend on.
    """

    def __init__(self, cache_dir: str | os.PathLike | None, name: str) -> None:
        self.kept = cache_dir is not None
        try:
            if cache_dir is None:
                self._temporary = ScratchFolder("tabdiff-rows-")
                self.path = Path(self._temporary.name)
            else:
                self.path = Path(cache_dir) / f"tabdiff-{name[:24]}"
                self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"cache_dir must be a folder that can be written to; got {cache_dir!r}: {error}") from error


def check_stream(sample_weight: Any, previous: FittedModel | None) -> None:
    """Refuse what needs all rows in memory."""
    if sample_weight is not None:
        raise ValueError(
            "sample_weight must be left out where X is read from files; got a weight for each row. Read the table, "
            "or write rows as often as they are to count."
        )
    if previous is not None:
        raise ValueError(
            "warm_start must be False where X is read from files, for which the codec is fitted anew; got True. To go "
            "on with an interrupted fit, use the callback Checkpoint and resume_from."
        )


def stream_folder(inputs: FitInputs, options: Any, seed: int, cache_dir: str | os.PathLike | None) -> Folder:
    """Return where the passes over the rows of a fit are kept."""
    names = [] if inputs.condition is None else list(inputs.condition.columns)
    asked = ("codec", "categorical_features", "constraints", "early_stopping", "validation_fraction")
    settings = describe_parameters({name: getattr(options, name) for name in asked})
    text = repr((inputs.features.digest(), names, seed, settings))
    return Folder(cache_dir, hashlib.sha256(text.encode()).hexdigest())


def survey_rows(source: FrameSource, conditions: list[str], seed: int, folder: Folder, verbose: int) -> TableSurvey:
    """Make the first pass, or go on with one that was killed.

    Raises
    ------
    ValueError, TypeError
        For values that cannot be modelled, and fewer than two rows.
    OSError
        If a file cannot be read, or the cache not be written.
    """
    note = folder.path / "survey.joblib"
    survey: TableSurvey | None = None
    done = False
    if folder.kept and note.exists():
        try:
            survey, done = joblib.load(note)
        except Exception:  # a note that was cut off, or of another version, is begun again
            survey = None
    if survey is None:
        survey = TableSurvey(source.names, conditions, seed)
    if done:
        return survey
    for i, chunk in enumerate(_shown(source.chunks(survey.n_rows), PASSES[0], survey.n_rows, verbose), start=1):
        survey.add(chunk)
        if folder.kept and i % NOTED_CHUNKS == 0:
            _note(note, (survey, False))
    if survey.n_rows < 2:
        raise ValueError(f"Found {survey.n_rows} row(s) in the files, while a minimum of 2 is required.")
    if folder.kept:
        _note(note, (survey, True))
    return survey


def _note(path: Path, content: Any) -> None:
    try:
        with replacing(path) as temporary:
            joblib.dump(content, temporary)
    except OSError as error:
        raise OSError(f"the state of the pass cannot be kept in {path}: {error}. Make room in cache_dir.") from error


def encode_stream(
    source: FrameSource,
    survey: TableSurvey,
    codec: Any,
    conditions: Conditions | None,
    *,
    seed: int,
    folder: Folder,
    held_out: float = 0.0,
    verbose: int = 0,
) -> EncodedStream:
    """Make the second pass, or go on with one that was killed.

    The numbers that place a row inside the steps of its columns follow from its own number, and so do not depend on
    where the pass was interrupted.

    Parameters
    ----------
    source : FrameSource
    survey : TableSurvey
    codec : TableCodec
    conditions : Conditions or None
    seed : int
    folder : Folder
    held_out : float
        Share of the rows that are put aside.
    verbose : int

    Raises
    ------
    ValueError
        For a row that breaks a declared constraint, or files that changed between the passes.
    OSError
        If a file cannot be read, or the disk is full. What was written stays, and a fit with the same `cache_dir` goes
        on behind it.
    """
    n_condition = 0 if conditions is None else len(conditions.n_levels)
    levels = list(codec.n_levels_)
    dtype = record_dtype(codec.n_continuous_, levels, n_condition)
    name = hashlib.sha256(repr((source.digest(), seed, held_out, dtype.descr)).encode()).hexdigest()
    path, note, aside_path = (folder.path / file for file in ("rows.bin", "rows.json", "held-out.bin"))
    state = _read_state(note, name, path, dtype)
    done, n_aside = state["rows"], state["held_out"]
    counts = [np.asarray(count, dtype=np.int64) for count in state["counts"]] or [
        np.zeros(k, dtype=np.int64) for k in levels
    ]
    absorbing = _absorbing(codec, survey)
    try:
        with (
            _open_at(path, (done - n_aside) * dtype.itemsize) as rows,
            _open_at(aside_path, n_aside * dtype.itemsize) as aside,
        ):
            begun = done
            for chunk in _shown(source.chunks(begun), PASSES[1], begun, verbose, survey.n_rows):
                records, out = _encode_chunk(codec, conditions, chunk, done, seed, dtype, held_out, absorbing)
                (records[~out]).tofile(rows)
                if out.any():
                    records[out].tofile(aside)
                    n_aside += int(out.sum())
                for j, count in enumerate(counts):
                    count += np.bincount(records["codes"][:, j], minlength=len(count))[: len(count)]
                done += len(chunk)
                rows.flush()
                aside.flush()
                if folder.kept:
                    _write_state(note, name, done, n_aside, counts)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.path.exists():
            raise OSError(f"the folder {folder.path} of the encoded rows vanished. Fit again.") from error
        goes_on = " A fit with the same cache_dir goes on from here." if folder.kept else ""
        raise OSError(f"the encoded rows cannot be written to {path}: {error}. Make room.{goes_on}") from error
    if done != survey.n_rows:
        raise DataFileError(
            f"the files had {survey.n_rows} rows in the first pass and {done} in the second. Fit when they are written."
        )
    put_aside = np.fromfile(aside_path, dtype=dtype) if held_out else None
    store = RowStore(path, dtype, done - n_aside, name, folder)
    return EncodedStream(store, put_aside, counts, n_condition)


def _absorbing(codec: Any, survey: TableSurvey) -> dict[Any, LevelColumn]:
    """Return the columns of more levels than were counted: what was not is one of the rare."""
    found = {}
    for column in codec.columns_:
        if isinstance(column, LevelColumn) and column.n_rare_ and not survey.is_exact(column.name):
            found[column.name] = column
    return found


def _encode_chunk(
    codec: Any,
    conditions: Conditions | None,
    chunk: pd.DataFrame,
    first: int,
    seed: int,
    dtype: np.dtype,
    held_out: float,
    absorbing: dict[Any, LevelColumn],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the records of rows, and which of them are put aside."""
    names = [] if conditions is None else conditions.names
    features = chunk[[name for name in chunk.columns if name not in names]]
    codec.check_constraints(features)
    if not codec.constraints:
        features = _texts_as_categories(codec, features, absorbing)
    features = codec.read(features)
    for name, column in absorbing.items():
        unknown = column.is_unknown(features[name])
        if unknown.any():
            rare = column.at(np.full(len(features), column.one_more_rare()[0]))
            features = features.assign(**{name: features[name].where(~unknown, rare.to_numpy())})
    streams = RowStreams(torch.arange(first, first + len(chunk)) + (seed << 20))
    out = streams.uniform(1)[:, 0].numpy() < held_out
    data = codec.encode_read(features, streams.spawn()).numpy()
    records = np.zeros(len(chunk), dtype=dtype)
    k = codec.n_continuous_
    if k:
        records["numbers"] = data[:, :k]
    if data.shape[1] > k:
        records["codes"] = data[:, k:]
    if conditions is not None:
        records["given"] = conditions.encode(chunk[names])
    return records, out


def _texts_as_categories(codec: Any, frame: pd.DataFrame, but: Container) -> pd.DataFrame:
    """Return text that is to be levels as categories, which takes a tenth of the time of Python's strings."""
    found = {}
    for column in codec.columns_:
        if isinstance(column, LevelColumn) and column.name not in but:
            text = text_codes(frame[column.name])
            if text is not None:
                found[column.name] = pd.Categorical.from_codes(text[0], text[1])
    return frame.assign(**found)


def _open_at(path: Path, position: int) -> Any:
    """Open a file for writing behind what is known to be good."""
    file = open(path, "r+b" if path.exists() else "w+b")
    file.truncate(position)
    file.seek(position)
    return file


def _read_state(note: Path, name: str, path: Path, dtype: np.dtype) -> dict[str, Any]:
    state: dict[str, Any] = {"rows": 0, "held_out": 0, "counts": []}
    try:
        read = json.loads(note.read_text())
    except (OSError, ValueError):
        return state
    if read.get("name") != name or not path.exists():
        return state
    whole = path.stat().st_size >= (read["rows"] - read["held_out"]) * dtype.itemsize
    return read if whole else state


def _write_state(note: Path, name: str, rows: int, n_aside: int, counts: list[np.ndarray]) -> None:
    state = {"name": name, "rows": rows, "held_out": n_aside, "counts": [c.tolist() for c in counts]}
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(state))


def _shown(
    chunks: Iterator[pd.DataFrame], what: str, begun: int, verbose: int, total: int | None = None
) -> Iterator[pd.DataFrame]:
    """Show a bar of the rows of a pass."""
    if not verbose:
        yield from chunks
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=begun, desc=what, unit="row", unit_scale=True) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def fit_table_codec(
    inputs: FitInputs, options: Any, survey: TableSurvey, seed: int, device: torch.device
) -> tuple[Any, Conditions | None, FitInputs, Tensor | None]:
    """Fit a codec and conditions on the sample of a survey.

    Returns
    -------
    codec : TableCodec
    conditions : Conditions or None
    inputs : FitInputs
        Of the sampled rows.
    codes : Tensor of shape (m, k) or None
        Their condition.
    """
    frame, n_sampled = survey.sample()
    frame = _in_own_types(frame, inputs)
    names = survey.conditions
    features = frame[[name for name in frame.columns if name not in names]]
    conditions = Conditions(frame[names], None, None) if names else None
    codes = None if conditions is None else torch.from_numpy(conditions.codes)
    codec = new_codec(options, features)
    levels = conditions.n_levels if conditions is not None else []
    codec.fit(features, codes, levels, survey=survey, seed=seed, device=device)
    if conditions is not None and codes is not None:
        conditions.codes, codes = conditions.codes[:n_sampled], codes[:n_sampled]
    sampled = replace(
        inputs,
        features=features.iloc[:n_sampled],
        condition=frame[names].iloc[:n_sampled] if names else None,
    )
    return codec, conditions, sampled, codes


def _in_own_types(frame: pd.DataFrame, inputs: FitInputs) -> pd.DataFrame:
    """Return rows of csv files, which are read as Arrow, in the types that drawn ones are to have: those of pandas.

    Whole numbers and truth values stay what they are where some are missing, unlike in `pandas.read_csv`.
    """
    if not isinstance(inputs.origin, CsvForm):
        return frame
    frame = FrameStorage.read(frame)
    plain = {n: c.dtype.numpy_dtype for n, c in frame.items() if hasattr(c.dtype, "numpy_dtype") and not c.isna().any()}
    return frame.astype(plain)


def in_memory(inputs: FitInputs, survey: TableSurvey) -> FitInputs:
    """Return the inputs of so few rows that the survey has kept all of them."""
    frame = _in_own_types(survey.sample()[0], inputs)
    features = frame[[name for name in frame.columns if name not in survey.conditions]]
    return replace(inputs, features=features, condition=frame[survey.conditions] if survey.conditions else None)
