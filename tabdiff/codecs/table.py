"""DataFrames to one tensor and back.

The tensor has the numeric columns first, as normal scores with NaN for missing entries, and then the codes of the
categorical ones, missing values being a level. A numeric column with missing entries brings a two-level column of its
own that says where they are; columns that are always missing together share it, so they stay together on output.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.columns import ConstantColumn, LevelColumn, NumericColumn, is_numeric, to_float

__all__ = ["TableCodec"]

Column = NumericColumn | LevelColumn
_COLUMN_TYPES: dict[str, Any] = {"numeric": NumericColumn, "levels": LevelColumn, "constant": ConstantColumn}
# A numeric column with at most this many values, each seen ten times on average, is modelled as categories.
FEW_VALUES = 10


class TableCodec:
    """Encode DataFrames for diffusion and decode what it draws.

    Parameters
    ----------
    categorical_features : "auto" or sequence, default="auto"
        Names of the columns to treat as categories, beside those whose dtype is category, string or boolean.
        "auto" adds numeric columns with no more than ten distinct values.

    Attributes
    ----------
    columns_ : list
        A :class:`NumericColumn`, :class:`LevelColumn` or :class:`ConstantColumn` for each column, in order.
    n_continuous_ : int
        Number of leading tensor columns that are normal scores.
    n_levels_ : list of int
        Number of levels of each of the code columns that follow.
    """

    def __init__(self, *, categorical_features: str | Sequence = "auto") -> None:
        self.categorical_features = categorical_features

    # ------------------------------------------------------------------ fit

    def fit(
        self,
        frame: pd.DataFrame,
        condition: Tensor | None = None,
        condition_levels: Sequence[int] = (),
        **_: Any,
    ) -> Self:
        """Learn columns from a frame (n, d); the condition is not used: columns are coded the same under each.

        Raises
        ------
        ValueError
            If the frame has no rows or no columns, or a numeric column holds infinities.
        TypeError
            If a column mixes types or has a dtype that cannot be modelled.
        """
        if frame.shape[0] == 0 or frame.shape[1] == 0:
            raise ValueError(
                f"Found array with {frame.shape[0]} sample(s) and {frame.shape[1]} feature(s) "
                f"(shape={frame.shape}) while a minimum of 1 is required."
            )
        self._check_categorical(frame)
        self.index_ = frame.columns
        self.columns_: list[Column] = [
            self._make_column(frame.iloc[:, j], frame.columns[j], j) for j in range(frame.shape[1])
        ]
        if all(isinstance(c, ConstantColumn) for c in self.columns_):
            # The network needs something to run on: one column stays, with a single level.
            constant = self.columns_[0]
            self.columns_[0] = LevelColumn(frame.iloc[:, 0], constant.name)
        numeric = [j for j, c in enumerate(self.columns_) if isinstance(c, NumericColumn)]
        masks = {j: frame.iloc[:, j].isna().to_numpy() for j in numeric}
        patterns: list[np.ndarray] = []
        self.mask_of_: dict[int, int] = {}
        for j in numeric:
            if masks[j].any():
                same = next((i for i, p in enumerate(patterns) if np.array_equal(p, masks[j])), None)
                if same is None:
                    patterns.append(masks[j])
                    same = len(patterns) - 1
                self.mask_of_[j] = same
        self.n_masks_ = len(patterns)
        return self

    def _check_categorical(self, frame: pd.DataFrame) -> None:
        if isinstance(self.categorical_features, str):
            if self.categorical_features != "auto":
                raise ValueError(
                    f"categorical_features must be 'auto' or a list of columns, however: {self.categorical_features!r}"
                )
            return
        unknown = [c for c in self.categorical_features if c not in frame.columns]
        if unknown:
            raise ValueError(f"categorical_features names unknown columns {unknown}. Columns: {list(frame.columns)}.")

    def _make_column(self, series: pd.Series, name: Any, position: int) -> Column:
        if isinstance(series.dtype, pd.SparseDtype):
            raise TypeError(f"column {name!r} is sparse. Use df.sparse.to_dense() first.")
        if pd.api.types.is_datetime64_any_dtype(series.dtype) or pd.api.types.is_timedelta64_dtype(series.dtype):
            raise TypeError(
                f"column {name!r} has dtype {series.dtype}, which cannot be modelled yet. Convert it to numbers, for "
                f"example seconds: df[{name!r}].astype('int64')."
            )
        if series.isna().all():
            return ConstantColumn(series, name)
        as_levels = not isinstance(self.categorical_features, str) and name in self.categorical_features
        if not is_numeric(series.dtype) or as_levels:
            column = LevelColumn(series, name)
            return ConstantColumn(series, name) if column.n_levels_ == 1 else column
        values = to_float(series, name)
        distinct = len(np.unique(values[~np.isnan(values)]))
        if distinct == 1:
            return LevelColumn(series, name) if np.isnan(values).any() else ConstantColumn(series, name)
        few = distinct <= FEW_VALUES and distinct * 10 <= len(series)
        if self.categorical_features == "auto" and few and self._auto_levels:
            return LevelColumn(series, name)
        return NumericColumn(values, series.dtype, name)

    # Arrays keep every column numeric, so that a value between those seen at fit can be scored.
    _auto_levels = True

    # ------------------------------------------------------------- layout

    @property
    def _numeric(self) -> list[int]:
        return [j for j, c in enumerate(self.columns_) if isinstance(c, NumericColumn)]

    @property
    def _levels(self) -> list[int]:
        return [j for j, c in enumerate(self.columns_) if type(c) is LevelColumn]

    @property
    def n_continuous_(self) -> int:
        """Number of leading tensor columns that hold normal scores."""
        return len(self._numeric)

    @property
    def n_levels_(self) -> list[int]:
        """Number of levels of each code column, those that mark missing numbers last."""
        return [self.columns_[j].n_levels_ for j in self._levels] + [2] * self.n_masks_  # type: ignore[union-attr]

    @property
    def schema_(self) -> pd.DataFrame:
        """What was decided for each column: kind, dtype, number of distinct values, whether values are missing."""
        rows = []
        for j, c in enumerate(self.columns_):
            if isinstance(c, NumericColumn):
                kind, distinct, missing = "numeric", len(c.values_), j in self.mask_of_
            else:
                kind = "constant" if isinstance(c, ConstantColumn) else "categorical"
                distinct, missing = len(c.levels_), c.has_missing_
            rows.append(
                {
                    "column": c.name,
                    "kind": kind,
                    "dtype": str(c.dtype),
                    "distinct": distinct,
                    "missing": missing,
                }
            )
        return pd.DataFrame(rows)

    # ----------------------------------------------------- encode and decode

    def encode(
        self, frame: pd.DataFrame, condition: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Map a frame (n, d) to a float32 tensor (n, n_continuous_ + len(n_levels_)).

        `generator` draws places inside steps; None takes deterministic ones, as likelihoods need.
        """
        rng = None
        if generator is not None:
            rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        out = np.empty((len(frame), self.n_continuous_ + len(self.n_levels_)), dtype=np.float32)
        for i, j in enumerate(self._numeric):
            column = self.columns_[j]
            assert isinstance(column, NumericColumn)
            values = to_float(frame.iloc[:, j], column.name)
            if np.isnan(values).any() and j not in self.mask_of_:
                raise ValueError(f"column {column.name!r} contains NaN, but it had no missing values at fit.")
            out[:, i] = column.encode(values, rng)
        for i, j in enumerate(self._levels, start=self.n_continuous_):
            column = self.columns_[j]
            assert isinstance(column, LevelColumn)
            series = frame.iloc[:, j]
            if is_numeric(column.dtype) and is_numeric(series.dtype):
                series = _snap(series, column)
            out[:, i] = column.encode(series)
        first_mask = self.n_continuous_ + len(self._levels)
        for j, mask in self.mask_of_.items():
            out[:, first_mask + mask] = frame.iloc[:, j].isna().to_numpy()
        return torch.from_numpy(out)

    def decode(
        self, data: Tensor, condition: Tensor | None = None, generator: torch.Generator | None = None
    ) -> pd.DataFrame:
        """Map a tensor (n, n_continuous_ + len(n_levels_)) to a frame (n, d) with the fitted dtypes and order."""
        values = data.detach().cpu().numpy()
        first_mask = self.n_continuous_ + len(self._levels)
        series: list[pd.Series] = []
        numeric = {j: i for i, j in enumerate(self._numeric)}
        levels = {j: i for i, j in enumerate(self._levels, start=self.n_continuous_)}
        for j, column in enumerate(self.columns_):
            if isinstance(column, NumericColumn):
                missing = values[:, first_mask + self.mask_of_[j]] > 0.5 if j in self.mask_of_ else None
                series.append(column.decode(values[:, numeric[j]], missing))
            elif j in levels:
                series.append(column.decode(values[:, levels[j]]))
            else:
                series.append(column.decode(np.zeros(len(values))))
        frame = pd.concat(series, axis=1) if series else pd.DataFrame(index=range(len(values)))
        frame.columns = self.index_
        return frame

    def log_jacobian(self, frame: pd.DataFrame, data: Tensor) -> np.ndarray:
        r"""Log of the marginal density over the density of the normal scores, summed over numeric columns, (n,).

        The density of a row is that of its tensor times this factor, :math:`\prod_j p_j(x_j) / \varphi(z_j)`: the
        network supplies the copula, the columns their marginals.
        """
        total = np.zeros(len(frame))
        for i, j in enumerate(self._numeric):
            column = self.columns_[j]
            assert isinstance(column, NumericColumn)
            z = data[:, i].double().numpy()
            log_phi = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
            total += np.where(np.isnan(z), 0.0, column.log_density(to_float(frame.iloc[:, j], column.name)) - log_phi)
        return total

    # -------------------------------------------------------------- state

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "columns": [c.state() for c in self.columns_],
            "index": self.index_,
            "mask_of": [[j, m] for j, m in self.mask_of_.items()],
            "n_masks": self.n_masks_,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        codec = cls()
        codec.columns_ = [_COLUMN_TYPES[c["type"]].from_state(c) for c in state["columns"]]
        codec.index_ = state["index"]
        codec.mask_of_ = {int(j): int(m) for j, m in state["mask_of"]}
        codec.n_masks_ = int(state["n_masks"])
        return codec


def _snap(series: pd.Series, column: LevelColumn) -> pd.Series:
    """Move numbers to the nearest level: a number between two levels is no unknown category."""
    values = to_float(series, column.name)
    levels = np.asarray(column.levels_, dtype=np.float64)
    nearest = np.abs(np.nan_to_num(values)[:, None] - levels).argmin(axis=1)
    snapped = pd.Series([column.levels_[i] for i in nearest], dtype=object)
    return snapped.where(~np.isnan(values), np.nan)
