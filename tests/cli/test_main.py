"""The command line: what it writes, and that whatever goes wrong is one line and an exit code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from command_line import fails as _fails
from scipy import sparse

from tabdiff import DiffusionGenerator
from tabdiff.cli.main import main
from tabdiff.io.atomic import replacing
from tabdiff.io.data_files import DataFileError, read_data, write_data


def _table(n: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.normal(10, 2, n).round(2),
            "count": pd.array(rng.integers(0, 60, n), dtype="Int64"),
            "colour": rng.choice(["red", "green"], n),
            "grade": rng.integers(1, 4, n),
            "good": rng.random(n) < 0.5,
            "dose": rng.uniform(0, 10, n).round(3),
        }
    )
    frame.loc[::7, "count"] = pd.NA
    return frame


def _cells(n: int = 60, genes: int = 12) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    return anndata.AnnData(
        sparse.csr_matrix(rng.poisson(2, (n, genes)).astype(np.int32)),
        obs=pd.DataFrame({"type": pd.Categorical(rng.choice(["B", "T"], n))}, index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"g{j}" for j in range(genes)]),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data files and a model of the table; tests write to folders of their own."""
    path = tmp_path_factory.mktemp("cli")
    _table().to_csv(path / "table.csv", index=False)
    fit = f"fit {path}/table.csv -o {path}/model --condition colour grade good dose"
    assert main(f"{fit} --max-steps 3 --seed 1 --quiet".split()) == 0
    return path


@pytest.fixture(scope="module")
def cell_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells")
    _cells().write_h5ad(path / "cells.h5ad")
    code = main(
        f"fit {path}/cells.h5ad --condition type -o {path}/model --max-steps 3 --max-time 2 --seed 1 --quiet".split()
    )
    assert code == 0
    return path / "model"


def test_csv_in_csv_out_keeps_columns_whole_numbers_and_missing_values(folder, tmp_path, capsys):
    assert main(f"sample {folder}/model -n 200 -o {tmp_path}/out.csv --seed 3".split()) == 0
    out, err = capsys.readouterr()
    assert "200 rows × 6 columns, seed 3" in out and err == ""
    real, drawn = read_data(folder / "table.csv"), read_data(tmp_path / "out.csv")
    assert list(drawn.columns) == list(real.columns)
    assert drawn.dtypes.equals(real.dtypes)
    assert str(real["count"].dtype) == "Int64" and 0 < drawn["count"].isna().mean() < 0.5


def test_seed_repeats_and_its_absence_does_not(folder, tmp_path):
    for name, seed in (("a", "--seed 5"), ("b", "--seed 5"), ("c", ""), ("d", "")):
        assert main(f"sample {folder}/model -n 20 -o {tmp_path}/{name}.csv --quiet {seed}".split()) == 0
    a, b, c, d = ((tmp_path / f"{name}.csv").read_text() for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_fit_with_the_same_seed_writes_the_same_model(folder, tmp_path):
    fit = f"fit {folder}/table.csv -o {tmp_path}/model --condition colour --condition grade good dose"
    assert main(f"{fit} --max-steps 3 --seed 1 --quiet".split()) == 0
    assert (tmp_path / "model/model.safetensors").read_bytes() == (folder / "model/model.safetensors").read_bytes()


def test_printed_seed_repeats_the_samples(folder, tmp_path, capsys):
    main(f"sample {folder}/model -n 5 -o {tmp_path}/a.csv".split())
    seed = capsys.readouterr().out.split("seed ")[1].strip()
    main(f"sample {folder}/model -n 5 -o {tmp_path}/b.csv --seed {seed} --quiet".split())
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (["colour=red"], {"colour": "red"}),
        (["grade=2"], {"grade": 2}),
        (["good=True"], {"good": True}),
        (["dose=2.5"], {"dose": 2.5}),
        (["dose=5e0", "grade=1", "colour=green"], {"dose": 5.0, "grade": 1, "colour": "green"}),
    ],
)
def test_condition_values_have_the_type_of_the_fit(folder, tmp_path, condition, expected):
    out = tmp_path / "out.csv"
    args = ["sample", str(folder / "model"), "-n", "6", "--condition", *condition, "-o", str(out), "--quiet"]
    assert main([*args, "--guidance-scale", "2", "--steps", "4"]) == 0
    drawn = read_data(out)
    for name, value in expected.items():
        assert np.allclose(drawn[name], value, rtol=1e-6) if name == "dose" else (drawn[name] == value).all()


def test_condition_names_may_hold_an_equals_sign(tmp_path):
    frame = _table().rename(columns={"colour": "a=b"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert (
        main(["fit", f"{tmp_path}/t.csv", "--condition", "a=b", "-o", f"{tmp_path}/m", "--max-steps", "2", "--quiet"])
        == 0
    )
    sample = ["sample", f"{tmp_path}/m", "-n", "4", "--condition", "a=b=red", "-o", f"{tmp_path}/o.csv", "--quiet"]
    assert main(sample) == 0
    assert set(read_data(tmp_path / "o.csv")["a=b"]) == {"red"}


def test_value_outside_the_range_is_one_line_of_warning(folder, tmp_path, capsys):
    assert main(f"sample {folder}/model -n 3 --condition dose=99 -o {tmp_path}/o.csv --quiet".split()) == 0
    err = capsys.readouterr().err
    assert err.startswith("tabdiff: warning: ") and err.count("\n") == 1 and "99 lies outside" in err


def test_parquet_round_trip_keeps_dtypes(folder, tmp_path):
    pytest.importorskip("pyarrow")
    frame = _table().astype({"colour": "category"})
    frame.to_parquet(tmp_path / "t.parquet")
    assert main(f"fit {tmp_path}/t.parquet -o {tmp_path}/m --max-steps 2 --quiet".split()) == 0
    assert main(f"sample {tmp_path}/m -n 7 -o {tmp_path}/o.parquet --quiet".split()) == 0
    drawn = pd.read_parquet(tmp_path / "o.parquet")
    assert drawn.dtypes.equals(frame.dtypes) and len(drawn) == 7


@pytest.mark.slow
def test_h5ad_in_h5ad_out_keeps_counts_genes_and_labels(cell_model, tmp_path, capsys):
    out = tmp_path / "o.h5ad"
    assert main(f"sample {cell_model} -n 9 --condition type=B -o {out} --seed 1".split()) == 0
    assert "9 rows × 12 genes" in capsys.readouterr().out
    drawn = anndata.read_h5ad(out)
    assert drawn.shape == (9, 12) and sparse.issparse(drawn.X) and drawn.X.dtype.kind == "i"
    assert list(drawn.var_names) == [f"g{j}" for j in range(12)]
    assert list(drawn.obs["type"].cat.categories) == ["B", "T"] and set(drawn.obs["type"]) == {"B"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore::UserWarning:mudata")
def test_h5mu_in_h5mu_out_keeps_modalities_and_labels(tmp_path, capsys):
    mudata = pytest.importorskip("mudata")
    both = {"rna": _cells(), "prot": _cells(genes=4)}
    mdata = mudata.MuData(both)
    mdata.obs["type"] = both["rna"].obs["type"]
    mdata.write(tmp_path / "c.h5mu")
    model, out = tmp_path / "m", tmp_path / "o.h5mu"
    fit = f"fit {tmp_path}/c.h5mu --condition type -o {model} --max-steps 3 --max-time 2 --seed 1 --quiet"
    assert main(fit.split()) == 0
    assert main(f"sample {model} -n 30 --condition type=B -o {out} --seed 1".split()) == 0
    assert "30 rows × 16 features" in capsys.readouterr().out
    drawn = mudata.read_h5mu(out)
    assert list(drawn.mod) == ["rna", "prot"] and drawn["prot"].shape == (30, 4) and set(drawn.obs["type"]) == {"B"}
    _fails(capsys, ["sample", model, "-n", 2], 1, "cells go to an .h5mu file")
    _fails(capsys, ["sample", model, "-n", 2, "-o", tmp_path / "o.h5ad"], 1, "are written as .h5mu")
    _fails(capsys, ["sample", model, "-n", 2, "-o", tmp_path / "folder"], 1, "not written by sample_to")
    _fails(capsys, ["score", model, tmp_path / "c.h5mu"], 1, "no likelihood")
    capsys.readouterr()
    assert main(f"evaluate {tmp_path}/c.h5mu {out} --format csv".split()) == 0
    assert "modality_agreement (rna and prot)" in capsys.readouterr().out


def test_model_fitted_on_an_array_with_labels_samples_to_a_table_with_both(tmp_path):
    X = np.random.default_rng(0).normal(size=(40, 2))
    DiffusionGenerator(max_steps=2, random_state=0).fit(X, np.arange(40) % 2).save(tmp_path / "m")
    assert main(f"sample {tmp_path}/m -n 4 --condition y=1 -o {tmp_path}/o.csv --quiet".split()) == 0
    drawn = read_data(tmp_path / "o.csv")
    assert list(drawn.columns) == ["x0", "x1", "y"] and set(drawn["y"]) == {1}


def test_existing_output_is_replaced_whole_or_not_at_all(folder, tmp_path, capsys):
    out = tmp_path / "o.csv"
    out.write_text("old")
    _fails(capsys, ["sample", folder / "model", "-n", 3, "--condition", "colour=blue", "-o", out], 1)
    assert out.read_text() == "old"
    assert main(f"sample {folder}/model -n 3 -o {out} --quiet".split()) == 0
    assert len(read_data(out)) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["o.csv"]


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "t.csv"
    target.write_text("old")

    def write_half() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_info_names_conditions_columns_training_and_sizes(folder, capsys):
    assert main(["info", str(folder / "model")]) == 0
    out = capsys.readouterr().out
    for words in (
        "table of 6 columns",
        "80 rows, 3 steps, final loss",
        "colour: class of 2: green, red",
        "grade: class of 3: 1, 2, 3",
        "dose: continuous, from",
        "MB, format version 1",
    ):
        assert words in out
    assert any(line.split()[:2] == ["size", "numeric"] for line in out.splitlines())


def test_info_of_cells(cell_model, capsys):
    assert main(["info", str(cell_model)]) == 0
    out = capsys.readouterr().out
    assert "cells of 12 genes" in out and "type: class of 2: B, T" in out and "counts" in out


def test_fit_reports_rows_steps_and_loss(folder, tmp_path, capsys):
    assert main(f"fit {folder}/table.csv -o {tmp_path}/m --max-steps 2 --max-time 60 --device cpu".split()) == 0
    assert "80 rows × 6 columns, 2 steps in" in capsys.readouterr().out


USAGE_ERRORS = [
    ([], "COMMAND"),
    (["fti"], "fit", "fti"),
    (["fit"], "FILE", "-o"),
    (["fit", "t.csv", "-o", "m", "--steps", "3"], "--steps"),
    (["fit", "t.csv", "-o", "m", "--max-steps", "0"], "--max-steps", "at least 1", "'0'"),
    (["fit", "t.csv", "-o", "m", "--max-steps", "many"], "--max-steps", "'many'"),
    (["fit", "t.csv", "-o", "m", "--max-time", "-1"], "--max-time", "positive"),
    (["fit", "t.csv", "-o", "m", "--max-time", "nan"], "--max-time", "finite"),
    (["fit", "t.csv", "-o", "m", "--seed", "-4"], "--seed", "'-4'"),
    (["fit", "t.csv", "-o", "m", "--seed", "x"], "--seed", "'x'"),
    (["sample", "m", "-o", "o.csv"], "-n"),
    (["sample", "m", "-o", "o.csv", "-n", "-3"], "-n", "at least 1"),
    (["sample", "m", "-o", "o.csv", "-n", "3", "--condition", "species"], "NAME=VALUE", "'species'"),
    (["sample", "m", "-o", "o.csv", "-n", "3", "--guidance-scale", "big"], "--guidance-scale", "'big'"),
]


@pytest.mark.parametrize("case", USAGE_ERRORS, ids=lambda case: " ".join(case[0]) or "nothing")
def test_bad_usage_is_one_line_and_code_2(case, capsys):
    arguments, *words = case
    _fails(capsys, arguments, 2, *words)


def test_bad_input_files(folder, tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "one.csv").write_text("a,b\n1,2\n")
    (tmp_path / "mixed.csv").write_text("a,b\n1,2\ninf,2\n3,4\n")
    (tmp_path / "bad.h5ad").write_text("not hdf5")
    (tmp_path / "latin.csv").write_bytes("a\ncaf\xe9\n".encode("latin-1"))
    (tmp_path / "folder.csv").mkdir()
    model = tmp_path / "m"

    def fails(file: Path, *words: str, options: tuple = ()) -> None:
        _fails(capsys, ["fit", file, "-o", model, "--max-steps", 2, *options], 1, *words)
        assert not model.exists()

    fails(folder / "tabel.csv", "no such file", "Did you mean", "table.csv")
    fails(tmp_path / "nowhere" / "t.csv", "no such file")
    fails(tmp_path / "t.xlsx", ".csv, .csv.gz, .parquet, .feather, .npz, .h5ad, .zarr, .h5mu", ".xlsx", "CSV UTF-8")
    fails(tmp_path / "t", "no ending")
    fails(tmp_path / "t.parqet", "Did you mean .parquet?")
    fails(tmp_path / "folder.csv", "is a folder")
    fails(tmp_path / "empty.csv", "empty.csv cannot be read as csv", "it is empty")
    fails(tmp_path / "ragged.csv", "ragged.csv cannot be read as csv", "line 3")
    fails(tmp_path / "latin.csv", "latin.csv cannot be read as csv", "line 2 is not UTF-8", "--encoding cp1252")
    fails(tmp_path / "bad.h5ad", "bad.h5ad cannot be read as h5ad")
    fails(tmp_path / "one.csv", "minimum of 2 samples")
    fails(tmp_path / "mixed.csv", "'a'", "inf")
    fails(folder / "table.csv", "'color'", "Did you mean 'colour'?", options=("--condition", "color"))
    fails(folder / "table.csv", "device", "tpu9", options=("--device", "tpu9"))


def test_damaged_parquet(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_text("not parquet")
    _fails(capsys, ["fit", tmp_path / "bad.parquet", "-o", tmp_path / "m"], 1, "cannot be read as parquet")


def test_missing_pyarrow_says_how_to_install_it(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    _fails(capsys, ["fit", "t.parquet", "-o", tmp_path / "m"], 1, 'pip install "tabdiff[io]"')
    sample = ["sample", folder / "model", "-n", 2, "-o", tmp_path / "o.parquet"]
    _fails(capsys, sample, 1, 'pip install "tabdiff[io]"')


def test_unknown_obs_column_and_layer_of_cells(cell_model, tmp_path, capsys):
    cells = cell_model.parent / "cells.h5ad"
    _fails(capsys, ["fit", cells, "-o", tmp_path / "m", "--condition", "typ"], 1, "'typ'", "Did you mean 'type'?")
    _fails(capsys, ["fit", cells, "-o", tmp_path / "m", "--layer", "counts"], 1, "'counts'", "not a layer")


def test_model_that_cannot_be_written_is_refused_before_the_fit(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(DiffusionGenerator, "fit", lambda *_, **__: pytest.fail("the fit was started"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    table = folder / "table.csv"
    _fails(capsys, ["fit", table, "-o", table], 1, "is a file")
    _fails(capsys, ["fit", table, "-o", tmp_path / "full"], 1, "holds no model")
    _fails(capsys, ["fit", table, "-o", tmp_path / "no" / "m"], 1, "does not exist", "mkdir -p")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


def test_output_that_cannot_be_written_is_refused_before_sampling(folder, cell_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(DiffusionGenerator, "sample", lambda *_, **__: pytest.fail("sampling was started"))
    sample = ["sample", folder / "model", "-n", 2, "-o"]
    _fails(capsys, [*sample, tmp_path / "no" / "o.csv"], 1, "does not exist", "mkdir -p")
    _fails(capsys, [*sample, tmp_path / "o.txt"], 1, ".csv, .csv.gz, .parquet, .feather, .npz, .h5ad, .zarr, .h5mu")
    _fails(capsys, [*sample, folder / "model"], 1, "holds other files")
    _fails(capsys, [*sample, tmp_path / "o.h5ad"], 1, ".csv or .parquet")
    _fails(capsys, ["sample", cell_model, "-n", 2, "-o", tmp_path / "o.csv"], 1, "written as .h5ad")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (["colour=gren"], ["unknown value 'gren'", "Did you mean 'green'?"]),
        (["color=red"], ["unknown condition name 'color'", "Did you mean 'colour'?"]),
        (["grade=7"], ["unknown value '7'", "1, 2, 3"]),
        (["colour="], ["unknown value ''"]),
        (["dose=high"], ["needs a number", "dose=high"]),
        (["dose=nan"], ["needs a number", "dose=nan"]),
        (["colour=red", "colour=green"], ["more than once"]),
    ],
)
def test_bad_condition_values(folder, tmp_path, capsys, condition, words):
    args = ["sample", folder / "model", "-n", 2, "-o", tmp_path / "o.csv", "--condition", *condition]
    _fails(capsys, args, 1, *words)
    assert list(tmp_path.iterdir()) == []


def test_condition_or_guidance_without_one_at_fit(folder, tmp_path, capsys):
    assert main(f"fit {folder}/table.csv -o {tmp_path}/m --max-steps 2 --quiet".split()) == 0
    sample = ["sample", tmp_path / "m", "-n", 2, "-o", tmp_path / "o.csv"]
    _fails(capsys, [*sample, "--condition", "color=red"], 1, "Did you mean 'colour'?")
    _fails(capsys, [*sample, "--guidance-scale", "2"], 1, "guidance_scale=2")
    assert main(["info", str(tmp_path / "m")]) == 0
    assert "conditions   none" in capsys.readouterr().out
    assert main([str(a) for a in [*sample, "--condition", "colour=red", "grade=2", "--quiet"]]) == 0
    drawn = pd.read_csv(tmp_path / "o.csv")
    assert drawn["colour"].to_list() == ["red"] * 2 and drawn["grade"].to_list() == [2] * 2


def test_damaged_models(folder, tmp_path, capsys):
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(folder / "model", tmp_path / name))

    (tmp_path / "empty").mkdir()
    cut = damaged("cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    text = damaged("text")
    (text / "config.json").write_text("{")
    other = damaged("other")
    (other / "config.json").write_text(json.dumps({"format": "something"}))
    future = damaged("future")
    config = json.loads((future / "config.json").read_text())
    (future / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    missing = damaged("missing")
    (missing / "model.safetensors").unlink()
    keys = damaged("keys")
    (keys / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "codec"}))
    for model, word in (
        (tmp_path / "nowhere", "no model folder"),
        (tmp_path / "empty", "no config.json"),
        (folder / "table.csv", "no model folder"),
        (cut, "damaged"),
        (text, "damaged"),
        (other, "does not describe"),
        (future, "99"),
        (missing, "no model.safetensors"),
        (keys, "damaged"),
    ):
        _fails(capsys, ["info", model], 1, word)
        _fails(capsys, ["sample", model, "-n", 1, "-o", tmp_path / "o.csv"], 1, word)


def test_demo_into_a_missing_folder(tmp_path, capsys):
    _fails(capsys, ["demo", "-o", tmp_path / "no"], 1, "does not exist")


def test_an_internal_bug_keeps_its_traceback(folder, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(DiffusionGenerator, "load", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["info", str(folder / "model")])


def test_interrupt_is_one_line_and_code_130(folder, capsys, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionGenerator, "load", interrupted)
    assert main(["info", str(folder / "model")]) == 130
    assert capsys.readouterr().err == "tabdiff: interrupted\n"


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("tabdiff ")


def test_python_m_tabdiff_help_lists_the_commands_and_needs_no_torch():
    root = Path(__file__).parents[2]
    code = (
        "import runpy, sys; sys.argv = ['tabdiff', '--help']\ntry: runpy.run_module('tabdiff', run_name='__main__')\n"
    )
    code += "finally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    for command in ("fit", "sample", "impute", "score", "evaluate", "privacy", "info", "demo"):
        assert f"\n    {command} " in done.stdout
    assert done.stdout.strip().endswith("False")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_cells_are_not_written_as_a_table(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataFileError, match="single cells are written as"):
        write_data(_cells(), tmp_path / name)


# --------------------------------------------------------------------- images


def test_images_go_from_a_folder_to_a_folder(tmp_path, capsys):
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(8):
        place = tmp_path / "pictures" / ("cat" if i % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).save(place / f"{i}.png")
    model, drawn = str(tmp_path / "model"), tmp_path / "drawn"
    assert main(["fit", str(tmp_path / "pictures"), "-o", model, "--max-steps", "1", "--seed", "0"]) == 0
    assert "8 rows × 144 values" in capsys.readouterr().out
    sample = ["sample", model, "-n", "3", "--steps", "2", "--condition", "class=cat", "-o"]
    assert main([*sample, str(drawn)]) == 0
    assert "3 images" in capsys.readouterr().out
    assert sorted(p.name for p in (drawn / "cat").iterdir()) == ["0.png", "1.png", "2.png"]
    with Image.open(drawn / "cat" / "0.png") as image:
        assert image.size == (8, 6) and image.mode == "RGB"
    assert main([*sample, str(drawn)]) == 1 and "not empty" in capsys.readouterr().err
    assert main([*sample, str(tmp_path / "x.csv")]) == 1 and "images go to a folder" in capsys.readouterr().err
    assert main(["info", model]) == 0
    assert "images of 144 values" in capsys.readouterr().out


# -------------------------------------------------------- csv files as they come


def test_options_of_csv_files_follow_the_advice(tmp_path, capsys):
    """A file with everything wrong is fitted by what one message after the other says."""
    lines = [f"{i};{'?' if i == 3 else i % 7};{1000 + i:,};0{i % 4}/0{i % 3 + 1}/2024;é" for i in range(1, 41)]
    lines = [line.replace("00/", "04/") for line in lines]
    (tmp_path / "t.csv").write_bytes(("Report\n\n;k;amount;when;name\n" + "\n".join(lines) + "\n").encode("cp1252"))
    fit = ["fit", str(tmp_path / "t.csv"), "-o", str(tmp_path / "m"), "--max-steps", "2", "--seed", "0", "--quiet"]
    _fails(capsys, fit, 1, "--encoding cp1252")
    fit += ["--encoding", "cp1252"]
    _fails(capsys, fit, 1, "--skip 2")
    fit += ["--skip", "2"]
    assert main(fit) == 0
    err = capsys.readouterr().err
    for words in ("--drop 'Unnamed: 0'", "--missing '?'", "--thousands ','", "--dates dmy"):
        assert words in err
    fit += ["--drop", "Unnamed: 0", "--missing", "?", "--thousands", ",", "--dates", "dmy", "--text", "k"]
    assert main(fit) == 0
    assert capsys.readouterr().err == ""
    assert main(f"sample {tmp_path}/m -n 20 -o {tmp_path}/o.csv --seed 0 --quiet".split()) == 0
    rows = (tmp_path / "o.csv").read_text().splitlines()
    assert rows[0] == "k;amount;when;name"
    assert all(len(row.split(";")) == 4 and row.split(";")[2].endswith("/2024") for row in rows[1:])


def test_no_header_and_separator(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("".join(f"{i % 5}^{i * 2.5}\n" for i in range(30)))
    fit = ["fit", str(tmp_path / "t.csv"), "-o", str(tmp_path / "m"), "--max-steps", "2", "--quiet", "--sep", "^"]
    assert main([*fit, "--no-header"]) == 0
    assert main(f"sample {tmp_path}/m -n 3 -o {tmp_path}/o.csv --quiet".split()) == 0
    assert (tmp_path / "o.csv").read_text().startswith("x0^x1\n")


def test_a_tab_can_be_typed(tmp_path):
    (tmp_path / "t.csv").write_text("a, b\tk\n" + "".join(f"{i % 5}, 1\t{i * 2.5}\n" for i in range(30)))
    fit = ["fit", str(tmp_path / "t.csv"), "-o", str(tmp_path / "m"), "--max-steps", "2", "--quiet"]
    assert main(fit) == 1
    assert main([*fit, "--sep", r"\t"]) == 0


def test_options_of_csv_files_for_other_files(cell_model, tmp_path, capsys):
    fit = ["fit", cell_model.parent / "cells.h5ad", "-o", tmp_path / "m"]
    _fails(capsys, [*fit, "--sep", ";"], 1, "sep is for csv files")
    (tmp_path / "pictures").mkdir()
    _fails(capsys, ["fit", tmp_path / "pictures", "-o", tmp_path / "m", "--drop", "a"], 1, "--drop is for tables")


def test_hdf5_that_is_no_anndata_is_one_line(tmp_path, capsys):
    import h5py

    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["matrix"] = np.zeros((3, 3))
    _fails(capsys, ["fit", tmp_path / "x.h5ad", "-o", tmp_path / "m"], 1, "x.h5ad cannot be read as h5ad", "AnnData")


# ------------------------------------------------------- models of other containers


def test_model_of_a_library_that_is_missing(tmp_path, capsys, monkeypatch):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": np.arange(60.0), "day": [d.date() for d in pd.date_range("2024-01-01", periods=60)]})
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, random_state=0).fit(frame)
    gen.save(tmp_path / "m")
    sample = f"sample {tmp_path}/m -n 4 --seed 0 --quiet -o {tmp_path}"
    assert main(f"{sample}/with.csv".split()) == 0
    monkeypatch.setitem(sys.modules, "polars", None)
    assert main(f"{sample}/without.csv".split()) == 0
    assert (tmp_path / "with.csv").read_text() == (tmp_path / "without.csv").read_text()
    assert list(read_data(tmp_path / "with.csv").columns) == ["a", "day"]
    loaded = DiffusionGenerator.load(tmp_path / "m")
    monkeypatch.setattr("tabdiff.generation.sampling.draw", lambda *_, **__: pytest.fail("rows were drawn"))
    with pytest.raises(ImportError, match=r"the model was fitted on a frame of polars.*pip install polars"):
        loaded.sample(4)


def test_library_that_is_missing_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "scanpy", None)
    _fails(capsys, ["demo", "-o", tmp_path], 1, "scanpy", "Install it: pip install scanpy")


def test_models_of_sequences_and_of_vectors_write_tables(tmp_path, capsys):
    tiny = {"max_steps": 2, "hidden_size": 8, "refine": False, "random_state": 0}
    DiffusionGenerator(**tiny).fit(["ACGT", "AC", "GG"] * 10, condition=["x", "y", "y"] * 10).save(tmp_path / "s")
    assert main(f"sample {tmp_path}/s -n 3 -o {tmp_path}/s.csv --condition condition=y --seed 0".split()) == 0
    assert list(read_data(tmp_path / "s.csv").columns) == ["sequence", "condition"]
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"v": rng.normal(size=40)})
    DiffusionGenerator(**tiny).fit(table, condition={"e": rng.normal(size=(40, 2))}).save(tmp_path / "v")
    sample = ["sample", str(tmp_path / "v"), "-n", "3", "-o", str(tmp_path / "v.csv"), "--seed", "0", "--quiet"]
    assert main([*sample, "--condition", "e=0.5,-1"]) == 0
    rows = read_data(tmp_path / "v.csv")
    assert list(rows.columns) == ["v", "e_0", "e_1"]
    assert np.allclose(rows[["e_0", "e_1"]], [0.5, -1])
    _fails(capsys, [*sample, "--condition", "e=a,b"], 1, "'e' is a vector, so it needs numbers", "'e=a,b'"[3:6])
    DiffusionGenerator(**tiny).fit(table, condition={"e": rng.normal(size=(40, 3, 2))}).save(tmp_path / "t")
    _fails(
        capsys,
        ["sample", tmp_path / "t", "-n", 1, "-o", tmp_path / "o.csv", "--condition", "e=1"],
        1,
        "Sample in Python",
    )
