"""Sequences whose distribution is known: what a model keeps of frequencies, pairs, motifs and lengths.

Strings of 20 letters of DNA: each position has frequencies of its own (a position weight matrix), three pairs of
positions depend on each other (a stem: one is the complement of the other with a probability of .8, .9 or 1), a motif
of six letters stands in one class, and a third of the strings ends early. Drawn strings are compared with the exact
probabilities, and so are training strings and as many fresh ones.

    python benchmarks/sequences.py                     # run what is missing from results/sequences.jsonl
    python benchmarks/sequences.py --denoisers dit --steps 8000 --not-refined
    python benchmarks/sequences.py --table             # print the table as markdown, run nothing
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from harness import (
    RESULTS,
    add_run_arguments,
    device,
    markdown,
    n_weights,
    names,
    provenance,
    read_results,
    write_result,
)

from tabdiff import DiffusionGenerator

FILE = RESULTS / "sequences.jsonl"
N, N_DRAWN, LENGTH, SHORT = 10_000, 5_000, 20, 16
# Pairs of positions, and how often one is the complement of the other by more than chance.
PAIRS = {(0, 15): 0.8, (1, 14): 0.9, (2, 13): 1.0}
MOTIF, MOTIF_AT = (0, 3, 1, 2, 0, 3), 5
REFERENCES = ("training", "fresh")


def frequencies() -> np.ndarray:
    """The position weight matrix, (LENGTH, 4)."""
    return np.random.default_rng(7).dirichlet(np.full(4, 0.8), size=LENGTH)


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n, LENGTH), 4 beyond the end, and classes (n,)."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.choice(4, size=n, p=p) for p in frequencies()], axis=1)
    for (i, j), share in PAIRS.items():
        codes[:, j] = np.where(rng.random(n) < share, 3 - codes[:, i], codes[:, j])
    on = rng.random(n) < 0.5
    codes[on, MOTIF_AT : MOTIF_AT + len(MOTIF)] = MOTIF
    codes[rng.random(n) < 1 / 3, SHORT:] = 4
    return codes, np.where(on, "promoter", "other")


def to_text(codes: np.ndarray) -> list[str]:
    return ["".join("ACGT"[c] for c in row if c < 4) for row in codes]


def to_codes(sequences: list[str]) -> np.ndarray:
    return np.array([["ACGT-".index(c) for c in s.ljust(LENGTH, "-")] for s in sequences])


def exact_pair(i: int, j: int, share: float) -> np.ndarray:
    """Exact joint probabilities of a pair, (4, 4)."""
    p = frequencies()
    joint = (1 - share) * np.outer(p[i], p[j])
    joint[np.arange(4), 3 - np.arange(4)] += share * p[i]
    return joint


def information(joint: np.ndarray) -> float:
    product = joint.sum(1)[:, None] * joint.sum(0)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / product[seen])).sum())


def exact_frequencies() -> np.ndarray:
    """Exact probabilities of the letters, and of the end, at each position, (LENGTH, 5)."""
    p = np.column_stack([frequencies(), np.zeros(LENGTH)])
    for (i, j), share in PAIRS.items():
        p[j, :4] = exact_pair(i, j, share).sum(0)
    for k, letter in enumerate(MOTIF):
        p[MOTIF_AT + k] /= 2
        p[MOTIF_AT + k, letter] += 0.5
    p[SHORT:, :4] *= 2 / 3
    p[SHORT:, 4] = 1 / 3
    return p


def measure(codes: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    n = len(codes)
    exact = exact_frequencies()
    share = np.stack([(codes == k).mean(0) for k in range(5)], axis=1)
    error = np.sqrt(exact * (1 - exact) / n)
    z = np.abs(share - exact)[error > 0] / error[error > 0]
    report: dict[str, Any] = {
        "largest_error": float(np.abs(share - exact).max()),
        "z_rms": float(np.sqrt((z**2).mean())),
        "beyond_three": float((z > 3).mean()),
    }
    for (i, j), depends in PAIRS.items():
        joint = np.histogram2d(codes[:, i], codes[:, j], bins=[np.arange(5) - 0.5] * 2)[0] / n
        report[f"information_{depends:g}"] = information(joint) / information(exact_pair(i, j, depends))
    motif = (codes[:, MOTIF_AT : MOTIF_AT + len(MOTIF)] == MOTIF).all(1)
    for label in ("promoter", "other"):
        report[f"motif_{label}"] = float(motif[labels == label].mean())
    ends = codes == 4
    report["short"] = float(ends[:, SHORT].mean())
    # An end that is followed by a letter, or in another place, is no string of the grammar.
    report["odd_lengths"] = float((~np.isin((~ends).sum(1), (SHORT, LENGTH))).mean())
    return report


def run(row: dict[str, Any]) -> dict[str, Any]:
    codes, labels = draw(N, row["seed"])
    if row["system"] == "training":
        return {**row, **measure(codes, labels)}
    if row["system"] == "fresh":
        return {**row, **measure(*draw(N_DRAWN, row["seed"] + 1000))}
    gen = DiffusionGenerator(
        denoiser=row["system"],
        max_steps=row["steps"],
        batch_size=row["batch_size"],
        learning_rate=row["learning_rate"],
        hidden_size=row["hidden_size"] or "auto",
        refine="auto" if row["refined"] else False,
        random_state=row["seed"],
    )
    start = time.process_time()
    gen.fit(to_text(codes), labels)
    used = time.process_time() - start
    drawn, drawn_labels = gen.sample(N_DRAWN, random_state=row["seed"], return_condition=True)
    report = measure(to_codes(drawn), drawn_labels)
    return {**row, **report, "parameters": n_weights(gen.denoiser_), "fit_cpu_seconds": used, **provenance("torch")}


def key(row: dict[str, Any]) -> tuple:
    names = ("system", "steps", "batch_size", "learning_rate", "hidden_size", "refined", "seed", "device")
    return tuple(row[k] for k in names)


def print_table(records: list[dict[str, Any]]) -> None:
    columns = {
        "beyond_three": ("frequencies beyond 3 s.e., %", lambda v: f"{100 * v:.1f}"),
        "largest_error": ("largest error of one", lambda v: f"{v:.3f}"),
        **{
            f"information_{d:g}": (f"information of the pair of {d:g}, share", lambda v: f"{v:.3f}")
            for d in PAIRS.values()
        },
        "motif_promoter": ("motif in its class", lambda v: f"{v:.3f}"),
        "motif_other": ("elsewhere", lambda v: f"{v:.3f}"),
        "short": ("short", lambda v: f"{v:.3f}"),
        "odd_lengths": ("other lengths", lambda v: f"{v:.4f}"),
    }
    lines = [
        [
            r["system"] + (", refined" if r["refined"] else ""),
            f"{r['steps']:,}" if r["steps"] else "",
            str(r["seed"]),
            *(show(r[name]) for name, (_, show) in columns.items()),
            f"{r['fit_cpu_seconds']:.0f}" if "fit_cpu_seconds" in r else "",
        ]
        for r in records
    ]
    titles = ["system", "steps", "seed", *(title for title, _ in columns.values()), "processor seconds"]
    print("\n".join(markdown(titles, lines)))


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--denoisers", type=names, default=["mlp"])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--hidden-size", type=int, default=0, help="0 is the default of the network")
    parser.add_argument("--not-refined", action="store_true", help="strings as the network draws them")
    add_run_arguments(parser, FILE, [0])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.table:
        done = {key(row) for row in read_results(args.results)}
        for seed in args.seeds:
            for system in (*REFERENCES, *args.denoisers):
                fitted = system not in REFERENCES
                row = {"system": system, "seed": seed, "device": device() if fitted else "cpu"}
                row["refined"] = fitted and not args.not_refined
                for name in ("steps", "batch_size", "learning_rate", "hidden_size"):
                    row[name] = getattr(args, name) if fitted else 0
                if key(row) not in done:
                    write_result(args.results, run(row), key)
    print_table(read_results(args.results))


if __name__ == "__main__":
    main()
