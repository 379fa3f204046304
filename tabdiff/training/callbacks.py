"""Callbacks: what is told how a fit goes on, and may end it.

A callback is an object with four methods, each of which is given the `Training` in progress; derive from `Callback` and
write the ones that are needed::

    class StopBelow(Callback):
        def __init__(self, loss):
            self.loss = loss

        def on_step_end(self, training):
            return bool(training.history["loss"]) and training.history["loss"][-1] < self.loss


    DiffusionGenerator(callbacks=[StopBelow(0.3)]).fit(X)

What a callback draws from generators of its own leaves the fit as it is: a fit gives the same model with and without.
"""

from __future__ import annotations

import copy
import csv
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabdiff.utils.validation import is_integer

if TYPE_CHECKING:
    from tabdiff.training.state import Training

__all__ = ["CSVLog", "Callback", "PeriodicSamples", "ProgressBar", "StopOnScore", "TensorBoard", "is_due"]

UNITS = ("steps", "epochs")


class Callback:
    """Base of callbacks; each method does nothing, and is given the :class:`Training` in progress.

    ``training.step`` is the number of steps done and ``training.history`` what was logged, an entry every 50 steps.
    ``training.snapshot()`` returns a fitted `DiffusionGenerator` with the averaged weights of now, to sample from.

    Examples
    --------
    >>> from tabdiff.training import Callback
    >>> callback = Callback()
    >>> print(callback.on_step_end(None))
    None
    """

    def on_fit_begin(self, training: Training) -> None:
        """Do what is due before the first step; after a resume, `training.step` is not 0."""

    def on_step_end(self, training: Training) -> bool | None:
        """Do what is due after a step, logged and validated if that was due; return True to end the fit here."""

    def on_validation_end(self, training: Training) -> bool | None:
        """Do what is due after the held-out rows were evaluated; return True to end the fit here."""

    def on_fit_end(self, training: Training) -> None:
        """Do what is due at the end, once; after an error or an interruption `training.finished` is False."""


def is_due(training: Training, every: int, unit: str) -> bool:
    """Return whether the last step completed another `every` of "steps" or "epochs"."""
    if unit == "steps":
        return training.step % every == 0
    rows, size = training.step * training.step_rows, every * training.epoch_rows
    return rows // size > (rows - training.step_rows) // size


class ProgressBar(Callback):
    """Show steps done, the loss of the last 50 and the time that is left: what ``verbose=1`` does.

    Examples
    --------
    >>> from tabdiff import DiffusionGenerator
    >>> gen = DiffusionGenerator(callbacks=[ProgressBar()])
    """

    def on_fit_begin(self, training: Training) -> None:
        """Start the bar where an interrupted fit stood."""
        from tqdm.auto import tqdm  # here, since in notebooks without widgets its import warns

        self._bar = tqdm(total=training.max_steps, initial=training.step, desc="fit", unit="step")

    def on_step_end(self, training: Training) -> bool | None:
        """Move on by a step."""
        if training.history.get("loss"):
            self._bar.set_postfix(loss=f"{training.history['loss'][-1]:.4f}", refresh=False)
        self._bar.update()
        return None

    def on_fit_end(self, training: Training) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


class CSVLog(Callback):
    """Write the history to a csv file as it grows, a row every 50 steps.

    Parameters
    ----------
    path : path-like
        The file; one that is there is replaced. The folder must exist.

    Examples
    --------
    >>> import tempfile, numpy as np, pandas as pd
    >>> from tabdiff import DiffusionGenerator
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = CSVLog(f"{folder}/log.csv")
    ...     gen = DiffusionGenerator(max_steps=60, hidden_size=16, callbacks=[log], random_state=0).fit(X)
    ...     pd.read_csv(f"{folder}/log.csv")["step"].to_list()
    [50, 60]
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path

    def on_fit_begin(self, training: Training) -> None:
        """Start the file, with what an interrupted fit has logged so far."""
        self._columns = [key for key in training.history if key != "validation_step"]
        self._written = 0
        with open(self.path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(self._columns)
        self._write(training)

    def on_step_end(self, training: Training) -> bool | None:
        """Write what is new."""
        self._write(training)
        return None

    def on_fit_end(self, training: Training) -> None:
        """Write the last entry."""
        self._write(training)

    def _write(self, training: Training) -> None:
        history, n_entries = training.history, len(training.history["step"])
        if self._written == n_entries:
            return
        validated = dict(zip(history.get("validation_step", ()), history.get("validation_loss", ()), strict=True))
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            for i in range(self._written, n_entries):
                step = history["step"][i]
                special = {"step": int(step), "validation_loss": validated.get(step, "")}
                row = [special[key] if key in special else history[key][i] for key in self._columns]
                csv.writer(file).writerow(row)
        self._written = n_entries


class PeriodicSamples(Callback):
    """Draw some rows every so many steps or epochs, always from the same seed, to see how they take shape.

    Parameters
    ----------
    target : path-like or callable
        A folder, made if need be, for files such as ``step-000500.csv`` (``.h5ad`` for cells, one ``.png`` with all
        of them for images); or a callable
        ``target(step, rows)`` that is given the rows in the container of the fit.
    every : int, default=500
        Steps, or epochs, between.
    unit : {"steps", "epochs"}, default="steps"
        What `every` counts; an epoch is as many rows as training has.
    n_samples : int, default=100
        Number of rows.
    condition : optional
        As in `DiffusionGenerator.sample`.
    random_state : int, default=0
        Of the rows.

    Examples
    --------
    >>> from tabdiff import DiffusionGenerator
    >>> from tabdiff.datasets import load_penguins
    >>> seen = []
    >>> watch = PeriodicSamples(lambda step, rows: seen.append((step, rows.shape)), every=10, n_samples=3)
    >>> gen = DiffusionGenerator(max_steps=20, hidden_size=16, callbacks=[watch], random_state=0).fit(load_penguins())
    >>> seen
    [(10, (3, 8)), (20, (3, 8))]
    """

    def __init__(
        self,
        target: str | os.PathLike | Callable[[int, Any], object],
        *,
        every: int = 500,
        unit: str = "steps",
        n_samples: int = 100,
        condition: Any = None,
        random_state: int = 0,
    ) -> None:
        _check_count("every", every)
        if unit not in UNITS:
            raise ValueError(f"unit must be 'steps' or 'epochs'; got {unit!r}.")
        self.target = target
        self.every = every
        self.unit = unit
        self.n_samples = n_samples
        self.condition = condition
        self.random_state = random_state

    def on_fit_begin(self, training: Training) -> None:
        """Make the folder, so that one that cannot be made is known before the work is done."""
        if not callable(self.target):
            Path(self.target).mkdir(parents=True, exist_ok=True)

    def on_step_end(self, training: Training) -> bool | None:
        """Draw where it is time."""
        if training.snapshot is not None and is_due(training, self.every, self.unit):
            rows = training.snapshot().sample(self.n_samples, self.condition, random_state=self.random_state)
            if callable(self.target):
                self.target(training.step, rows)
            else:
                _write_rows(rows, Path(self.target) / f"step-{training.step:06d}")
        return None


class StopOnScore(Callback):
    """Stop when a score of drawn rows no longer falls, and keep the averaged weights that scored best.

    For images the score is a Fréchet distance to real ones that the model does not train on::

        features = ClassifierFeatures(images, labels)
        known = features(unseen)
        stop = StopOnScore(lambda drawn: frechet_distance(known, features(drawn)), every=1000, n_samples=1000)

    A fit that is resumed starts to compare anew.

    Parameters
    ----------
    score : callable
        From rows in the container of the fit to a number; lower is better.
    every : int, default=1000
        Steps between.
    patience : int, default=5
        How many scores in a row may be no better than the best.
    n_samples : int, default=500
        Number of rows.
    condition : optional
        As in `DiffusionGenerator.sample`.
    random_state : int, default=0
        Of the rows, the same each time.

    Attributes
    ----------
    scores_ : list of (int, float)
        Steps and their scores.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff import DiffusionGenerator
    >>> X = np.random.default_rng(0).normal(5, 1, size=(200, 2))
    >>> stop = StopOnScore(lambda rows: abs(rows.mean() - 5), every=20, patience=2, n_samples=50)
    >>> gen = DiffusionGenerator(max_steps=60, hidden_size=16, callbacks=[stop], random_state=0).fit(X)
    >>> [step for step, score in stop.scores_][:2]
    [20, 40]
    """

    def __init__(
        self,
        score: Callable[[Any], float],
        *,
        every: int = 1000,
        patience: int = 5,
        n_samples: int = 500,
        condition: Any = None,
        random_state: int = 0,
    ) -> None:
        for name, value in (("every", every), ("patience", patience)):
            _check_count(name, value)
        self.score = score
        self.every = every
        self.patience = patience
        self.n_samples = n_samples
        self.condition = condition
        self.random_state = random_state

    def on_fit_begin(self, training: Training) -> None:
        """Forget the scores of an earlier fit."""
        self.scores_: list[tuple[int, float]] = []
        self._best: dict[str, Any] | None = None

    def on_step_end(self, training: Training) -> bool | None:
        """Score where it is time; True once the last `patience` scores were no better than the best."""
        if training.step % self.every or training.snapshot is None:
            return None
        rows = training.snapshot().sample(self.n_samples, self.condition, random_state=self.random_state)
        value = float(self.score(rows))
        values = [score for _, score in self.scores_]
        self.scores_.append((training.step, value))
        if value < min(values, default=math.inf):
            self._best = copy.deepcopy(training.ema.model.state_dict())
            return None
        best = values.index(min(values)) if values else -1
        return len(values) - best >= self.patience

    def on_fit_end(self, training: Training) -> None:
        """Put the best weights back, unless the fit was interrupted."""
        if training.finished and self._best is not None:
            training.ema.model.load_state_dict(self._best)
        self._best = None


class TensorBoard(Callback):
    """Write the history as scalars for TensorBoard.

    Parameters
    ----------
    log_dir : path-like
        The run's folder; ``tensorboard --logdir`` of it or of the folder above shows the curves.

    Raises
    ------
    ImportError
        In `fit`, if tensorboard is not installed.

    Examples
    --------
    >>> from tabdiff import DiffusionGenerator
    >>> from tabdiff.training import TensorBoard
    >>> gen = DiffusionGenerator(callbacks=[TensorBoard("logs")])
    """

    def __init__(self, log_dir: str | os.PathLike) -> None:
        self.log_dir = log_dir
        self._writer: Any = None

    def on_fit_begin(self, training: Training) -> None:
        """Open the writer; what an interrupted fit has logged stands in its own file."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "the callback TensorBoard needs tensorboard. Install it with: pip install tensorboard; "
                "CSVLog writes the same figures without it."
            ) from error
        self._writer = SummaryWriter(log_dir=os.fspath(self.log_dir))
        self._written = len(training.history["step"])

    def on_step_end(self, training: Training) -> bool | None:
        """Write what is new."""
        self._write(training)
        return None

    def on_fit_end(self, training: Training) -> None:
        """Write the last entry and close the file."""
        if self._writer is not None:
            self._write(training)
            self._writer.close()
            self._writer = None

    def _write(self, training: Training) -> None:
        history = training.history
        for i in range(self._written, len(history["step"])):
            step = int(history["step"][i])
            for key in ("loss", "gradient_norm", "learning_rate", "rows_per_second", "memory"):
                self._writer.add_scalar(key, history[key][i], step)
            if history.get("validation_step", [None])[-1:] == [step]:
                self._writer.add_scalar("validation_loss", history["validation_loss"][-1], step)
        self._written = len(history["step"])

    def __getstate__(self) -> dict:
        # A copy of the estimator that holds this, for another process or fold, has no part in an open file.
        return {**self.__dict__, "_writer": None}


def _check_count(name: str, value: Any) -> None:
    if not is_integer(value, 1):
        raise ValueError(f"{name} must be an integer of at least 1; got {value!r}.")


def _write_rows(rows: Any, path: Path) -> None:
    import pandas as pd

    from tabdiff.io.data_files import write_data
    from tabdiff.io.frames import to_pandas

    if isinstance(rows, list) or getattr(rows, "ndim", 2) > 2:
        from tabdiff.io.image_grid import save_grid

        save_grid(rows, path.with_suffix(".png"))
    elif hasattr(rows, "obs"):
        write_data(rows, path.with_suffix(".h5ad"))
    else:
        write_data(pd.DataFrame(to_pandas(rows)), path.with_suffix(".csv"))
