"""AnnData to latent vectors and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from tabdiff.codecs.base import Codec
from tabdiff.codecs.cells.completion import complete_counts, complete_expression, modelled_part, put_together
from tabdiff.codecs.cells.counts import CountModel
from tabdiff.codecs.cells.expression import ExpressionModel
from tabdiff.codecs.cells.panel import align, match
from tabdiff.io.expression import (
    counts_dtype,
    expressed_genes,
    find_expression,
    in_memory,
    is_sparse,
    not_counts_message,
    spread_genes,
    take_genes,
)
from tabdiff.utils.validation import is_integer
from tabdiff.utils.warnings import warn

if TYPE_CHECKING:
    from anndata import AnnData


class CellCodec(Codec):
    """Single-cell or bulk expression as latent vectors of about unit variance, and back.

    Counts are modelled by a negative-binomial autoencoder that starts at the negative binomial of each class
    and lets a small latent add what held-out likelihood supports; log library size is one more latent
    dimension. Values that are not counts (log-normalised, scaled, bulk) go through principal components around
    class means. Either way each gene's marginal distribution is calibrated per class at the end.

    Parameters
    ----------
    layer : str, optional
        Where the expression is: a layer's name, "X" or "raw". By default counts are looked for in
        ``layers["counts"]``, ``X`` and ``raw.X``, in that order; without any, ``X`` is modelled as it is.
    n_latent : int, optional
        Latent dimensions; by default they follow the number of cells and genes.

    Attributes
    ----------
    kind_ : {"counts", "continuous"}
        What the values are: non-negative integers, or anything else.
    layer_ : str
        Where they were found: "X", "raw" or the name of a layer.
    n_features_in_ : int
        Number of genes.
    feature_names_in_ : object array (n_genes,)
        ``var_names``.
    n_latent_ : int
        Length of an encoded vector.
    colors_ : dict
        What ``uns`` said of the colours of categories, ``{"cell_type_colors": ["#1f77b4", ...]}``, in their order.
    expressed_ : int array or None
        The genes that are modelled: those with any count, None for all.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from anndata import AnnData
    >>> adata = AnnData(np.random.default_rng(0).poisson(2.0, (60, 8)).astype("float32"))
    >>> generator = torch.Generator().manual_seed(0)
    >>> codec = CellCodec().fit(adata, None, [], seed=0, device=torch.device("cpu"))
    >>> codec.kind_
    'counts'
    >>> data = codec.encode(adata, None, generator)
    >>> codec.decode(data, None, generator).X.dtype
    dtype('int32')
    """

    # What the entries of a row are, to a network of tokens.
    layout_ = {"kind": "latent"}  # noqa: RUF012

    @property
    def n_continuous_(self) -> int:
        """Number of latent dimensions, the library size included."""
        return self.n_latent_

    @property
    def schema_(self) -> pd.DataFrame:
        """What kind of values were found, and where."""
        return pd.DataFrame([{"kind": self.kind_, "layer": self.layer_, "genes": self.n_features_in_}])

    def __init__(self, *, layer: str | None = None, n_latent: int | None = None) -> None:
        self.layer = layer
        self.n_latent = n_latent

    def check(self) -> None:
        """Raise a ValueError if `n_latent` is no number of dimensions."""
        if self.n_latent is not None and not is_integer(self.n_latent, 1):
            raise ValueError(f"n_latent must be None or an integer of at least 1; got {self.n_latent!r}.")

    def fit(
        self,
        adata: AnnData,
        condition: Tensor | None,
        condition_levels: Sequence[int],
        *,
        seed: int,
        device: torch.device,
        max_time: float | None = None,
        callback: Callable[[dict[str, float | int | str]], object] | None = None,
    ) -> CellCodec:
        """Learn the codec from cells; the object given is left as it is.

        Parameters
        ----------
        adata : AnnData
            Cells × genes: CSR, CSC, dense, backed or a view.
        condition : Tensor (n_cells, k), optional
            Encoded condition: class codes and standardised continuous values, NaN for null.
        condition_levels : sequence of int
            Number of classes of each attribute, 0 for a continuous one.
        seed : int
            Of every draw made here.
        device : torch.device
            Where the autoencoder trains; afterwards the weights are on the CPU.
        max_time : float, optional
            Seconds for the autoencoder.
        callback : callable, optional
            Called during training with a dict of stage, step, n_steps, loss and held_out_loss.

        Raises
        ------
        ValueError
            No cells or genes, NaN or infinite values (the gene is named), an unknown layer, a condition of
            another length.
        """
        if adata.n_obs < 2 or adata.n_vars < 1:
            raise ValueError(
                f"adata is {adata.n_obs} cells × {adata.n_vars} genes; at least 2 cells and 1 gene are needed."
            )
        if condition is not None and tuple(condition.shape) != (adata.n_obs, len(condition_levels)):
            raise ValueError(
                f"condition has shape {tuple(condition.shape)}, but there are {adata.n_obs} cells and "
                f"{len(condition_levels)} attributes."
            )
        matrix, self.layer_, is_counts = find_expression(adata, self.layer)
        if self.layer is None and not is_counts:
            warn(not_counts_message(adata, matrix))
        self.kind_ = "counts" if is_counts else "continuous"
        self.n_features_in_ = int(adata.n_vars)
        self.feature_names_in_ = np.asarray(adata.var_names, dtype=object)
        self.var_: pd.DataFrame = adata.var.copy()
        self.colors_ = colors_of(adata)
        self.sparse_ = is_sparse(matrix)
        if is_counts:
            self.dtype_ = counts_dtype(matrix)
        else:
            self.dtype_ = str(matrix.dtype) if matrix.dtype.kind == "f" else "float32"
        # Genes that no cell counts are left out of everything, and come back as zeros.
        self.expressed_ = expressed_genes(matrix) if is_counts else None
        matrix = take_genes(matrix, self.expressed_)
        generator = torch.Generator().manual_seed(seed)
        model = CountModel if is_counts else ExpressionModel
        self.model_: CountModel | ExpressionModel = model(n_latent=self.n_latent).fit(
            matrix,
            condition,
            condition_levels,
            generator=generator,
            device=device,
            max_time=max_time,
            callback=callback,
        )
        self.n_latent_ = self.model_.n_features
        return self

    def encode(self, adata: AnnData, condition: Tensor | None, generator: torch.Generator) -> Tensor:
        """Latent vectors of cells: posterior samples for counts, so that two calls differ in their noise.

        Parameters
        ----------
        adata : AnnData
            With the genes of the fit, in any order, and the same kind of values.
        condition : Tensor (n_cells, k), optional
            As in `fit`.
        generator : torch.Generator

        Returns
        -------
        Tensor (n_cells, n_latent_)
            float32, about unit variance per dimension.

        Raises
        ------
        ValueError
            Genes are missing or were not in the fit, or the values are not counts though the fit's were.
        """
        return self.model_.encode(take_genes(self.expression(adata), self.expressed_), condition, generator)

    def encode_copies(
        self, rows: AnnData, n_copies: int, generator: torch.Generator, condition: Tensor | None
    ) -> Tensor:
        """Several draws of the latent vectors of cells, one after the other: (n_copies * n_cells, n_latent_)."""
        if not isinstance(self.model_, CountModel):
            return super().encode_copies(rows, n_copies, generator, condition)
        matrix = take_genes(self.expression(rows), self.expressed_)
        return self.model_.encode(matrix, condition, generator, n_copies=n_copies)

    def expression(self, adata: AnnData) -> Any:
        """The matrix (n_cells, n_genes) of cells, with the genes of the fit in their order; see `encode` for errors."""
        return self._values(align(adata, self.feature_names_in_, self.var_))

    def _values(self, adata: AnnData) -> Any:
        matrix, layer, is_counts = find_expression(adata, self._layer_of(adata))
        if self.kind_ == "counts" and not is_counts:
            raise ValueError(
                f"The codec was fitted on counts, but {layer} holds negative or fractional values; "
                'give raw counts in X or layers["counts"].'
            )
        return matrix

    def complete(
        self, adata: AnnData, condition: Tensor | None, generator: torch.Generator, offsets: Any = None
    ) -> AnnData:
        """Cells of some genes of the fit with all of them: those that are missing are drawn given the others.

        From the counts that are there follow where a cell lies, as far as they say, and how deep it was sequenced, and
        from these the counts of the others. No gene that is there is changed.

        Parameters
        ----------
        adata : AnnData
            With some of the genes of the fit, in any order.
        condition : Tensor (n_cells, k), optional
            As in `fit`.
        generator : torch.Generator
        offsets : dict, optional
            What `predict_offsets` says of combinations that training never showed.

        Returns
        -------
        AnnData
            X of n cells × genes in the order of the fit, ``var`` as in the fit and with a column "imputed", which says
            what was drawn; ``obs``, ``obsm`` and ``uns`` as they are.

        Raises
        ------
        ValueError
            For genes that the fit did not have, if there is none that it had, or if the values are not counts though
            the fit's were.
        """
        from anndata import AnnData

        places = match(adata, self.feature_names_in_, self.var_)
        there = places >= 0
        given = sparse.csc_matrix(in_memory(self._values(adata[:, places[there]])))
        part, present = modelled_part(given, there, self.expressed_)
        if isinstance(self.model_, CountModel):
            drawn: Any = complete_counts(self.model_, part, present, condition, generator, offsets)
            drawn = spread_genes(drawn, self.expressed_, self.n_features_in_)
        else:
            drawn = complete_expression(self.model_, part, present, condition, generator)
        x = put_together(given, there, drawn)
        x = x.astype(self.dtype_ if self.kind_ == "continuous" or counts_dtype(x) == "int32" else "int64")
        x = x if self.sparse_ or self.kind_ == "counts" else x.toarray()
        var = self.var_.assign(imputed=~there)
        return AnnData(x, obs=adata.obs.copy(), var=var, obsm=dict(adata.obsm), uns=dict(adata.uns))

    def _layer_of(self, adata: AnnData) -> str | None:
        if self.layer is not None:
            return self.layer
        there = self.layer_ == "X" or (self.layer_ == "raw" and adata.raw is not None) or self.layer_ in adata.layers
        return self.layer_ if there and (self.kind_ == "continuous" or self.layer_ != "X") else None

    @property
    def calibration_rows_(self) -> int:
        """Number of cells of which `calibrate` makes use, at most."""
        return self.model_.calibration_cells if isinstance(self.model_, CountModel) else super().calibration_rows_

    def calibrate(self, data: Tensor, condition: Tensor | None, generator: torch.Generator) -> None:
        """Calibrate each gene's marginal against cells decoded from these latents.

        `fit` has done so with posterior samples. Call it once more after the diffusion is trained, with several
        latents per training cell drawn from the diffusion at the training conditions: then the diffusion's own
        errors are corrected as well.

        Parameters
        ----------
        data : Tensor (n, n_latent_)
        condition : Tensor (n, k), optional
        generator : torch.Generator
        """
        self.model_.calibrate(data.detach().cpu(), None if condition is None else condition.cpu(), generator)

    def view(self, adata: AnnData, condition: Tensor | None) -> np.ndarray:
        """Where cells lie: principal components of what the model expects of their genes.

        Unlike `encode`, it is the same at every call, knows no library size, and spans the differences between classes
        beside those within.

        Parameters
        ----------
        adata : AnnData
            As in `encode`.
        condition : Tensor (n_cells, k), optional
            As in `fit`.

        Returns
        -------
        float32 array (n_cells, n_components)
        """
        return self.model_.view(take_genes(self.expression(adata), self.expressed_), condition).astype(np.float32)

    def totals(self, adata: AnnData) -> np.ndarray:
        """Total counts (n_cells,) int64 of cells over the genes of the fit."""
        return np.asarray(self.expression(adata).sum(axis=1), dtype=np.float64).reshape(-1).astype(np.int64)

    def training_totals(self, condition: Tensor | None, n: int, generator: torch.Generator) -> np.ndarray:
        """Total counts (n,) int64 of training cells of each row's class, drawn with replacement."""
        assert isinstance(self.model_, CountModel)
        return self.model_.training_totals(condition, n, generator)

    def unseen(self, condition: Tensor | None) -> list[np.ndarray]:
        """Rows (m,) of a condition (n, k) for each combination that training never showed and the codec predicts."""
        if not isinstance(self.model_, CountModel) or not self.model_.effects:
            return []
        return list(self.model_.classes.unseen(condition).values())

    def predict_offsets(self, data: Tensor, condition: Tensor) -> Any:
        """What `decode` is to make of combinations that training never showed, from latents drawn under them.

        A type under what only other types were given, say: it gets the effect that they share, more of that of types
        like it, as far as the training cells speak for such differences; see
        `tabdiff.codecs.cells.effects.CombinationEffects`.

        Parameters
        ----------
        data : Tensor (n, n_latent_)
        condition : Tensor (n, k)

        Returns
        -------
        dict
            For `offsets` of `decode`; empty for values that are not counts.
        """
        return self.model_.predict_offsets(data, condition) if isinstance(self.model_, CountModel) else {}

    def decode(
        self,
        data: Tensor,
        condition: Tensor | None,
        generator: torch.Generator,
        totals: np.ndarray | None = None,
        offsets: Any = None,
    ) -> AnnData:
        """Cells from latent vectors.

        Parameters
        ----------
        data : Tensor (n, n_latent_)
        condition : Tensor (n, k), optional
            As in `fit`. A null that training never showed is drawn from the classes that fit the latent; an unseen
            combination of classes uses the sum of their effects.
        generator : torch.Generator
        totals : int64 array (n,), optional
            Total counts of each cell, for a model of counts: reads are taken from or added to what the latents say.
        offsets : dict, optional
            What `predict_offsets` says of combinations that training never showed.

        Returns
        -------
        AnnData
            X of n cells × genes (CSR for counts, int32 or, where that does not hold them, int64; otherwise the dtype
            and sparsity of the fit), ``var`` as in the fit, ``obs_names`` "synthetic-0", ..., and in
            ``obsm["X_tabdiff"]`` where the cells lie, see `view`.
        """
        from anndata import AnnData
        from pandas import DataFrame

        data = data.detach().cpu().to(torch.float32)
        if data.ndim != 2 or data.shape[1] != self.n_latent_:
            raise ValueError(f"data has shape {tuple(data.shape)}; expected (n, {self.n_latent_}).")
        condition = None if condition is None else condition.detach().cpu()
        if isinstance(self.model_, CountModel):
            x: Any = self.model_.decode(data, condition, generator, totals, offsets)
            x = spread_genes(x, self.expressed_, self.n_features_in_)
            x = x.astype(np.promote_types(x.dtype, self.dtype_), copy=False)
        else:
            x = self.model_.decode(data, condition, generator)
        if self.kind_ == "continuous":
            x = x.astype(self.dtype_)
            x = sparse.csr_matrix(x) if self.sparse_ else x
        obs = DataFrame(index=[f"synthetic-{i}" for i in range(len(data))])
        where = self.model_.view_latents(data, condition, torch.Generator().manual_seed(0)).astype(np.float32)
        return AnnData(x, obs=obs, var=self.var_.copy(), obsm={"X_tabdiff": where})

    def state(self) -> dict[str, Any]:
        """Everything that was learned, as nested dicts of plain values, arrays and one DataFrame."""
        return {
            "layer": self.layer,
            "n_latent": self.n_latent,
            "kind": self.kind_,
            "layer_fitted": self.layer_,
            "sparse": self.sparse_,
            "dtype": self.dtype_,
            "expressed": self.expressed_,
            "colors": self.colors_,
            "var": self.var_,
            "model": self.model_.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CellCodec:
        """The codec whose `state` this is."""
        self = cls(layer=state["layer"], n_latent=state["n_latent"])
        self.kind_, self.layer_ = state["kind"], state["layer_fitted"]
        expressed = state.get("expressed")
        self.expressed_ = None if expressed is None else np.asarray(expressed)
        self.colors_ = {str(name): [str(c) for c in own] for name, own in state.get("colors", {}).items()}
        self.sparse_, self.dtype_ = bool(state["sparse"]), state["dtype"]
        self.var_ = state["var"].copy()
        self.n_features_in_ = len(self.var_)
        self.feature_names_in_ = np.asarray(self.var_.index, dtype=object)
        model = CountModel if self.kind_ == "counts" else ExpressionModel
        self.model_ = model.from_state(state["model"])
        self.n_latent_ = self.model_.n_features
        return self


def colors_of(adata: Any) -> dict[str, list[str]]:
    """Colours in ``uns``, as scanpy writes them, of the categories of columns of obs."""
    found = {}
    for key, values in adata.uns.items():
        name = str(key).removesuffix("_colors")
        if str(key).endswith("_colors") and name in adata.obs and isinstance(values, list | tuple | np.ndarray):
            found[str(key)] = [str(value) for value in values]
    return found
