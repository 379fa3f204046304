"""MuData to latent vectors and back: several counts of the same cells, such as RNA and surface proteins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from tabdiff.codecs.cells.codec import CellCodec, colors_of
from tabdiff.codecs.cells.completion import complete_counts, modelled_part, put_together
from tabdiff.codecs.cells.counts import CountModel
from tabdiff.codecs.cells.panel import align, match
from tabdiff.io.expression import (
    counts_dtype,
    expressed_genes,
    find_expression,
    in_memory,
    looks_like,
    spread_genes,
    take_genes,
)
from tabdiff.io.modalities import Modalities

__all__ = ["MultimodalCodec"]


class MultimodalCodec(CellCodec):
    """Counts of several modalities of the same cells as latent vectors of about unit variance, and back.

    One autoencoder has the features of all modalities, so that a cell has one latent for all of them and what they
    share is said once. In each modality rates sum to one, and the library size is its own, a latent dimension each: the
    total of the counts where there are many, and where features or counts are few, whose own noise is a large part of
    the total, what the counts say of it. So neither depth nor the large counts of one modality pass for expression in
    another.

    Parameters
    ----------
    n_latent : int, optional
        Latent dimensions; by default they follow the number of cells and features.

    Attributes
    ----------
    modalities_ : list of str
        Their names, in order.
    layers_ : dict of str
        Where the counts of each were found: "X", "raw" or the name of a layer.
    vars_ : dict of DataFrame
        ``var`` of each.
    n_features_in_ : int
        Number of features of all.
    feature_names_in_ : object array (n_features_in_,)
        Their names, "modality:name".
    n_latent_ : int
        Length of an encoded vector.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from anndata import AnnData
    >>> from tabdiff.codecs import MultimodalCodec
    >>> from tabdiff.io.modalities import Modalities
    >>> counts = [np.random.default_rng(0).poisson(3.0, (60, n)).astype("float32") for n in (8, 4)]
    >>> rna, protein = (AnnData(x, var={"name": [f"{k}{i}" for i in range(x.shape[1])]}) for k, x in zip("gp", counts))
    >>> cells = Modalities({"rna": rna, "protein": protein}, rna.obs)
    >>> codec = MultimodalCodec().fit(cells, None, [], seed=0, device=torch.device("cpu"))
    >>> generator = torch.Generator().manual_seed(0)
    >>> codec.decode(codec.encode(cells, None, generator), None, generator).mod["protein"].shape
    (60, 4)
    """

    kind_ = "counts"

    def __init__(self, *, n_latent: int | None = None) -> None:
        self.n_latent = n_latent

    @property
    def schema_(self) -> pd.DataFrame:
        """What kind of values were found in each modality, and where."""
        rows = [
            {"modality": key, "kind": self.kind_, "layer": self.layers_[key], "features": len(self.vars_[key])}
            for key in self.modalities_
        ]
        return pd.DataFrame(rows)

    @property
    def var_(self) -> pd.DataFrame:
        """What is known of all features."""
        return pd.concat([self.vars_[key] for key in self.modalities_]).set_axis(self.feature_names_in_)

    def fit(
        self,
        cells: Modalities,
        condition: Tensor | None,
        condition_levels: Sequence[int],
        *,
        seed: int,
        device: torch.device,
        max_time: float | None = None,
        callback: Callable[[dict[str, float | int | str]], object] | None = None,
    ) -> MultimodalCodec:
        """Learn the codec from cells; the object given is left as it is.

        Parameters
        ----------
        cells : Modalities
            Of counts each.
        condition, condition_levels, seed, device, max_time, callback
            As in `CellCodec.fit`.

        Raises
        ------
        ValueError
            For a modality without counts, and as in `CellCodec.fit`.
        """
        if cells.n_obs < 2:
            raise ValueError(f"mdata has {cells.n_obs} cells; at least 2 are needed.")
        self.modalities_ = list(cells.mod)
        self.layers_, self.vars_, self.dtypes_ = {}, {}, {}
        self.expressed_of_: dict[str, np.ndarray | None] = {}
        parts = []
        for key, adata in cells.mod.items():
            matrix, self.layers_[key], is_counts = find_expression(adata, None)
            if not is_counts:
                raise ValueError(not_counts(key, adata, matrix))
            self.vars_[key] = adata.var.copy()
            self.dtypes_[key] = counts_dtype(matrix)
            self.expressed_of_[key] = expressed_genes(matrix)
            parts.append(in_memory(take_genes(matrix, self.expressed_of_[key])))
        self._count_features()
        self.colors_ = colors_of(cells)
        model = CountModel(n_latent=self.n_latent, blocks=[part.shape[1] for part in parts])
        self.model_ = model.fit(
            _beside(parts),
            condition,
            condition_levels,
            generator=torch.Generator().manual_seed(seed),
            device=device,
            max_time=max_time,
            callback=callback,
        )
        self.n_latent_ = self.model_.n_features
        return self

    def _count_features(self) -> None:
        names = [f"{key}:{name}" for key in self.modalities_ for name in self.vars_[key].index]
        self.feature_names_in_ = np.array(names, dtype=object)
        self.n_features_in_ = len(names)
        # Of the parts all that is modelled is taken already.
        self.expressed_ = None

    def expression(self, cells: Modalities) -> Any:
        """The matrix (n_cells, n_modelled) of cells, with the features that are modelled in the order of the fit."""
        return _beside([take_genes(part, self.expressed_of_[key]) for key, part in self._parts(cells).items()])

    def _parts(self, cells: Modalities) -> dict[str, Any]:
        """The counts (n_cells, n_features) of each modality, with the features of the fit in their order."""
        self._refuse_others(cells)
        missing = [key for key in self.modalities_ if key not in cells.mod]
        if missing:
            raise ValueError(
                f"mdata lacks the modalities {missing} of the fit. Give the cells that gen.impute(mdata) returns, in "
                "which these are drawn given the others."
            )
        parts = {}
        for key in self.modalities_:
            known = np.asarray(self.vars_[key].index, dtype=object)
            parts[key] = self._values_of(key, align(cells.mod[key], known, self.vars_[key], key))
        return parts

    def _refuse_others(self, cells: Modalities) -> None:
        others = [key for key in cells.mod if key not in self.modalities_]
        if others:
            known = [key for key in self.modalities_ if key in cells.mod]
            keep = ", ".join(f"{key!r}: mdata[{key!r}]" for key in known)
            fix = f" Leave them out: mudata.MuData({{{keep}}})." if known else ""
            raise ValueError(f"mdata must have modalities of the fit alone, {self.modalities_}; got {others} too.{fix}")

    def _values_of(self, key: str, adata: Any) -> Any:
        layer = self.layers_[key]
        there = layer in adata.layers or (layer == "raw" and adata.raw is not None)
        matrix, _, is_counts = find_expression(adata, layer if there else None)
        if not is_counts:
            raise ValueError(not_counts(key, adata, matrix))
        return in_memory(matrix)

    def totals(self, cells: Modalities) -> np.ndarray:
        """Total counts (n_cells, n_modalities) int64 of cells; (n_cells,) of a single modality."""
        parts = [np.asarray(part.sum(axis=1), dtype=np.float64).reshape(-1) for part in self._parts(cells).values()]
        totals = np.stack(parts, axis=1).astype(np.int64)
        return totals if len(parts) > 1 else totals[:, 0]

    def decode(
        self,
        data: Tensor,
        condition: Tensor | None,
        generator: torch.Generator,
        totals: np.ndarray | None = None,
        offsets: Any = None,
    ) -> Modalities:
        """Cells from latent vectors.

        Parameters
        ----------
        data, condition, generator
            As in `CellCodec.decode`.
        totals : int64 array (n, n_modalities), optional
            Total counts of each cell in each modality, -1 for those that the latents say; (n,) for a single modality.
        offsets : dict, optional
            As in `CellCodec.decode`.

        Returns
        -------
        Modalities
            Counts as `CellCodec.decode` has them, ``var`` as in the fit, and ``obsm["X_tabdiff"]`` of all together.
        """
        from anndata import AnnData

        assert isinstance(self.model_, CountModel)
        data = data.detach().cpu().to(torch.float32)
        condition = None if condition is None else condition.detach().cpu()
        x = self.model_.decode(data, condition, generator, totals, offsets)
        obs = pd.DataFrame(index=[f"synthetic-{i}" for i in range(len(data))])
        mod = {}
        for key, own in zip(self.modalities_, self.model_.blocks.columns, strict=True):
            part = x[:, own]
            counts = self._integers(key, spread_genes(part, self.expressed_of_[key], len(self.vars_[key])))
            mod[key] = AnnData(counts, obs=obs.copy(), var=self.vars_[key].copy())
        where = self.model_.view_latents(data, condition, torch.Generator().manual_seed(0)).astype(np.float32)
        return Modalities(mod, obs, {"X_tabdiff": where})

    def complete(
        self, cells: Modalities, condition: Tensor | None, generator: torch.Generator, offsets: Any = None
    ) -> Modalities:
        """Cells of some features or modalities of the fit with all of them, drawn as in `CellCodec.complete`.

        Parameters
        ----------
        cells : Modalities
            With some of the modalities of the fit, and some of the features of each.
        condition, generator, offsets
            As in `CellCodec.complete`.

        Returns
        -------
        Modalities
            ``var["imputed"]`` of each says what was drawn.
        """
        from anndata import AnnData

        assert isinstance(self.model_, CountModel)
        self._refuse_others(cells)
        given, there, parts, present = {}, {}, [], []
        for key, block in zip(self.modalities_, self.model_.blocks.columns, strict=True):
            known = np.asarray(self.vars_[key].index, dtype=object)
            places = np.full(len(known), -1)
            given[key] = sparse.csc_matrix((cells.n_obs, 0), dtype=np.int32)
            if key in cells.mod:
                places = match(cells.mod[key], known, self.vars_[key], key)
                given[key] = sparse.csc_matrix(self._values_of(key, cells.mod[key][:, places[places >= 0]]))
            there[key] = places >= 0
            part, own = modelled_part(given[key], there[key], self.expressed_of_[key])
            present.append(block.start + own)
            parts.append(part)
        matrix = sparse.hstack(parts, format="csr")
        drawn = complete_counts(self.model_, matrix, np.concatenate(present), condition, generator, offsets)
        mod = {}
        for key, block in zip(self.modalities_, self.model_.blocks.columns, strict=True):
            all_of = spread_genes(drawn[:, block], self.expressed_of_[key], len(self.vars_[key]))
            x = self._integers(key, put_together(given[key], there[key], all_of))
            var = self.vars_[key].assign(imputed=~there[key])
            obs = cells.mod[key].obs.copy() if key in cells.mod else pd.DataFrame(index=cells.obs_names)
            mod[key] = AnnData(x, obs=obs, var=var)
        return Modalities(mod, cells.obs.copy(), dict(cells.obsm), dict(cells.uns))

    def _integers(self, key: str, counts: Any) -> Any:
        return counts.astype(self.dtypes_[key] if counts_dtype(counts) == "int32" else np.int64)

    def state(self) -> dict[str, Any]:
        """Everything that was learned, as nested dicts of plain values, arrays and DataFrames."""
        names = self.modalities_
        return {
            "n_latent": self.n_latent,
            "modalities": names,
            "layers": [self.layers_[key] for key in names],
            "dtypes": [self.dtypes_[key] for key in names],
            "expressed": [self.expressed_of_[key] for key in names],
            "vars": [self.vars_[key] for key in names],
            "colors": self.colors_,
            "model": self.model_.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MultimodalCodec:
        """The codec whose `state` this is."""
        self = cls(n_latent=state["n_latent"])
        self.modalities_ = [str(key) for key in state["modalities"]]

        def by_name(values: Any) -> dict[str, Any]:
            return dict(zip(self.modalities_, values, strict=True))

        self.layers_, self.dtypes_ = by_name(state["layers"]), by_name(state["dtypes"])
        self.vars_ = by_name([var.copy() for var in state["vars"]])
        self.expressed_of_ = by_name([None if e is None else np.asarray(e) for e in state["expressed"]])
        self.colors_ = {str(name): [str(c) for c in own] for name, own in state["colors"].items()}
        self._count_features()
        self.model_ = CountModel.from_state(state["model"])
        self.n_latent_ = self.model_.n_features
        return self


def not_counts(key: str, adata: Any, matrix: Any) -> str:
    """What is wrong with a modality without counts, and how to give them."""
    return (
        f"modality {key!r} must hold raw counts in layers['counts'], X or raw; got values that look "
        f"{looks_like(adata, matrix)}. Put its counts where they are looked for, "
        f"mdata[{key!r}].layers['counts'] = ..., or pass one modality, gen.fit(mdata[{key!r}]), which is then "
        "modelled as it is."
    )


def _beside(parts: list[Any]) -> Any:
    """Matrices with their columns one after the other: an array if all are, else CSR."""
    if not any(sparse.issparse(part) for part in parts):
        return np.concatenate(parts, axis=1)
    return sparse.hstack([sparse.csr_matrix(part) for part in parts], format="csr")
