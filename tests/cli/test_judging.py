"""The commands impute, score, evaluate, privacy and completion, and standard output as a place for data."""

import io
import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from command_line import fails

from tabdiff import DiffusionGenerator
from tabdiff.cli.main import main, make_parser
from tabdiff.io.data_files import read_data


def table(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n).round(3)
    y = (0.8 * x + 0.5 * rng.normal(size=n)).round(3)
    frame = pd.DataFrame({"x": x, "y": y, "colour": np.where(x > 0, "red", "green"), "k": rng.integers(0, 9, n)})
    frame.loc[::9, "y"] = np.nan
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("judging")
    for name, (n, seed) in {"train": (180, 0), "holdout": (240, 1), "drawn": (180, 2)}.items():
        table(n, seed).to_csv(path / f"{name}.csv", index=False)
    assert main(f"fit {path}/train.csv -o {path}/model --max-steps 5 --seed 1 --quiet".split()) == 0
    return path


def run(capsys, text):
    capsys.readouterr()
    code = main(text.split())
    return code, *capsys.readouterr()


def test_sample_writes_csv_to_standard_output_and_words_to_the_other(folder, tmp_path, capsys):
    code, out, err = run(capsys, f"sample {folder}/model -n 7 --seed 3")
    assert code == 0 and "7 rows × 4 columns, seed 3" in err
    assert main(f"sample {folder}/model -n 7 --seed 3 -o {tmp_path}/o.csv --quiet".split()) == 0
    assert out == (tmp_path / "o.csv").read_text()


def test_impute_fills_and_keeps_what_is_there(folder, tmp_path, capsys):
    code, out, err = run(capsys, f"impute {folder}/model {folder}/train.csv --seed 0")
    assert code == 0 and "20 missing values of 180 rows filled, seed 0" in err
    filled, before = pd.read_csv(io.StringIO(out)), pd.read_csv(folder / "train.csv")
    assert filled.notna().all(axis=None)
    known = before["y"].notna()
    pd.testing.assert_frame_equal(filled[known], before[known])
    code, out, _ = run(capsys, f"impute {folder}/model {folder}/train.csv --n-draws 2 -o {tmp_path}/two.csv --quiet")
    assert code == 0 and out == ""
    two = read_data(tmp_path / "two.csv")
    assert two["draw"].value_counts().to_dict() == {1: 180, 2: 180}


@pytest.mark.slow
def test_score_gives_a_number_a_row_or_the_mean(folder, capsys):
    code, out, _ = run(capsys, f"score {folder}/model {folder}/drawn.csv --quiet")
    scores = pd.read_csv(io.StringIO(out))["log_likelihood"]
    assert code == 0 and len(scores) == 180 and np.isfinite(scores).all()
    code, out, _ = run(capsys, f"score {folder}/model {folder}/drawn.csv --mean --quiet")
    assert float(out) == pytest.approx(scores.mean(), rel=1e-4)
    gen = DiffusionGenerator.load(folder / "model")
    assert scores.mean() == pytest.approx(gen.score(read_data(folder / "drawn.csv")))


@pytest.mark.slow
def test_three_commands_from_a_csv_to_a_report(folder, tmp_path, capsys):
    code, out, err = run(capsys, f"evaluate {folder}/train.csv {folder}/drawn.csv -o {tmp_path}/report.html")
    assert code == 0 and "c2st" in out and "report.html: the report" in err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "How good is the synthetic table?" in page
    files = f"{folder}/train.csv {folder}/drawn.csv --holdout {folder}/holdout.csv"
    code, out, _ = run(
        capsys, f"evaluate {files} --target colour --format json --name ours --quiet -o {tmp_path}/r.csv"
    )
    found = json.loads(out)
    assert found["name"] == "ours" and "downstream_auc" in {row["metric"] for row in found["scores"]}
    assert list(pd.read_csv(tmp_path / "r.csv")["metric"]) == [row["metric"] for row in found["scores"]]


@pytest.mark.slow
def test_privacy_says_so_by_its_exit_code_where_that_is_asked_for(folder, tmp_path, capsys):
    rest = f"--train {folder}/train.csv --holdout {folder}/holdout.csv --format csv --quiet"
    code, out, _ = run(capsys, f"privacy {folder}/train.csv {rest} -o {tmp_path}/p.html")
    assert code == 0 and (pd.read_csv(io.StringIO(out))["verdict"] == "fails").any()
    assert "How private" in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert run(capsys, f"privacy {folder}/train.csv {rest} --strict")[0] == 3
    code, out, _ = run(capsys, f"privacy {folder}/drawn.csv {rest} --strict --model {folder}/model --secret k")
    frame = pd.read_csv(io.StringIO(out)).set_index("metric")
    assert code == 0 and {"AUC (loss)", "inference of k, risk %"} <= set(frame.index)


def test_sequences_go_from_fasta_to_fasta(tmp_path, capsys):
    rng = np.random.default_rng(0)
    lines = [f">s{i}\n{''.join(rng.choice(list('ACGT'), 9))}" for i in range(60)]
    (tmp_path / "s.fasta").write_text("\n".join(lines))
    fit = f"fit {tmp_path}/s.fasta -o {tmp_path}/m --max-steps 3 --seed 0 --quiet"
    assert main(fit.split()) == 0
    assert main(f"sample {tmp_path}/m -n 20 -o {tmp_path}/o.fasta --seed 0 --quiet".split()) == 0
    drawn = read_data(tmp_path / "o.fasta")
    assert len(drawn) == 20 and set("".join(drawn)) <= set("ACGT")
    code, out, _ = run(capsys, f"evaluate {tmp_path}/s.fasta {tmp_path}/o.fasta --format csv --quiet")
    assert code == 0 and "kmer_error" in out


@pytest.mark.slow
def test_cells_go_to_zarr(tmp_path):
    pytest.importorskip("zarr")
    from anndata import AnnData, read_zarr

    rng = np.random.default_rng(0)
    AnnData(rng.poisson(2, (50, 6)).astype(np.int32)).write_h5ad(tmp_path / "c.h5ad")
    assert main(f"fit {tmp_path}/c.h5ad -o {tmp_path}/m --max-steps 2 --max-time 2 --quiet".split()) == 0
    assert main(f"sample {tmp_path}/m -n 5 -o {tmp_path}/o.zarr --quiet".split()) == 0
    assert read_zarr(tmp_path / "o.zarr").shape == (5, 6)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_shards_that_were_drawn_are_judged_and_scored_as_one_table(folder, tmp_path, capsys, form):
    shards = f"{tmp_path}/drawn"
    assert main(f"sample {folder}/model -n 60 --shard-size 25 --format {form} -o {shards} --quiet".split()) == 0
    whole = pd.concat([read_data(p) for p in sorted((tmp_path / "drawn").glob("part*"))], ignore_index=True)
    whole.to_csv(tmp_path / "whole.csv", index=False)
    found = [
        run(capsys, f"evaluate {folder}/train.csv {drawn} --format csv --quiet")
        for drawn in (shards, f"{shards}/*.{form}", f"{tmp_path}/whole.csv")
    ]
    assert found[0][0] == 0 and found[0][1].startswith("metric,") and found[0] == found[1] == found[2]
    code, out, _ = run(capsys, f"score {folder}/model {shards} --quiet")
    assert code == 0 and len(out.splitlines()) == 61
    fails(capsys, ["evaluate", folder / "train.csv", tmp_path / "no" / "*.csv"], 1, "no such files")
    fails(capsys, ["evaluate", folder / "train.csv", shards, "--drop", "k"], 1, "--drop is for a table in one file")


def test_shards_without_a_seed_get_a_new_one_that_is_printed(folder, tmp_path, capsys):
    drawn = []
    for name in ("a", "b"):
        code, out, _ = run(capsys, f"sample {folder}/model -n 9 --shard-size 5 -o {tmp_path}/{name}")
        assert code == 0
        drawn.append((pd.read_parquet(tmp_path / name), out.strip().rpartition("seed ")[2]))
    assert not drawn[0][0].equals(drawn[1][0])
    assert main(f"sample {folder}/model -n 9 --shard-size 5 -o {tmp_path}/c --seed {drawn[0][1]} --quiet".split()) == 0
    assert pd.read_parquet(tmp_path / "c").equals(drawn[0][0])


def test_shards_of_a_run_that_was_begun_without_a_seed_go_on(folder, tmp_path):
    command = f"sample {folder}/model -n 9 --shard-size 3 -o {tmp_path}/s --quiet".split()
    assert main(command) == 0
    whole = pd.read_parquet(tmp_path / "s")
    (tmp_path / "s" / "part-00002-of-00003.parquet").unlink()
    assert main(command) == 0
    assert pd.read_parquet(tmp_path / "s").equals(whole)


def test_jobs_draw_to_standard_output_too_and_shards_do_not(folder, tmp_path, capsys):
    one, two = (run(capsys, f"sample {folder}/model -n 7 --seed 3 --jobs {n}") for n in (1, 2))
    assert one[0] == 0 and one[1] == two[1]
    sample = ["sample", folder / "model", "-n", 7]
    for option in (["--shard", "1/3"], ["--shard-size", "3"], ["--format", "csv"]):
        fails(capsys, [*sample, *option], 1, "give -o")
    fails(capsys, [*sample, "-o", tmp_path / "s", "--shard", "1/3", "--shard-size", "3"], 1, "Leave one of them out")


def test_what_cannot_be_done_is_one_line(folder, tmp_path, capsys):
    both = [folder / "train.csv", folder / "drawn.csv"]
    fails(capsys, ["evaluate", *both, "-o", tmp_path / "r.pdf"], 1, ".html, .json or .csv", ".pdf")
    fails(capsys, ["evaluate", *both, "-o", tmp_path / "no" / "r.html"], 1, "does not exist", "mkdir -p")
    fails(capsys, ["evaluate", *both, "--target", "x"], 1, "needs holdout=")
    fails(capsys, ["evaluate", both[0], tmp_path / "no.csv"], 1, "no such file")
    fails(capsys, ["privacy", both[1], "--train", both[0]], 2, "--holdout")
    fails(capsys, ["impute", folder / "model", both[0], "-o", tmp_path / "o.h5ad"], 1, ".csv or .parquet")
    fails(capsys, ["completion", "tcsh"], 2, "tcsh")


@pytest.mark.parametrize("command", ["fit", "sample", "impute", "score", "evaluate", "privacy", "info", "demo"])
def test_help_has_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    examples = capsys.readouterr().out.partition("examples:\n")[2].strip().splitlines()
    assert examples
    for line in examples:
        words = line.strip().partition(" | ")[0].partition(" > ")[0].partition(" || ")[0].split()
        assert words[0] == "tabdiff" and make_parser().parse_args(words[1:]).command == command


def test_completion_is_what_the_shells_understand(tmp_path, capsys):
    code, text, _ = run(capsys, "completion bash")
    assert code == 0
    if bash := shutil.which("bash"):
        (tmp_path / "c.sh").write_text(
            text + 'COMP_WORDS=(tabdiff pri); COMP_CWORD=1; _tabdiff; echo "${COMPREPLY[@]}"\n'
            'COMP_WORDS=(tabdiff privacy --str); COMP_CWORD=2; _tabdiff; echo "${COMPREPLY[@]}"\n'
        )
        done = subprocess.run([bash, str(tmp_path / "c.sh")], capture_output=True, text=True, timeout=30)
        assert done.stdout.split() == ["privacy", "--strict"]
    assert "bashcompinit" in run(capsys, "completion zsh")[1]
    assert "__fish_seen_subcommand_from evaluate' -l holdout" in run(capsys, "completion fish")[1]
