"""Several modalities of the same cells: what a MuData holds, taken apart and put together."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["Modalities", "is_mudata", "quiet_mudata"]


def is_mudata(X: Any) -> bool:
    """Whether X is a MuData, told without importing mudata."""
    return any(t.__name__ == "MuData" and t.__module__.split(".")[0] == "mudata" for t in type(X).__mro__)


@dataclass
class Modalities:
    """Modalities of the same cells, in the same order.

    Attributes
    ----------
    mod : dict of AnnData
        By name.
    obs : DataFrame
        What is known of each cell.
    obsm, uns : dict
        Arrays with a row for each cell, and anything else.
    """

    mod: dict[str, AnnData]
    obs: pd.DataFrame
    obsm: dict[str, Any] = field(default_factory=dict)
    uns: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, mdata: Any, name: str = "mdata") -> Modalities:
        """Take a MuData apart, which stays as it is.

        Parameters
        ----------
        mdata : MuData
        name : str, default="mdata"
            What it is called in errors.

        Raises
        ------
        TypeError
            If one of its modalities is a MuData.
        ValueError
            For modalities that share genes rather than cells, cells that one of them lacks, names that repeat, and
            modalities without features.
        """
        if getattr(mdata, "axis", 0) != 0:
            raise ValueError(
                f"{name} must be modalities of the same cells, axis=0; got axis={mdata.axis}, the same genes of "
                f"several sets. Make one AnnData of them: anndata.concat(dict({name}.mod), label='set')."
            )
        if not mdata.mod:
            raise ValueError(f"{name} must have a modality; got a MuData without any.")
        names = mdata.obs_names
        if names.has_duplicates:
            raise ValueError(
                f"names of cells must be unique for modalities to be matched; got {names[names.duplicated()][0]!r} "
                f"more than once. Use {name}.obs_names_make_unique()."
            )
        found: dict[str, AnnData] = {}
        for key, adata in mdata.mod.items():
            if is_mudata(adata):
                raise TypeError(f"modalities must be AnnData; got a MuData as {name}[{key!r}]. Pass it alone.")
            if adata.n_vars == 0:
                raise ValueError(
                    f"modality {key!r} must have a feature; got none. Leave it out: del {name}.mod[{key!r}]."
                )
            places = adata.obs_names.get_indexer(names)
            if (places < 0).any():
                masks = " & ".join(f"{name}.obsm[{k!r}]" for k in mdata.mod)
                raise ValueError(
                    f"every cell must be in all modalities; got {int((places < 0).sum())} of {len(names)} that "
                    f"{key!r} lacks. Keep those that all have: {name}[{masks}].copy(), which is what "
                    f"muon.pp.intersect_obs({name}) does."
                )
            found[key] = adata if np.array_equal(places, np.arange(adata.n_obs)) else adata[places]
        # A MuData says in obsm which cells each modality has.
        obsm = {key: value for key, value in mdata.obsm.items() if key not in found}
        return cls(found, mdata.obs, obsm, dict(mdata.uns))

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.obs)

    @property
    def n_vars(self) -> int:
        """Number of features of all modalities."""
        return sum(int(adata.n_vars) for adata in self.mod.values())

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of cells and features."""
        return self.n_obs, self.n_vars

    @property
    def obs_names(self) -> pd.Index:
        """Names of the cells."""
        return self.obs.index

    @obs_names.setter
    def obs_names(self, names: Any) -> None:
        self.obs = self.obs.set_axis(pd.Index(names), axis=0)

    @property
    def var_names(self) -> np.ndarray:
        """Names of all features, "modality:name"."""
        return np.array([f"{key}:{name}" for key, adata in self.mod.items() for name in adata.var_names], dtype=object)

    def __len__(self) -> int:
        return self.n_obs

    def to_mudata(self) -> Any:
        """Put them together as a MuData."""
        MuData = _mudata().MuData
        mod = {}
        for key, adata in self.mod.items():
            mod[key] = adata.copy()
            mod[key].obs_names = self.obs_names
        # A column "rna:cell_type" of obs is what mudata shows of the modality's own.
        for column in self.obs.columns:
            key, _, own = str(column).partition(":")
            if own and key in mod:
                mod[key].obs[own] = self.obs[column].array
        with quiet_mudata():
            mdata = MuData(mod)
            for column in self.obs.columns:
                mdata.obs[column] = self.obs[column].array
        for key, value in self.obsm.items():
            mdata.obsm[key] = value
        mdata.uns.update(self.uns)
        return mdata


@contextmanager
def quiet_mudata() -> Iterator[None]:
    """Without warnings of names that several modalities share, and of what the next version of mudata will do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def _mudata() -> Any:
    try:
        import mudata
    except ImportError as error:
        raise ImportError(
            'cells of several modalities come as MuData, which needs mudata. Install it with: pip install "tabdiff['
            'multimodal]"'
        ) from error
    return mudata
