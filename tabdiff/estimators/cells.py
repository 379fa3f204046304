"""What a fitted generator of cells does that others do not: where cells lie, and what they would be elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from tabdiff.codecs.inputs import read_features
from tabdiff.estimators.fitted_attributes import FittedAttributes
from tabdiff.generation.cells import latent
from tabdiff.generation.options import SamplingOptions
from tabdiff.generation.perturbation import add_effect, control_cells
from tabdiff.generation.sampling import SamplePlan
from tabdiff.utils.validation import is_integer

__all__ = ["CellMixin"]


class CellMixin(FittedAttributes):
    """Methods of `DiffusionGenerator` for models of AnnData."""

    def latent(self, adata: Any, *, condition: Any = None) -> np.ndarray:
        """Where cells lie for the model, for neighbours, UMAP or trajectories: ``adata.obsm["X_tabdiff"] = ...``.

        The principal components of the expression that the model expects of each cell, which is free of counting noise
        and of library size, and spans the differences between the classes of the condition beside those within. Drawn
        cells carry theirs in ``obsm["X_tabdiff"]``; to compare real with drawn cells, give both to this method.

        A model of a condition takes cells for what they are said to be, and its map separates the classes even where
        labels are wrong. For a map that is to show whether classes differ, fit without a condition.

        Parameters
        ----------
        adata : AnnData, or MuData where the fit was given one
            Cells with the genes of the fit, in any order. It is never changed.
        condition : optional
            Their condition, in the forms of `sample` that go row by row or give one value; by default their own.

        Returns
        -------
        ndarray of shape (n_cells, n_components)
            float32, at most 50 components.

        Raises
        ------
        TypeError
            If the model or `adata` is not one of cells.
        ValueError
            For genes that are missing, or cells without the condition of the fit.
        """
        check_is_fitted(self)
        model = self.model_
        if model.container not in ("cells", "multimodal"):
            raise TypeError("latent is for models of AnnData; this one was fitted on a table or an array.")
        features, own = read_features(self, adata, model.container, model.condition_names, model.source)
        return latent(model, features, condition, own)

    def predict_perturbation(
        self,
        adata: Any,
        condition: Mapping[Any, Any],
        *,
        control: Mapping[Any, Any] | None = None,
        n_samples: int | None = None,
        n_top_genes: int = 50,
        random_state: Any = None,
    ) -> Any:
        """Draw cells as given ones would be under another condition, and say which genes it changes.

        They have the given cells' types, other conditions and depths, as with ``sample(like=cells,
        condition=condition)``, and are new cells: row i is no prediction of what becomes of cell i. A combination that
        training never showed, such as a type that was never stimulated, gets the effect that types have in common and
        more of that of types like it; see `tabdiff.codecs.cells.effects.CombinationEffects`.

        Parameters
        ----------
        adata : AnnData
            Cells with the genes and conditions of the fit. It is never changed.
        condition : dict
            What they are to be under, from names of conditions to a value: ``{"condition": "stim"}``.
        control : dict, optional
            Which cells to start from, from columns of ``adata.obs`` to a value: ``{"condition": "ctrl"}``. By default
            all, where they have one value of what `condition` names; else those named like a control (ctrl, control,
            vehicle, unstimulated, untreated, DMSO, mock, non-targeting), or of dose 0.
        n_samples : int, optional
            Number of cells; by default as many as there are to start from.
        n_top_genes : int, default=50
            Number of genes in ``uns["tabdiff"]["top_genes"]``.
        random_state : int, RandomState or None, default=None
            As in `sample`.

        Returns
        -------
        AnnData
            New cells, with the difference of their mean log-normalised expression from that of the cells they start
            from in ``var["effect"]``, and the genes in which it is largest in ``uns["tabdiff"]["top_genes"]``.

        Raises
        ------
        TypeError
            If the model or `adata` is not one of cells, or `condition` no dict.
        ValueError
            For unknown names and labels, genes that are missing, or if no controls are found.

        Examples
        --------
        >>> import numpy as np, pandas as pd
        >>> from anndata import AnnData
        >>> from tabdiff import DiffusionGenerator
        >>> counts = np.random.default_rng(0).poisson(2.0, (80, 12))
        >>> counts[20:40, :3] += 9  # type A, stimulated
        >>> obs = pd.DataFrame({"cell_type": ["A"] * 40 + ["B"] * 40, "condition": (["ctrl"] * 20 + ["stim"] * 20) * 2})
        >>> cells = AnnData(counts.astype("float32"), obs=obs.set_axis(obs.index.astype(str)))
        >>> seen = cells[:60].copy()  # B was never stimulated
        >>> gen = DiffusionGenerator(max_steps=20, random_state=0).fit(seen, condition=["cell_type", "condition"])
        >>> controls = seen[seen.obs["cell_type"] == "B"]
        >>> predicted = gen.predict_perturbation(controls, {"condition": "stim"}, random_state=0)
        >>> sorted(predicted.var["effect"].nlargest(3).index)
        ['0', '1', '2']
        """
        model = self._drawing_model()
        if model.container == "multimodal":
            raise TypeError(
                "predict_perturbation is not available for MuData; gen.sample(like=controls, condition=condition) "
                "draws the same cells, without the genes."
            )
        if model.container != "cells":
            raise TypeError(
                "predict_perturbation is for models of AnnData; this one was fitted on a table or an array."
            )
        if not isinstance(condition, Mapping):
            raise TypeError(f"condition must be a dict from names of conditions to a value; got {condition!r:.60}.")
        if not is_integer(n_top_genes, 1):
            raise ValueError(f"n_top_genes must be an integer of at least 1; got {n_top_genes!r}.")
        read_features(self, adata, "cells", model.condition_names, model.source)
        start = control_cells(model, adata, condition, control)
        options = SamplingOptions(random_state=random_state)
        seed = model.seed(random_state)
        drawn, _ = SamplePlan(model, n_samples, condition, options, like=start, seed=seed, verbose=self.verbose).rows()
        add_effect(drawn, model.codec.expression(start), n_top_genes)
        return drawn
