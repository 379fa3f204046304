"""What `DiffusionGenerator.sample` was asked for, checked and completed, and the drawing of it, some rows at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from joblib import effective_n_jobs
from torch import Tensor

from tabdiff.codecs.conditions.conditions import resolve_condition
from tabdiff.codecs.conditions.vector import as_array
from tabdiff.diffusion.generate import beside, default_steps, draw, guide, rows_at_once
from tabdiff.diffusion.samplers.sample import check_method
from tabdiff.generation.cells import CellRequest, carry_colors, match_totals, unseen_offsets
from tabdiff.generation.column_conditions import Held, split_condition
from tabdiff.generation.options import SamplingOptions
from tabdiff.generation.progress import announce, progress_bar, seconds_of_drawing
from tabdiff.io.frames import ForeignFrame
from tabdiff.io.modalities import Modalities
from tabdiff.model.refinement.refinement import row_features
from tabdiff.utils.processes import processes
from tabdiff.utils.validation import is_integer

if TYPE_CHECKING:
    from tabdiff.model.fitted import FittedModel

__all__ = ["SamplePlan", "with_condition_columns"]

_NO_GUIDANCE = ("classifier_free", 1)


@dataclass(frozen=True)
class Features:
    """What trees see of candidates (m, d) for places (m,) of which the conditions are known; see `row_features`."""

    codec: Any
    codes: Tensor | None

    def __call__(self, rows: Tensor, places: Tensor) -> np.ndarray:
        return row_features(self.codec, rows, None if self.codes is None else self.codes[places])


class SamplePlan:
    """A checked request for rows of a fitted model.

    Parameters
    ----------
    model : FittedModel
    n_samples, condition, obs, like, library_size
        As in `DiffusionGenerator.sample`: which rows.
    options : SamplingOptions
        How they are drawn.
    seed : int
        Of every draw.
    verbose : int
        1 shows a progress bar.

    Attributes
    ----------
    n : int
        Number of rows.
    codes : Tensor of shape (n, n_attributes) or None
        Encoded conditions.
    """

    def __init__(
        self,
        model: FittedModel,
        n_samples: int | None,
        condition: Any,
        options: SamplingOptions,
        *,
        obs: Any = None,
        like: Any = None,
        library_size: Any = None,
        seed: int,
        verbose: int = 0,
    ) -> None:
        if n_samples is not None and not is_integer(n_samples, 1):
            raise ValueError(f"n_samples must be None or a positive integer; got {n_samples!r}.")
        if isinstance(model.origin, ForeignFrame):
            model.origin.check()
        self.model, self.options, self.seed = model, options, seed
        guidance, guidance_scale, method = options.guidance, options.guidance_scale, options.method
        self.run, self.n_jobs, self.verbose = processes(options.n_jobs), effective_n_jobs(options.n_jobs), verbose
        self.generator, self.first, self.quiet = torch.Generator().manual_seed(seed), 0, False
        request = CellRequest.read(model, n_samples, condition, obs, like, library_size, seed)
        condition, columns = split_condition(model, request.condition)
        self.condition, self.balanced = condition, condition is None
        self.held = Held.read(model, columns) if columns else None
        n_samples = self.held.n_rows(request.n_samples) if self.held else request.n_samples
        # A callable may use the scale for something else than a condition, such as a weak model.
        own = callable(guidance)
        scale = 1.0 if own or (self.held and model.conditions is None) else guidance_scale
        self.codes = resolve_condition(model.conditions, n_samples, condition, scale, np.random.default_rng(seed))
        self.n = len(self.codes) if self.codes is not None else (n_samples or 1)
        self.given = self.held.encode(model.codec, self.n, self.generator) if self.held else None
        # Where guidance changes the distribution, neither autoguidance nor the density ratio know what to aim at.
        guided = self.codes is not None or self.held is not None
        guiding = own or (guided and (guidance, guidance_scale) != _NO_GUIDANCE)
        self.guidance = guidance if guiding else None
        if not (isinstance(method, str) and method == "auto"):
            check_method(method, self._guide())
        self.obs, self.by_rank = request.obs, request.by_rank
        self.totals = request.resolve_totals(model, self.codes, self.n, seed)
        self.offsets = unseen_offsets(model, self.codes)

        # What the density ratio says holds under the conditions of the training rows.
        usable = not guiding and not self.held
        if usable and self.codes is not None and model.conditions is not None:
            usable = not model.conditions.hidden(self.codes)
        self.refinement = model.refinement if usable else None
        self.as_at_fit = options.steps == "auto" and isinstance(method, str) and method == "auto"
        self.settings = self._settings()

    def _guide(self) -> Any:
        """Return what samples, if it is not what draws rows to refine."""
        if self.guidance is None:
            return self.model.guided
        return guide(self.model.denoiser, self.options.guidance_scale, self.guidance)

    def _settings(self) -> dict[str, Any]:
        """Return what samples, and how: rows that are refined come as those did from which that was learned."""
        if self.refinement is not None and self.as_at_fit:
            return self.model.refined_settings()
        options = self.options
        return {"guided": self._guide(), "method": options.method, "steps": options.steps, "grid": "auto"}

    def part(self, start: int, stop: int, seed: int) -> SamplePlan:
        """Return the plan of the rows from `start` to `stop` alone, which draws with another seed.

        What these are to be, conditions that were drawn included, is as in this plan.
        """
        part = copy.copy(self)
        vars(part).pop("_refined", None)
        part.n, part.first, part.seed = stop - start, self.first + start, seed
        part.generator = torch.Generator().manual_seed(seed)
        rows = slice(start, stop)
        part.codes = None if self.codes is None else self.codes[rows].clone()
        part.given = None if self.given is None else self.given[rows].clone()
        part.totals = None if self.totals is None else self.totals[rows]
        part.obs = None if self.obs is None else self.obs.iloc[rows]
        part.held = None if self.held is None else self.held.rows(start, stop)
        labels = self._labels
        vars(part)["_labels"] = None if labels is None else labels.iloc[rows].reset_index(drop=True)
        part.balanced, part.condition = self.balanced, None
        return part

    def __getstate__(self) -> dict[str, Any]:
        # A generator of random numbers does not travel; the seed, from which a new one starts, does.
        return {name: value for name, value in vars(self).items() if name not in ("settings", "generator")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.settings = self._settings()

    def _codes(self, places: Tensor) -> Tensor | None:
        return self.codes[places] if self.codes is not None else None

    @cached_property
    def _labels(self) -> pd.DataFrame | None:
        """The condition of every row, as users know it."""
        if self.codes is None or self.model.conditions is None:
            return None
        return self.model.conditions.decode(self.codes.numpy(), self.condition)

    @cached_property
    def _refined(self) -> Tensor:
        """All rows, refined: they are chosen together, also where some are asked for at a time."""
        assert self.refinement is not None
        self._announce(self.n / self.refinement.share_kept(self.as_at_fit))
        self.refinement.to(next(self.model.denoiser.parameters()).device)
        with progress_bar(self.n, bool(self.verbose)) as progress:
            return self.refinement.draw(
                self.n,
                self._draw,
                Features(self.model.codec, self.codes),
                self.generator,
                self._groups(),
                balanced=self.balanced,
                reject_noise=self.as_at_fit,
                run=self.run,
                progress=progress,
            )

    def _announce(self, rows: float) -> None:
        """Say how long it takes to draw so many rows, where that is more than a minute."""
        if self.quiet:  # one of many parts
            return
        denoiser, width = self.model.denoiser, self.model.config.width
        size = rows_at_once(denoiser, width, self.options.batch_size)
        # A batch is soon drawn, but of images; and what users wrote themselves is not called but to draw.
        if callable(self.options.guidance) or (rows <= size and not denoiser.keeps_maps):
            return
        steps = self.settings["steps"]
        steps = default_steps(self.options.method, denoiser.schedule) if steps == "auto" else int(steps)
        batch = torch.arange(min(size, self.n))
        codes = self._codes(batch)
        given = None if self.given is None else self.given[batch].float()
        codes = None if codes is None else codes.float()
        device = next(denoiser.parameters()).device
        told = codes if given is None else beside(denoiser, codes, given)
        seconds = seconds_of_drawing(
            self.settings["guided"],
            denoiser.schedule,
            None if told is None else told.to(device),
            width=width,
            rows=rows,
            at_once=len(batch),
            steps=steps,
            precision=self.model.precision,
            device=device,
        )
        announce(seconds, self.n, self.n_jobs if device.type == "cpu" else 1)

    def _draw(
        self, places: Tensor, noise: Tensor | None = None, progress: Callable[[int], None] | None = None
    ) -> Tensor:
        return draw(
            self.model.denoiser,
            len(places),
            self._codes(places),
            width=self.model.config.width,
            generator=self.generator,
            **self.settings,
            condition_last=self.options.guidance_scale != 0,
            batch_size=self.options.batch_size,
            precision=self.model.precision,
            given=self.given[places] if self.given is not None else None,
            noise=noise,
            run=self.run,
            progress=progress,
        )

    def _raw(self, places: Tensor) -> Tensor:
        """Draw rows that are not refined."""
        if not int(places[0]):
            self._announce(self.n)
        with progress_bar(len(places), bool(self.verbose)) as progress:
            return self._draw(places, progress=progress)

    def _groups(self) -> np.ndarray:
        """Number the conditions: rows of the same one have the same number, (n,)."""
        if self.codes is None:
            return np.zeros(self.n, dtype=np.int64)
        return np.unique(self.codes.numpy(), axis=0, return_inverse=True)[1].reshape(-1)

    def rows(self, start: int = 0, stop: int | None = None) -> tuple[Any, pd.DataFrame | None]:
        """Draw the rows from `start` to `stop`, all by default: in the fit's container, and their conditions."""
        model = self.model
        places = torch.arange(start, self.n if stop is None else min(stop, self.n))
        data = self._raw(places) if self.refinement is None else self._refined[places]
        codes = self._codes(places)
        if self.totals is not None or self.offsets:
            totals = None if self.totals is None else self.totals[places.numpy()]
            totals = match_totals(totals, data, codes) if totals is not None and self.by_rank else totals
            rows = model.codec.decode(data, codes, self.generator, totals, self.offsets)
        else:
            rows = model.codec.decode(data, codes, self.generator)
        rows = self.held.put_in(model.codec, rows, data) if self.held else rows
        labels = None if self._labels is None else self._labels.iloc[places.numpy()].reset_index(drop=True)
        return self._put_back(rows, labels, places.numpy()), labels

    def _put_back(self, rows: Any, labels: pd.DataFrame | None, places: np.ndarray) -> Any:
        """Return condition columns to where they were taken from."""
        model = self.model
        rows = with_condition_columns(model, rows, labels)
        if isinstance(rows, pd.DataFrame | pd.Series):
            return rows if model.origin is None else model.origin.write(rows)
        if isinstance(rows, np.ndarray | list):
            return rows
        if self.obs is not None:
            rows.obs = self.obs.iloc[places].set_axis(self.obs.index[places].astype(str))
        elif self.first + places[0] > 0:
            rows.obs_names = [f"synthetic-{self.first + i}" for i in places]
        vectors = model.conditions.vector_names if model.conditions is not None else []
        for name, values in labels.items() if labels is not None else ():
            if name in vectors:
                rows.obsm[name] = as_array(values)
                continue
            text = values.dtype == object or pd.api.types.is_string_dtype(values.dtype)
            rows.obs[name] = (values.astype("category") if text else values).array
        carry_colors(rows, model.codec.colors_)
        scale = float(self.options.guidance_scale)
        rows.uns["tabdiff"] = {"seed": self.seed, "guidance_scale": scale, "n_steps": model.n_steps}
        return rows.to_mudata() if isinstance(rows, Modalities) else rows


def with_condition_columns(model: FittedModel, rows: Any, labels: pd.DataFrame | None) -> Any:
    """Return a frame (n, d) with its conditions (n, k) where the fit took them from; other containers as they are."""
    if model.source != "columns":
        return rows
    assert labels is not None and model.columns is not None
    own = {name: rows.shape[1] + i for i, name in enumerate(labels.columns)}
    others = iter(range(rows.shape[1]))
    order = [own[name] if name in own else next(others) for name in model.columns]
    return pd.concat([rows, labels], axis=1).iloc[:, order].set_axis(model.columns, axis=1)
