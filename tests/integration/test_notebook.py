"""The notebook of ``examples/`` runs from top to bottom, with less training, and holds the outputs of a full run."""

import base64
import json
import re
import struct
from pathlib import Path

import pytest
import sklearn.ensemble
import torch

from tabdiff.codecs.cells import autoencoder_training

pytestmark = pytest.mark.exhaustive

NOTEBOOK = Path(__file__).parents[2] / "examples" / "cells.ipynb"

pytestmark = pytest.mark.skipif(not NOTEBOOK.exists(), reason="an installed package has no examples beside its tests")


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def pictures(cell):
    return [output["data"]["image/png"] for output in cell["outputs"] if "image/png" in output.get("data", {})]


@pytest.mark.slow
def test_code_cells_run_in_order_and_make_the_figures_of_the_file(code_cells, tmp_path, monkeypatch):
    pytest.importorskip("imblearn")
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tabdiff.model.fit.resolve_steps", lambda *_, **__: 10)
    monkeypatch.setattr("tabdiff.codecs.cells.counts.CALIBRATION_CELLS", (500, 500))
    train, forest = autoencoder_training.train_autoencoder, sklearn.ensemble.RandomForestClassifier
    monkeypatch.setattr(
        autoencoder_training, "train_autoencoder", lambda *args, **given: train(*args, **given | {"max_steps": 40})
    )
    monkeypatch.setattr(sklearn.ensemble, "RandomForestClassifier", lambda _, **given: forest(10, **given))
    threads = torch.get_num_threads()
    names: dict = {}
    with plt.rc_context():
        plt.switch_backend("Agg")
        for number, cell in enumerate(code_cells, start=1):
            plt.close("all")
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {number}", "exec"), names)
            assert len(plt.get_fignums()) == len(pictures(cell)), f"figures of code cell {number}"
            for figure in map(plt.figure, plt.get_fignums()):
                figure.canvas.draw()
                assert any(ax.has_data() for ax in figure.axes)
            # UMAP, where it starts the threads of numba, sets those of torch too.
            torch.set_num_threads(threads)
        plt.close("all")

    assert names["drawn"].obs["bulk_labels"].value_counts().equals(names["unseen"].obs["bulk_labels"].value_counts())
    assert names["found"].shape == (10, 12) and 0.3 < names["found"].to_numpy().mean() < 1
    assert (names["repeat"].X != names["b_cells"].X).nnz == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blood.model", "drawn.h5ad"]


def test_outputs_are_those_of_one_full_run(code_cells):
    assert [cell["execution_count"] for cell in code_cells] == list(range(1, len(code_cells) + 1))
    outputs = [output for cell in code_cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"execute_result", "display_data", "stream"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} == {"stdout"}
    tables = [output for output in outputs if "<table" in "".join(output.get("data", {}).get("text/html", ""))]
    assert len(tables) >= 6
    drawn = [base64.b64decode("".join(picture)) for cell in code_cells for picture in pictures(cell)]
    assert len(drawn) == 5
    for picture in drawn:
        assert picture.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", picture[16:24])
        assert 300 < width < 1400 and 200 < height < 800


def test_the_file_is_small_and_says_nothing_of_the_machine_that_ran_it(notebook):
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_500_000
    assert notebook["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert all(not cell["metadata"] for cell in notebook["cells"])
    assert not re.search(r"/(root|home|tmp|Users|work)/|site-packages|Warning", text)
    assert [cell["id"] for cell in notebook["cells"]] == [f"cell-{k:02d}" for k in range(len(notebook["cells"]))]
