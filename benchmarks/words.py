"""Digits drawn from words, beside digits drawn from class labels.

The digits of scikit-learn, 64 columns of numbers, are cut in halves. On one a generator learns them with their labels,
and another with captions ("a seven", "this is the number seven"), which TF-IDF and a truncated SVD turn into vectors;
both are fitted on the captions and on the descriptions that come with scikit-learn's data sets. A support vector
classifier of the other half says which digits come out. "unseen" captions are of forms that the training had none of:
most of their words are unknown to it.

    python benchmarks/words.py                     # run what is missing from results/words.jsonl
    python benchmarks/words.py --denoisers mlp,dit --steps 4000
    python benchmarks/words.py --table             # print the table as markdown, run nothing
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from harness import RESULTS, add_run_arguments, device, markdown, names, provenance, read_results, write_result
from sklearn import datasets
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from tabdiff import DiffusionGenerator

FILE = RESULTS / "words.jsonl"
NAMES = "zero one two three four five six seven eight nine".split()
SEEN = ("a {}", "this is the number {}", "{}", "somebody wrote a {} here", "an image of a {}")
UNSEEN = ("the digit {}", "please show me what {} looks like on paper")
N_DRAWN = 1000
CONDITIONS = ("classes", "words")


def captions(labels: np.ndarray, forms: tuple[str, ...], seed: int) -> np.ndarray:
    """Return a caption of a random form for each label."""
    chosen = np.random.default_rng(seed).integers(len(forms), size=len(labels))
    return np.array([forms[f].format(NAMES[k]) for f, k in zip(chosen, labels, strict=True)], dtype=object)


def real_text() -> list[str]:
    """Sentences from the descriptions of scikit-learn's data sets."""
    loaders = (datasets.load_digits, datasets.load_wine, datasets.load_iris, datasets.load_breast_cancer)
    text = " ".join(load().DESCR for load in (*loaders, datasets.load_diabetes, datasets.load_linnerud))
    return [sentence.strip() for sentence in text.split(".") if len(sentence.split()) > 3]


def encoder(texts: np.ndarray) -> Any:
    """Fit TF-IDF and a truncated SVD on captions and real sentences; return what maps texts to vectors."""
    corpus = [*dict.fromkeys(texts), *real_text()]
    return make_pipeline(TfidfVectorizer(), TruncatedSVD(48, random_state=0)).fit(corpus).transform


def run(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Fit one generator; return a line for each kind of condition that it is asked for."""
    X, y = datasets.load_digits(return_X_y=True)
    train, other, y_train, y_other = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
    judge = SVC().fit(other, y_other)
    wanted = np.resize(np.arange(10), N_DRAWN)
    seed = row["seed"]
    parameters = {"denoiser": row["denoiser"], "max_steps": row["steps"], "random_state": seed}
    if row["condition"] == "classes":
        gen, asked = DiffusionGenerator(**parameters), {"classes": wanted}
        condition = y_train
    else:
        condition = captions(y_train, SEEN, seed)
        gen = DiffusionGenerator(**parameters, text_encoder=encoder(condition))
        asked = {"words": captions(wanted, SEEN, seed + 1), "unseen words": captions(wanted, UNSEEN, seed + 1)}
    start = time.process_time()
    gen.fit(train, condition)
    report = {"fit_cpu_seconds": time.process_time() - start, "real_accuracy": float(judge.score(train, y_train))}
    report |= provenance("torch")
    lines = []
    for name, values in asked.items():
        rows = gen.sample(condition=values, random_state=seed)
        accuracy = float((judge.predict(rows) == wanted).mean())
        lines.append({**row, "asked": name, "accuracy": accuracy, **report})
    return lines


def key(row: dict[str, Any]) -> tuple:
    return tuple(row[k] for k in ("denoiser", "condition", "steps", "seed", "device", "asked"))


def print_table(records: list[dict[str, Any]]) -> None:
    groups = dict.fromkeys((r["denoiser"], r["steps"], r["asked"]) for r in records)
    lines = []
    for group in groups:
        same = [r for r in records if (r["denoiser"], r["steps"], r["asked"]) == group]
        values = [r["accuracy"] for r in same]
        spread = f" ± {np.std(values):.3f}" if len(values) > 1 else ""
        lines.append([group[0], f"{group[1]:,}", group[2], f"{np.mean(values):.3f}{spread}", str(len(values))])
    print("\n".join(markdown(["denoiser", "steps", "asked for by", "class accuracy", "seeds"], lines)))


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--denoisers", type=names, default=["mlp"])
    parser.add_argument("--conditions", type=names, default=list(CONDITIONS))
    parser.add_argument("--steps", type=int, default=1000)
    add_run_arguments(parser, FILE, [0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.table:
        done = {key({**row, "asked": "any"}) for row in read_results(args.results)}
        for denoiser in args.denoisers:
            for seed in args.seeds:
                for condition in args.conditions:
                    row = {"denoiser": denoiser, "condition": condition, "steps": args.steps, "seed": seed}
                    row["device"] = device()
                    if key({**row, "asked": "any"}) not in done:
                        for line in run(row):
                            write_result(args.results, line, key)
    print_table(read_results(args.results))


if __name__ == "__main__":
    main()
