"""How far the variational bound of exact denoisers is from the exact value, in bits per dimension, for every schedule.

Two distributions in the plane: a normal one of standard deviation 0.3, and a mixture of three normal ones. In
continuous time the exact value is the log-density. A chain of T steps is a model of its own, whose bound for normal
data is known in closed form (see tabdiff/diffusion/bound.py): that is the exact value of its sum. For the mixture there
is none, so there the integral along the chain's times is compared with the log-density, and the sum besides; both end
at the chain's cleanest time, which is far from clean where steps are few.

    python benchmarks/likelihood.py            # run what is missing from results/likelihood.jsonl
    python benchmarks/likelihood.py --table    # print the table as markdown, run nothing
"""

from __future__ import annotations

import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, add_run_arguments, markdown, provenance, read_results, write_result

from tabdiff.diffusion import GaussianDenoiser, MixtureDenoiser, Schedule, make_schedule
from tabdiff.diffusion.bound import LOG_SNR_NUMBERS, row_bound

CONTINUOUS = ("cosine", "linear", "sigmoid", "sub_vp", "ve", "rectified_flow", "edm")
CHAINS = [(name, n) for name in ("cosine", "linear") for n in (2, 10, 100, 1000)]
VARIANCE = 0.09
WEIGHTS = torch.tensor([0.2, 0.5, 0.3])
MEANS = torch.tensor([[-1.2, -0.3], [0.8, 0.9], [0.6, -1.1]])
COVS = torch.tensor([[[0.04, 0.02], [0.02, 0.05]], [[0.01, 0.0], [0.0, 0.09]], [[0.02, 0.0], [0.0, 0.02]]])
ROWS = 200


def key(row: dict[str, Any]) -> tuple:
    return row["schedule"], row["n_timesteps"]


def gaussian_value(schedule: Schedule) -> float:
    """The exact value of a normal entry, in nats: its log-density, or the sum of a chain's terms."""
    if schedule.n_timesteps is None:
        return -0.5 * (math.log(2 * math.pi * VARIANCE) + 1)
    path = [schedule.log_snr(k / schedule.n_timesteps).item() for k in range(1, schedule.n_timesteps + 1)]
    snr = [math.exp(value) for value in [value for value in path if value <= LOG_SNR_NUMBERS] or path[-1:]]
    cost = 0.5 * (math.log(2 * math.pi / (1 + snr[0])) + (1 + snr[0]) * VARIANCE / (1 + VARIANCE * snr[0]))
    for clean, noisy in pairwise(snr):
        ratio = (1 + noisy) / (1 + clean)
        cost += 0.5 * (ratio - 1 - math.log(ratio) + ratio * (clean - noisy) * VARIANCE / (1 + VARIANCE * noisy))
    share = 1 / (1 + snr[-1])
    return -cost - 0.5 * (share - 1 - math.log(share) + (1 - share) * VARIANCE)


def measure(schedule: Schedule) -> dict[str, float]:
    bits = 2 * math.log(2)
    rows = VARIANCE**0.5 * torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    bound, std = row_bound(GaussianDenoiser(0.0, VARIANCE**0.5, schedule), rows, return_std=True)
    found = {"gaussian": bound.mean().item() / bits - gaussian_value(schedule) / math.log(2)}
    found["gaussian_std"] = std.mean().item() / bits
    oracle = MixtureDenoiser(WEIGHTS, MEANS, COVS, schedule)
    drawn, _ = oracle.sample(ROWS, torch.Generator().manual_seed(0))
    integral, std = row_bound(oracle, drawn, time="continuous", return_std=True)
    found["mixture"] = (integral - oracle.log_prob(drawn)).mean().item() / bits
    found["mixture_std"] = std.mean().item() / bits
    found["mixture_gap"] = (row_bound(oracle, drawn) - oracle.log_prob(drawn)).mean().item() / bits
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row a schedule and T."""
    header = ("schedule", "T", "normal: bound less exact", "mixture: integral less exact", "told", "sum less exact")
    cells = [
        (
            row["schedule"],
            str(row["n_timesteps"] or "continuous"),
            f"{row['gaussian']:+.4f}",
            f"{row['mixture']:+.4f}",
            f"{row['mixture_std']:.4f}",
            f"{row['mixture_gap']:+.4f}" if row["n_timesteps"] else "",
        )
        for row in rows
    ]
    return "\n".join(markdown(header, cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, RESULTS / "likelihood.jsonl")
    args = parser.parse_args()
    path: Path = args.results
    if not args.table:
        torch.set_num_threads(args.threads)
        done = {key(row) for row in read_results(path)}
        for name, n in [*((name, None) for name in CONTINUOUS), *CHAINS]:
            if (name, n) not in done:
                found = measure(make_schedule(name, n))
                write_result(path, {"schedule": name, "n_timesteps": n, **found, **provenance("torch")}, key)
    print(table(read_results(path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
