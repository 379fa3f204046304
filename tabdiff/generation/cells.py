"""What `sample` can be asked for beside a condition where the model is one of cells: obs, like and library_size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs import is_anndata
from tabdiff.codecs.cells.depth import match_ranks
from tabdiff.codecs.inputs import cell_conditions
from tabdiff.diffusion.generate import draw
from tabdiff.io.frames import to_pandas
from tabdiff.io.modalities import Modalities, is_mudata
from tabdiff.utils.array_likes import MAX_EXACT, as_values
from tabdiff.utils.validation import check_n_draws

if TYPE_CHECKING:
    from anndata import AnnData

    from tabdiff.model.fitted import FittedModel

__all__ = ["CellRequest", "carry_colors", "impute_genes", "latent", "match_totals", "unseen_offsets"]

# Cells drawn to learn where those of a combination lie that training never showed.
UNSEEN_ROWS = 512


@dataclass
class CellRequest:
    """What was asked for, checked.

    Attributes
    ----------
    n_samples : int or None
    condition : Any
        In a form that `Conditions.resolve` reads.
    obs : DataFrame or None
        What the cells' ``obs`` starts with.
    totals : int64 array (n,) or (n, n_modalities), dict of such by modality, "match" or None
        Total counts of each cell; "match" draws them from training cells of the same class.
    by_rank : bool
        Whether totals go, among cells of one condition, to those that the model makes as deep.
    """

    n_samples: int | None
    condition: Any
    obs: pd.DataFrame | None = None
    totals: Any = None
    by_rank: bool = False

    @classmethod
    def read(
        cls,
        model: FittedModel,
        n_samples: int | None,
        condition: Any,
        obs: Any,
        like: Any,
        library_size: Any,
        seed: int,
    ) -> CellRequest:
        """Check what `sample` was given.

        Raises
        ------
        TypeError
            If the model is not one of cells, or obs or like is of another type.
        ValueError
            For arguments that exclude each other, names that obs or like lacks, library sizes that are not positive.
        """
        given = [name for name, value in (("condition", condition), ("obs", obs), ("like", like)) if value is not None]
        changed = like is not None and isinstance(condition, Mapping) and obs is None
        if len(given) > 1 and not changed:
            raise ValueError(
                f"{' and '.join(given)} were both given; each says which cells to draw, so pass one. Beside like a "
                "dict says what of these cells is to be another."
            )
        request = cls(n_samples, condition)
        if obs is None and like is None and library_size is None:
            return request
        if model.container not in ("cells", "multimodal"):
            name = "obs" if obs is not None else "like" if like is not None else "library_size"
            raise TypeError(f"{name} is for models of AnnData or MuData; this one was fitted on a table or an array.")
        if library_size is not None and model.codec.kind_ != "counts":
            raise ValueError("library_size needs a model of counts; this one was fitted on continuous expression.")
        if obs is not None:
            request._take_obs(model, obs)
        if like is not None:
            request._take_like(model, like, library_size is None or _is_match(library_size), seed, condition)
        elif _is_match(library_size):
            request.totals, request.by_rank = "match", True
        if library_size is not None and not _is_match(library_size):
            request.totals = request._read_totals(model, library_size)
        return request

    def _read_totals(self, model: FittedModel, library_size: Any) -> Any:
        if model.container != "multimodal":
            return _totals(library_size)
        known = model.codec.modalities_
        if not isinstance(library_size, Mapping) or not all(key in known for key in library_size):
            raise ValueError(
                f"library_size of several modalities must be 'match' or a dict from some of {known} to a number or an "
                f"array; got {_text(library_size)}. For instance library_size={{{known[0]!r}: 5000}}."
            )
        return {key: _totals(value) for key, value in library_size.items()}

    def _take_obs(self, model: FittedModel, obs: Any) -> None:
        if not isinstance(obs, pd.DataFrame):
            raise TypeError(f"obs must be a DataFrame with a row per cell; got {type(obs).__name__}.")
        if not obs.index.is_unique:
            raise ValueError("the index of obs names the cells, so it must not repeat; use obs.reset_index(drop=True).")
        self.obs, self.condition = obs, _named(model, obs, "obs")
        if self.n_samples not in (None, len(obs)):
            raise ValueError(f"obs has {len(obs)} rows, but n_samples={self.n_samples}. Leave n_samples out.")
        self.n_samples = len(obs)

    def _take_like(
        self, model: FittedModel, like: Any, depth: bool, seed: int, changed: Mapping[Any, Any] | None
    ) -> None:
        if model.container == "multimodal":
            if not is_mudata(like):
                raise TypeError(f"like must be a MuData, as what was fitted; got {type(like).__name__}.")
            like = Modalities.read(like)
        elif not is_anndata(like):
            raise TypeError(f"like must be an AnnData; got {type(like).__name__}.")
        rows = np.arange(like.n_obs)
        if self.n_samples is not None and self.n_samples != like.n_obs:
            rows = np.random.default_rng(seed).integers(like.n_obs, size=self.n_samples)
        self.n_samples = len(rows)
        obs = like.obs.iloc[rows].reset_index(drop=True)
        if changed is not None and model.conditions is not None:
            unknown = [name for name in changed if name not in model.conditions.names]
            if unknown:
                raise ValueError(
                    f"condition beside like must name conditions of the model, {model.conditions.names}; got {unknown}."
                )
            obs = obs.assign(**{name: _as_column(value, len(rows), name) for name, value in changed.items()})
        elif changed is not None:
            raise ValueError(f"condition={_text(changed)} was given, but the model was fitted without one.")
        self.condition = _named(model, obs, "like.obs")
        vectors = model.conditions.vector_names if model.conditions is not None else []
        for name in [name for name in vectors if name in like.obsm and name not in (changed or {})]:
            self.condition[name] = cell_conditions(like, [name])[name].iloc[rows].to_list()
        if depth and model.codec.kind_ == "counts":
            self.totals, self.by_rank = model.codec.totals(like)[rows], True

    def resolve_totals(self, model: FittedModel, codes: Tensor | None, n: int, seed: int) -> np.ndarray | None:
        """Total counts (n,) int64 of the cells to draw, None where the model draws them; see `CountModel.decode`."""
        if self.totals is None:
            return None
        if isinstance(self.totals, str):
            generator = torch.Generator().manual_seed(seed)
            return model.codec.training_totals(codes, n, generator)
        if isinstance(self.totals, dict):
            each = [_of_each(self.totals.get(key, -np.ones((), np.int64)), n) for key in model.codec.modalities_]
            return np.stack(each, axis=1) if len(each) > 1 else each[0]
        return _of_each(self.totals, n)


def _of_each(totals: np.ndarray, n: int) -> np.ndarray:
    if totals.ndim and len(totals) != n:
        raise ValueError(f"library_size has {len(totals)} values, but {n} cells are to be drawn.")
    return totals if totals.ndim else np.broadcast_to(totals, (n,))


def _as_column(value: Any, n: int, name: Any) -> list:
    """One value for all of n cells, or their own, as a list."""
    if np.ndim(value) == 0:
        return [value] * n
    if len(value) != n:
        raise ValueError(f"condition[{name!r}] must be one value, or one for each of {n} cells; got {len(value)}.")
    return list(value)


def _is_match(library_size: Any) -> bool:
    if not isinstance(library_size, str):
        return False
    if library_size != "match":
        raise ValueError(f"library_size must be a number, an array or 'match'; got {library_size!r}.")
    return True


def _totals(library_size: Any) -> np.ndarray:
    known = to_pandas(as_values(library_size, "library_size"))
    try:
        values = np.asarray(known, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"library_size must be a number, an array or 'match'; got {_text(library_size)}.") from None
    if values.ndim > 1 or not np.isfinite(values).all() or (values < 1).any():
        raise ValueError(f"library_size must be counts of at least 1, one or one per cell; got {_text(library_size)}.")
    if (values > MAX_EXACT).any():
        raise ValueError(f"library_size must be at most 2**53, which counts hold; got {_text(library_size)}.")
    return np.rint(values).astype(np.int64)


def _text(value: Any) -> str:
    return repr(value)[:60]


def _named(model: FittedModel, obs: pd.DataFrame, what: str) -> pd.DataFrame | None:
    """The columns of obs that are conditions of the model; None if it has no condition."""
    if model.conditions is None:
        return None
    names = [name for name in model.conditions.names if name in obs.columns]
    if not names:
        raise ValueError(
            f"{what} has none of the conditions {model.conditions.names}; its columns: {list(obs.columns)}."
        )
    return obs[names].reset_index(drop=True)


def latent(model: FittedModel, adata: Any, condition: Any, own: pd.DataFrame | None) -> np.ndarray:
    """Where cells lie for a model, under a condition that was given or their own; see `DiffusionGenerator.latent`."""
    return model.codec.view(adata, _codes(model, adata, condition, own, "where cells lie"))


def _codes(model: FittedModel, adata: Any, condition: Any, own: pd.DataFrame | None, what: str) -> Tensor | None:
    """The condition of cells as codes (n, k): what was given, or else their own; `what` depends on it."""
    if model.conditions is not None:
        if condition is not None:
            return model.conditions.resolve(adata.n_obs, condition, np.random.default_rng(0))
        if own is not None:
            return torch.from_numpy(model.conditions.encode(own))
        cells = "adata" if model.container == "cells" else "mdata"
        raise ValueError(
            f"{what} depends on their condition, but {cells}.obs lacks one of {model.conditions.names}; add "
            "the columns or pass condition=."
        )
    if condition is not None:
        raise ValueError(f"condition={_text(condition)} was given, but the model was fitted without one.")
    return None


def impute_genes(
    model: FittedModel,
    adata: AnnData,
    own: pd.DataFrame | None,
    *,
    condition: Any,
    n_draws: int,
    strategy: str,
    seed: int,
) -> Any:
    """Draw the genes of a fit that cells lack; see `DiffusionGenerator.impute`."""
    check_n_draws(n_draws)
    if strategy not in ("auto", "draw"):
        raise ValueError(
            f"strategy must be 'auto' or 'draw' for cells, whose counts are drawn; got {strategy!r}. For means take "
            "those of X over several draws, n_draws=20."
        )
    codes = _codes(model, adata, condition, own, "what cells express")
    generator, offsets = torch.Generator().manual_seed(seed), unseen_offsets(model, codes)
    drawn = [model.codec.complete(adata, codes, generator, offsets) for _ in range(n_draws)]
    drawn = [cells.to_mudata() if isinstance(cells, Modalities) else cells for cells in drawn]
    return drawn[0] if n_draws == 1 else drawn


def match_totals(totals: np.ndarray, data: Tensor, codes: Tensor | None) -> np.ndarray:
    """Hand out totals (n,) among encoded cells (n, d) of one condition in the order of the model's own depths.

    Totals of several modalities, (n, k), go each by its own depths, the last k columns.
    """
    groups = np.zeros(len(data), dtype=np.int64)
    if codes is not None:
        groups = np.unique(codes.nan_to_num(nan=-1e9).numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    if totals.ndim == 1:
        return match_ranks(totals, data[:, -1].numpy(), groups)
    depths = data[:, -totals.shape[1] :].numpy()
    return np.stack([match_ranks(t, d, groups) for t, d in zip(totals.T, depths.T, strict=True)], axis=1)


def unseen_offsets(model: FittedModel, codes: Tensor | None) -> Any:
    """What the codec is to make of classes among codes (n, k) that training never showed, None without any.

    For each of them latents are drawn, with a seed of their own: what it says depends on the model and the conditions.
    """
    if model.container not in ("cells", "multimodal") or codes is None:
        return None
    parts = [codes[np.resize(rows, UNSEEN_ROWS)] for rows in model.codec.unseen(codes)]
    if not parts:
        return None
    condition = torch.cat(parts)
    data = draw(
        model.denoiser,
        len(condition),
        condition,
        width=model.config.width,
        generator=torch.Generator().manual_seed(0),
        guided=model.guided,
        precision=model.precision,
    )
    return model.codec.predict_offsets(data, condition)


def carry_colors(cells: AnnData, colors: Mapping[str, list[str]]) -> None:
    """Give drawn cells the colours of the fit's categories, where they have these: one for each, in their order."""
    for key, values in colors.items():
        name = key.removesuffix("_colors")
        if name in cells.obs and isinstance(cells.obs[name].dtype, pd.CategoricalDtype):
            if len(cells.obs[name].cat.categories) == len(values):
                cells.uns[key] = np.asarray(values, dtype=object)
