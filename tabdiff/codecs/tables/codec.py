"""DataFrames to one tensor and back.

The tensor has the numeric columns first, as normal scores with NaN for missing entries, and then the codes of the
categorical ones, missing values being a level. A numeric column with missing entries brings a two-level column of its
own that says where they are; columns that are always missing together share it, so they stay together on output.
Before these stand the codes of columns that often repeat another one (`tabdiff.codecs.tables.equalities`).

Columns that another one determines (`tabdiff.codecs.tables.dependencies`) are left out and looked up on output; columns
that a declared constraint rebuilds (`tabdiff.codecs.tables.constraints`) are replaced by their difference from the
others.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.base import Codec
from tabdiff.codecs.columns import (
    COLUMN_TYPES,
    ConstantColumn,
    FrameStorage,
    LevelColumn,
    NumericColumn,
    TimeColumn,
    is_key_name,
    is_numeric,
    is_time,
    to_float,
)
from tabdiff.codecs.tables.constraints import Constraints
from tabdiff.codecs.tables.dependencies import Dependencies, DependentColumn
from tabdiff.codecs.tables.equalities import Equalities
from tabdiff.codecs.tables.joint_rules import MAX_ROWS, MIN_ROWS, JointRules
from tabdiff.codecs.tables.schema import table_schema, warn_of_identifiers
from tabdiff.codecs.tables.survey import ColumnSurvey, TableSurvey
from tabdiff.utils.random import RowStreams, numpy_stream

__all__ = ["TableCodec"]

TableColumn = NumericColumn | LevelColumn | DependentColumn
# A numeric column with at most this many values, each seen ten times on average, is modelled as categories.
FEW_VALUES = 10
# Levels beyond the commonest so many share one code.
MAX_CODES = 1000


class TableCodec(Codec):
    """Encode DataFrames for diffusion and decode what it draws.

    Numbers, dates and durations are normal scores; categories, strings, booleans and columns of few values are codes.
    Of a column with more than 1,000 levels the commonest keep a code of their own, and the others share one, behind
    which decoding draws by their frequency; so do all values of a column of text in which none repeats (an
    identifier). Columns of Arrow arrays or Python objects come back as they were.

    Parameters
    ----------
    categorical_features : "auto" or sequence, default="auto"
        Names of the columns to treat as categories, beside those whose dtype is category, string or boolean.
        "auto" adds numeric columns with no more than ten distinct values.
    dependencies : bool, default=True
        Whether columns that another column, or a class of the condition, determines in every row are looked up on
        output instead of drawn, whether a category is what a tree of several columns says where that is hardly ever
        wrong, and whether numbers that often equal another column are equal on output too.
    constraints : sequence of str, optional
        What holds in every row by construction, such as ``a <= b`` or ``total = a + b``; see
        :class:`tabdiff.codecs.tables.constraints.Constraints`.

    Attributes
    ----------
    columns_ : list
        A :class:`NumericColumn`, :class:`LevelColumn`, :class:`ConstantColumn` or :class:`DependentColumn` for each
        column, in order.
    dependencies_ : Dependencies
        The dependencies that were found.
    equalities_ : Equalities
        Which numbers often equal another column.
    joint_rules_ : JointRules
        Which categories several columns together determine.
    constraints_ : Constraints
        The constraints, checked.
    n_continuous_ : int
        Number of leading tensor columns that are normal scores.
    n_levels_ : list of int
        Number of levels of each of the code columns that follow.

    Notes
    -----
    A column that another determines takes no part in `encode` and `log_jacobian`, and neither does a sum: rows that
    break such a relation get the tensor of those that keep it; `tabdiff.codecs.tables.unseen` tells them. A row that
    breaks an inequality is one with a gap below any that was seen, which is unlikely but finite.

    Examples
    --------
    >>> import pandas as pd
    >>> from tabdiff.codecs import TableCodec
    >>> frame = pd.DataFrame({"x": [0.1, 0.5, 0.9] * 20, "k": ["a", "b", "a"] * 20})
    >>> codec = TableCodec().fit(frame)
    >>> codec.encode(frame).shape
    torch.Size([60, 1])
    """

    refined_ = "by default"
    columns_known_ = True

    def __init__(
        self,
        *,
        categorical_features: str | Sequence = "auto",
        dependencies: bool = True,
        constraints: Sequence[str] | None = None,
    ) -> None:
        self.categorical_features = categorical_features
        self.dependencies = dependencies
        self.constraints = constraints

    def check(self) -> None:
        """Raise a ValueError if `dependencies` is neither True nor False; the others are checked with the data."""
        if not isinstance(self.dependencies, bool | np.bool_):
            raise ValueError(f"dependencies must be True or False; got {self.dependencies!r}.")

    # ------------------------------------------------------------------ fit

    def fit(
        self,
        frame: pd.DataFrame,
        condition: Tensor | None = None,
        condition_levels: Sequence[int] = (),
        *,
        sample_weight: np.ndarray | None = None,
        survey: TableSurvey | None = None,
        **_: Any,
    ) -> Self:
        """Learn columns from a frame (n, d), whose rows may have positive weights (n,).

        With a `survey` the rows are a sample of those that it has seen, and each column by itself is as it says.

        Columns are coded the same under each condition (n, k); it is used to find what its classes determine. Weights
        act on the distributions of numbers and times.

        Raises
        ------
        ValueError
            If the frame has no rows or no columns, a numeric column holds infinities, or a constraint cannot be read or
            does not hold.
        TypeError
            If a column mixes types or has a dtype that cannot be modelled.
        """
        if frame.shape[0] == 0 or frame.shape[1] == 0:
            raise ValueError(
                f"Found array with {frame.shape[0]} sample(s) and {frame.shape[1]} feature(s) "
                f"(shape={frame.shape}) while a minimum of 1 is required."
            )
        self._check_categorical(frame)
        self.storage_ = FrameStorage(frame)
        frame = self.storage_.read(frame)
        self.constraints_ = Constraints(self.constraints).fit(frame)
        surveyed: dict[int, ColumnSurvey] = {}
        if survey is not None:
            # What is coded by its difference from others is known from the sample alone.
            others = set(range(frame.shape[1])) - {target.column for target in self.constraints_.rebuilt_}
            surveyed = {j: survey.column(frame.columns[j], frame.iloc[:, j]) for j in others}
        frame = self.constraints_.reduce(frame)
        self.index_ = frame.columns
        self.columns_: list[TableColumn] = [
            self._make_column(frame.iloc[:, j], frame.columns[j], sample_weight, surveyed.get(j))
            for j in range(frame.shape[1])
        ]
        warn_of_identifiers([c for c in self.columns_ if isinstance(c, LevelColumn) and c.is_identifier_])
        if all(isinstance(c, ConstantColumn) for c in self.columns_):
            # The network needs something to run on: one column stays, with a single level.
            constant = self.columns_[0]
            self.columns_[0] = LevelColumn(frame.iloc[:, 0], constant.name)
        self.dependencies_ = Dependencies()
        if self.dependencies and self._auto_levels:
            rebuilt = [t.column for t in self.constraints_.rebuilt_]
            self.dependencies_ = Dependencies.find(frame, self.columns_, condition, condition_levels, never=rebuilt)
        for j in self.dependencies_.determinant_:
            self.columns_[j] = DependentColumn(self.columns_[j], bool(frame.iloc[:, j].isna().any()))
        numeric = [j for j, c in enumerate(self.columns_) if isinstance(c, NumericColumn)]
        self.equalities_, self.joint_rules_ = Equalities(), JointRules()
        if self.dependencies and self._auto_levels:
            involved = {j for rule in self.dependencies_.rules_ for j in (rule.source, rule.target)}
            involved |= {j for t in self.constraints_.rebuilt_ for j in (t.column, *(part for _, part in t.parts))}
            self.equalities_ = Equalities.find(self._numbers(frame, numeric), self.columns_, never=involved)
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
        if self.dependencies and self._auto_levels:
            n_levels = {
                i: self.columns_[j].n_levels_  # type: ignore[union-attr]
                for i, j in enumerate(self.level_positions_, start=self.n_continuous_)
                if j not in involved and not self.columns_[j].n_rare_  # type: ignore[union-attr]
            }
            if n_levels and len(frame) >= MIN_ROWS:
                some = frame if len(frame) <= MAX_ROWS else frame.sample(MAX_ROWS, random_state=0)
                data = self._encode(some, [None])[0]
                self.joint_rules_ = JointRules.find(data, n_levels, never=self.equality_positions_)
        return self

    def _numbers(self, frame: pd.DataFrame, positions: Sequence[int]) -> dict[int, np.ndarray]:
        """Values (n,) of numeric columns, NaN where missing, by their position."""
        return {j: self.columns_[j].read(frame.iloc[:, j]) for j in positions}  # type: ignore[union-attr]

    def _check_categorical(self, frame: pd.DataFrame) -> None:
        if isinstance(self.categorical_features, str):
            if self.categorical_features != "auto":
                raise ValueError(
                    f"categorical_features must be 'auto' or a list of columns; got {self.categorical_features!r}"
                )
            return
        unknown = [c for c in self.categorical_features if c not in frame.columns]
        if unknown:
            raise ValueError(f"categorical_features names unknown columns {unknown}. Columns: {list(frame.columns)}.")

    def _make_column(
        self, series: pd.Series, name: Any, weight: np.ndarray | None, survey: ColumnSurvey | None = None
    ) -> TableColumn:
        if series.isna().all():
            return ConstantColumn(series, name)
        as_levels = not isinstance(self.categorical_features, str) and name in self.categorical_features
        if survey is not None:
            few_values = FEW_VALUES if self.categorical_features == "auto" else 0
            return survey.make_column(name, as_levels=as_levels, few_values=few_values, max_codes=MAX_CODES)
        if as_levels or not (is_numeric(series.dtype) or is_time(series.dtype)):
            return self._make_levels(series, name)
        values = to_float(series, name) if is_numeric(series.dtype) else series.array.asi8[series.notna()]
        distinct = len(np.unique(values[~np.isnan(values)]))
        few = distinct <= FEW_VALUES and distinct * 10 <= len(series)
        if distinct == 1 or (self.categorical_features == "auto" and few and self._auto_levels):
            return self._make_levels(series, name)
        if is_time(series.dtype):
            return TimeColumn(series, name, weight)
        if (
            self._auto_levels
            and pd.api.types.is_integer_dtype(series.dtype)
            and distinct == len(values)
            and is_key_name(name)
        ):
            # A number that names its row: what is near it means nothing.
            column = self._make_levels(series, name)
            if column.is_identifier_ and column.form_ is not None:
                return column
        return NumericColumn(values, series.dtype, name, weight)

    def _make_levels(self, series: pd.Series, name: Any) -> LevelColumn:
        column = LevelColumn(series, name, max_codes=MAX_CODES)
        if len(column.levels_) + column.has_missing_ == 1:
            return ConstantColumn(series, name)
        return column

    # Arrays keep every column numeric, so that a value between those seen at fit can be scored, and free, so that each
    # counts in the score.
    _auto_levels = True

    # ------------------------------------------------------------- layout

    @property
    def numeric_positions_(self) -> list[int]:
        """Positions of the columns that are numbers to the network."""
        return [j for j, c in enumerate(self.columns_) if isinstance(c, NumericColumn)]

    @property
    def level_positions_(self) -> list[int]:
        """Positions of the columns that are codes to the network."""
        return [j for j, c in enumerate(self.columns_) if type(c) is LevelColumn]

    @property
    def n_continuous_(self) -> int:
        """Number of leading tensor columns that hold normal scores."""
        return len(self.numeric_positions_)

    @property
    def n_levels_(self) -> list[int]:
        """Number of levels of each code column: categories, equalities, and what marks missing numbers."""
        levels = [self.columns_[j].n_levels_ for j in self.level_positions_]  # type: ignore[union-attr]
        return levels + self.equalities_.n_levels_ + [2] * self.n_masks_

    @property
    def equality_positions_(self) -> list[int]:
        """Tensor columns of the codes that say which other column a number equals."""
        return list(range(len(self.value_positions_), self.first_mask_))

    @property
    def value_positions_(self) -> list[int]:
        """Positions of the columns whose values stand in the tensor, in the order of its leading columns."""
        return self.numeric_positions_ + self.level_positions_

    def column_of(self, i: int) -> int | None:
        """Position of the column whose value stands in a tensor column, None for what marks equal or missing ones."""
        values = self.value_positions_
        return values[i] if i < len(values) else None

    @property
    def first_mask_(self) -> int:
        """Tensor column of the first of those that mark missing numbers."""
        return len(self.value_positions_) + len(self.equalities_.sources_)

    def mark_present(self, data: Tensor) -> None:
        """Write into encoded rows (n, d) that none of their numbers is missing."""
        data[:, self.first_mask_ :] = 0

    @property
    def schema_(self) -> pd.DataFrame:
        """What was decided for each column; see :func:`tabdiff.codecs.tables.schema.table_schema`."""
        return table_schema(self)

    # ----------------------------------------------------- encode and decode

    def encode(
        self,
        frame: pd.DataFrame,
        condition: Tensor | None = None,
        generator: torch.Generator | RowStreams | None = None,
    ) -> Tensor:
        """Map a frame (n, d) to a float32 tensor (n, n_continuous_ + len(n_levels_)).

        `generator` draws places inside steps; None takes deterministic ones, as likelihoods need.
        """
        return self.encode_copies(frame, 1, generator)

    def encode_copies(
        self,
        frame: pd.DataFrame,
        n_copies: int,
        generator: torch.Generator | RowStreams | None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Map a frame (n, d) as often as asked, one after the other: a float32 tensor (n_copies * n, ...).

        The same as `encode` as often, but the columns are read once.
        """
        out = self._encode(self.read(frame), [numpy_stream(generator) for _ in range(n_copies)])
        return torch.from_numpy(out.reshape(-1, out.shape[-1]))

    def read(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a frame (n, d) as its columns are coded: of standard dtypes, differences in place of rebuilt ones."""
        return self.constraints_.reduce(self.storage_.read(frame))

    def check_constraints(self, frame: pd.DataFrame) -> None:
        """Raise a ValueError unless the declared constraints hold in the rows of a frame (n, d), as it came."""
        if self.constraints:
            Constraints(self.constraints).fit(self.storage_.read(frame))

    def encode_read(self, frame: pd.DataFrame, generator: torch.Generator | RowStreams | None = None) -> Tensor:
        """Map what `read` returned, as `encode` does."""
        return torch.from_numpy(self._encode(frame, [numpy_stream(generator)])[0])

    def _encode(self, frame: pd.DataFrame, rngs: Sequence[np.random.Generator | RowStreams | None]) -> np.ndarray:
        """Map a standardised, reduced frame (n, d) once for each source of places: an array (n_copies, n, ...)."""
        out = np.empty((len(rngs), len(frame), self.n_continuous_ + len(self.n_levels_)), dtype=np.float32)
        numbers = self._numbers(frame, self.numeric_positions_)
        for i, (j, values) in enumerate(numbers.items()):
            column = self.columns_[j]
            assert isinstance(column, NumericColumn)
            if np.isnan(values).any() and j not in self.mask_of_:
                raise ValueError(f"column {column.name!r} contains NaN, but it had no missing values at fit.")
            for copy, rng in enumerate(rngs):
                out[copy, :, i] = column.encode(values, rng)
        for i, j in enumerate(self.level_positions_, start=self.n_continuous_):
            column = self.columns_[j]
            assert isinstance(column, LevelColumn)
            out[..., i] = column.encode(frame.iloc[:, j])
        for i, b in zip(self.equality_positions_, self.equalities_.sources_, strict=True):
            out[..., i] = self.equalities_.codes(numbers, b)
        for mask in range(self.n_masks_):
            out[..., self.first_mask_ + mask] = self.masked(frame, mask)
        return out

    def masked(self, frame: pd.DataFrame, mask: int) -> np.ndarray:
        """Whether all columns that share a mark of missing numbers are missing in the rows of a frame, (n,)."""
        columns = [j for j, m in self.mask_of_.items() if m == mask]
        return np.asarray(frame.iloc[:, columns].isna().to_numpy().all(axis=1))

    def decode(
        self,
        data: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | RowStreams | None = None,
    ) -> pd.DataFrame:
        """Map a tensor (n, n_continuous_ + len(n_levels_)) to a frame (n, d) with the fitted dtypes and order.

        `generator` draws among the levels that share the code of the rare, and values for rows that contradict a
        dependency; None takes a fixed seed. Relations hold in every row, those with the condition (n, k) too.
        """
        rng = numpy_stream(generator)
        values = data.detach().cpu().numpy()
        series: list[pd.Series | None] = []
        missing = {j: values[:, self.first_mask_ + mask] > 0.5 for j, mask in self.mask_of_.items()}
        numbers = {}
        for i, j in enumerate(self.numeric_positions_):
            decoded = self.columns_[j].decode_values(values[:, i])  # type: ignore[union-attr]
            numbers[j] = np.where(missing[j], np.nan, decoded) if j in missing else decoded
        codes = [np.rint(values[:, i]) for i in self.equality_positions_]
        self.equalities_.copy(numbers, codes, self.columns_)
        levels = {j: i for i, j in enumerate(self.level_positions_, start=self.n_continuous_)}
        for j, column in enumerate(self.columns_):
            if isinstance(column, NumericColumn):
                series.append(column.to_series(numbers[j], missing.get(j)))
            elif isinstance(column, LevelColumn):
                series.append(column.decode(values[:, levels[j]] if j in levels else np.zeros(len(values)), rng))
            else:
                series.append(None)
        completed = self.dependencies_.complete(series, self.columns_, condition, rng)
        self._apply_rules(completed, values, rng)
        frame = pd.concat(completed, axis=1)
        frame.columns = self.index_
        return self.storage_.write(self.constraints_.rebuild(frame))

    def _apply_rules(self, series: list[Any], values: np.ndarray, rng: np.random.Generator | RowStreams | None) -> None:
        """Give categories that others determine together the levels that these say, in place."""
        for rule in self.joint_rules_.rules_:
            inputs = []
            for i in rule.inputs:
                source = self.column_of(i)
                column = None if source is None else self.columns_[source]
                if isinstance(column, NumericColumn):
                    inputs.append(column.encode(column.read(series[source]), None))  # type: ignore[index]
                elif isinstance(column, LevelColumn):
                    inputs.append(column.encode(series[source]))  # type: ignore[index]
                else:
                    inputs.append(values[:, i] > 0.5)
            j = self.value_positions_[rule.target]
            target = self.columns_[j]
            assert isinstance(target, LevelColumn)
            series[j] = target.decode(rule(np.stack(inputs, axis=1)).astype(np.float64), rng)

    def log_jacobian(self, frame: pd.DataFrame, data: Tensor) -> np.ndarray:
        r"""Log of the marginal density over the density of the normal scores, summed over numeric columns, (n,).

        The density of a row is that of its tensor times this factor, :math:`\prod_j p_j(x_j) / \varphi(z_j)`: the
        network supplies the copula, the columns their marginals. A rare level brings its share among the rare. Numbers
        whose score is NaN are left out.
        """
        return self.log_jacobian_read(self.read(frame), data)

    def log_jacobian_read(
        self, frame: pd.DataFrame, data: Tensor, marginals: Mapping[int, Any] | None = None
    ) -> np.ndarray:
        """Return `log_jacobian` (n,) of what `read` returned.

        `marginals` take the place of numeric columns, by position, for their ``log_density``.
        """
        total = np.zeros(len(frame))
        for j in self.level_positions_:
            level_column = self.columns_[j]
            if isinstance(level_column, LevelColumn) and level_column.n_rare_:
                total += level_column.log_share(frame.iloc[:, j])
        for i, j in enumerate(self.numeric_positions_):
            column = self.columns_[j]
            assert isinstance(column, NumericColumn)
            z = data[:, i].double().numpy()
            log_phi = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
            marginal = column if marginals is None else marginals[j]
            total += np.where(np.isnan(z), 0.0, marginal.log_density(column.read(frame.iloc[:, j])) - log_phi)
        return total

    # -------------------------------------------------------------- state

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "columns": [c.state() for c in self.columns_],
            "storage": self.storage_.state(),
            "index": self.index_,
            "mask_of": [[j, m] for j, m in self.mask_of_.items()],
            "n_masks": self.n_masks_,
            "dependencies": self.dependencies_.state(),
            "equalities": self.equalities_.state(),
            "joint_rules": self.joint_rules_.state(),
            "constraints": self.constraints_.state(),
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        codec = cls()
        types = {**COLUMN_TYPES, "dependent": DependentColumn}
        codec.columns_ = [types[c["type"]].from_state(c) for c in state["columns"]]
        codec.storage_ = FrameStorage.from_state(state["storage"])
        codec.index_ = state["index"]
        codec.mask_of_ = {int(j): int(m) for j, m in state["mask_of"]}
        codec.n_masks_ = int(state["n_masks"])
        codec.dependencies_ = Dependencies.from_state(state["dependencies"])
        codec.equalities_ = Equalities.from_state(state.get("equalities", {"sources": [], "shares": []}))
        codec.joint_rules_ = JointRules.from_state(state.get("joint_rules", []))
        codec.constraints_ = Constraints.from_state(state["constraints"])
        return codec
