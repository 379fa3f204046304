"""What every codec is: the way from a container to the tensor that the denoiser learns, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

__all__ = ["Codec"]


class Codec(BaseEstimator, ABC):
    """Maps rows of one kind of container to tensors (n, d) and back.

    A codec is fitted on the container and encodes its rows: numbers first, codes of levels behind them. What is drawn
    it decodes to the same container. Where a kind of data has nothing to do for a method, doing nothing is a legal
    answer, and it is the one that stands here.

    An unfitted codec is what the parameter `codec` of a `DiffusionGenerator` takes; like any estimator of scikit-learn
    it can be cloned, and its settings are parameters in `set_params` and grid searches.

    Attributes
    ----------
    n_continuous_ : int
        Number of leading columns of the tensor that hold numbers.
    n_levels_ : list of int
        Number of levels of each column of codes behind them.
    layout_ : dict
        What the entries of a row are, for networks of tokens: ``{"kind": "columns"}`` or another kind.
    schema_ : DataFrame
        What was decided, a row for each column of a table.
    columns_known_ : bool
        Whether the entries of a row are columns that may be drawn given others, and may be missing: a table's.
    random_ : bool
        Whether the likelihood of what is encoded is none of the row itself, since encoding draws from what it may be.
    constant_ : bool
        Whether encoding again gives the same.
    refined_ : {"by default", "when asked", "never"}
        Whether what is drawn may be refined; see `tabdiff.model.refinement.refinement`.
    bounds_ : tuple of float or None
        Smallest and largest value to the network, if the kind of data says them.
    prepare : callable or None
        ``prepare(rows, generator)`` makes what the network sees of a batch of encoded rows, where that is not the same.
    """

    n_levels_: Any = []  # noqa: RUF012
    layout_: Any = {"kind": "columns"}  # noqa: RUF012
    columns_known_: ClassVar[bool] = False
    random_: ClassVar[bool] = False
    constant_: ClassVar[bool] = False
    refined_: str = "never"
    bounds_: Any = None
    prepare: Callable[..., Tensor] | None = None
    n_continuous_: Any
    schema_: Any

    def check(self) -> None:
        """Raise a ValueError that names the first setting out of range and what is allowed."""

    @abstractmethod
    def fit(self, rows: Any, /, *args: Any, **kwargs: Any) -> Self:
        """Learn from a container what encoding needs: ``fit(rows, condition, condition_levels, **settings)``.

        Parameters
        ----------
        rows : container
            n rows; they are left as they are.
        condition : Tensor of shape (n, k) or None
            Their encoded condition.
        condition_levels : list of int
            Number of classes of each attribute of the condition, 0 for continuous ones.
        **settings
            ``seed``, ``device``, ``max_time`` and, except for cells, ``sample_weight`` (n,).
        """

    @abstractmethod
    def encode(self, rows: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return rows as a tensor (n, d): ``encode(rows, condition, generator)``, nothing random without one."""

    @abstractmethod
    def decode(self, data: Tensor, /, *args: Any, **kwargs: Any) -> Any:
        """Return encoded rows (n, d) as the container of the fit: ``decode(data, condition, generator)``."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return a plain description, for persistence."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Inverse of :meth:`state`."""

    def encode_copies(self, rows: Any, n_copies: int, generator: torch.Generator, condition: Tensor | None) -> Tensor:
        """Return the rows encoded as often as asked, one after the other, shape (n_copies * n, d)."""
        return torch.cat([self.encode(rows, condition, generator) for _ in range(n_copies)])

    def calibrate(self, data: Tensor, condition: Tensor | None, generator: torch.Generator) -> None:
        """Correct what is decoded by rows (m, d) that the model drew at training conditions (m, k)."""

    def mark_present(self, data: Tensor) -> None:
        """Write into encoded rows (n, d) that no value is missing, where the kind of data has such marks."""

    def data_std(self, data: Any) -> float:
        """Return the standard deviation of encoded rows (n, d) as the network sees them; numbers are standardised."""
        return 1.0

    @property
    def calibrates_(self) -> bool:
        """Whether `calibrate` does something."""
        return type(self).calibrate is not Codec.calibrate

    @property
    def calibration_rows_(self) -> int:
        """Number of rows of which `calibrate` makes use, at most."""
        return 20_000
