"""MuData taken apart and put together."""

import re
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from tabdiff.io.modalities import Modalities, is_mudata

mudata = pytest.importorskip("mudata")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mudata", "ignore::FutureWarning:mudata")


def cells(genes, names="abcd"):
    adata = anndata.AnnData(np.arange(len(names) * genes, dtype=np.float32).reshape(len(names), genes))
    adata.obs_names = list(names)
    return adata


def test_what_is_read_is_put_together_as_it_was():
    mdata = mudata.MuData({"rna": cells(3), "prot": cells(2)})
    mdata.obs["type"] = pd.Categorical(list("xyxy"))
    mdata.obsm["where"] = np.eye(4)
    mdata.uns["note"] = "kept"
    read = Modalities.read(mdata)
    assert read.shape == (4, 5) and list(read.obsm) == ["where"] and list(read.obs["type"]) == list("xyxy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of its warnings about names that modalities share nothing is heard
        again = read.to_mudata()
    assert is_mudata(again) and list(again.mod) == ["rna", "prot"] and again.uns["note"] == "kept"
    for key in again.mod:
        np.testing.assert_array_equal(again[key].X, mdata[key].X)
        assert list(again[key].obs_names) == list("abcd")
    np.testing.assert_array_equal(again.obsm["where"], np.eye(4))
    assert list(again.obs["type"]) == list("xyxy")


def test_cells_are_matched_by_name():
    mdata = mudata.MuData({"rna": cells(3), "prot": cells(2)[::-1].copy()})
    read = Modalities.read(mdata)
    assert list(read.mod["prot"].obs_names) == list(read.mod["rna"].obs_names) == list(read.obs_names)
    np.testing.assert_array_equal(read.mod["prot"].X, cells(2).X)


def test_what_is_not_modalities_of_the_same_cells_is_refused():
    with pytest.raises(ValueError, match=r"got 1 of 5 that 'rna' lacks"):
        Modalities.read(mudata.MuData({"rna": cells(3), "prot": cells(2, "abcde")}))
    genes = mudata.MuData({"one": cells(3), "two": cells(3, "efg")}, axis=1)
    with pytest.raises(ValueError, match="axis=0; got axis=1") as caught:
        Modalities.read(genes)
    advice = re.search(r"Make one AnnData of them: (.*)\.$", str(caught.value)).group(1)
    assert eval(advice, {"mdata": genes, "anndata": anndata}).shape == (7, 3)
    with pytest.raises(ValueError, match="modality 'prot' must have a feature"):
        Modalities.read(mudata.MuData({"rna": cells(3), "prot": cells(3)[:, :0].copy()}))
    with pytest.raises(TypeError, match=r"must be AnnData; got a MuData as mdata\['both'\]"):
        Modalities.read(mudata.MuData({"both": mudata.MuData({"rna": cells(3)}), "prot": cells(2)}))
    assert not is_mudata(cells(2)) and not is_mudata(None)
