"""Every schedule with every target and every sampling method, on a mixture in two dimensions.

A small network is trained once for each schedule and target and sampled with each method. The figure is the sliced
Wasserstein distance of 1,000 rows to the 8,000 training rows; beside it stand another draw of the mixture (the floor)
and standard normal noise. For "eps" and "score" it is given with the estimate of the clean row as it is and clipped to
the range of the training rows.

    python benchmarks/combinations.py            # run what is missing from results/combinations.jsonl
    python benchmarks/combinations.py --table    # print the table as markdown, run nothing
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import torch
from harness import RESULTS, add_run_arguments, provenance, read_results, write_result
from torch import Tensor

from tabdiff.diffusion import (
    METHODS,
    TARGETS,
    CosineSchedule,
    Denoiser,
    DenoiserLike,
    MixtureDenoiser,
    ShiftedSchedule,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    make_schedule,
    sample,
)
from tabdiff.nn import ResidualMLP
from tabdiff.training import Batches, TrainingOptions, train

SCHEDULES = {
    **{name: make_schedule(name) for name in ("cosine", "vp", "sigmoid", "sub_vp", "ve", "rectified_flow", "edm")},
    "discrete_cosine": make_schedule("cosine", 1000),
    "discrete_linear": make_schedule("linear", 1000),
    "zero_terminal_snr": ZeroTerminalSNRSchedule(VPSchedule()),
    "shifted": ShiftedSchedule(CosineSchedule(), 2.0),
}
STEPS = {"rk4": 20, "heun": 30, "predictor_corrector": 30, "euler": 80}
# Where noise is small the slope has 1 / sigma times the error of the estimate, and "x0" estimates directly: methods
# that evaluate it at the end of a step need shorter ones.
STEPS_X0 = {**STEPS, "rk4": 40, "heun": 60}
N_ROWS, N_TRAIN = 1000, 8000
N_STEPS = 300


class Clipped:
    """A denoiser whose estimate stays within the range of the data (Ho et al., 2020)."""

    def __init__(self, denoiser: DenoiserLike, data: Tensor) -> None:
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.low, self.high = data.amin(0), data.amax(0)

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the clipped estimate."""
        return self.denoiser(x_t, t, condition).clamp(self.low, self.high)


def draw_mixture(n: int, generator: torch.Generator) -> Tensor:
    """Draw standardised rows (n, 2) of three Gaussians."""
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([[-1.2, -0.3], [0.8, 0.9], [0.6, -1.1]], dtype=torch.float64)
    covariances = torch.tensor(
        [[[0.04, 0.02], [0.02, 0.05]], [[0.01, 0.0], [0.0, 0.09]], [[0.02, 0.0], [0.0, 0.02]]], dtype=torch.float64
    )
    rows, _ = MixtureDenoiser(weights, means, covariances, CosineSchedule()).sample(n, generator)
    return ((rows - rows.mean(0)) / rows.std(0)).float()


def sliced_wasserstein(rows: Tensor, reference: Tensor) -> float:
    """Mean over 50 directions of the Wasserstein-1 distance; `reference` has a multiple of the number of rows."""
    angles = torch.linspace(0, torch.pi, 51, dtype=torch.float64)[:-1]
    directions = torch.stack([angles.cos(), angles.sin()])
    repeated = rows.repeat(len(reference) // len(rows), 1)
    first, second = ((x.double() @ directions).sort(0).values for x in (repeated, reference))
    return (first - second).abs().mean().item()


def measure(schedule_name: str, target: str) -> dict:
    """Train one combination and sample it with every method."""
    schedule = SCHEDULES[schedule_name]
    generator = torch.Generator().manual_seed(0)
    data, other = draw_mixture(N_TRAIN + N_ROWS, generator).split([N_TRAIN, N_ROWS])
    record: dict = {"schedule": schedule_name, "target": target}
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global state
        torch.manual_seed(0)
        network = ResidualMLP(2, 2, hidden_size=64, n_blocks=2)
    try:
        denoiser = Denoiser(network, schedule, target, loss="min_snr" if target == "x0" else "simple")
    except ValueError as error:
        return {**record, "error": str(error)}
    record["floor"] = sliced_wasserstein(other, data)
    record["noise"] = sliced_wasserstein(torch.randn(N_ROWS, 2, generator=generator), data)
    start = time.perf_counter()
    result = train(
        denoiser,
        Batches(data, size=256),
        max_steps=N_STEPS,
        learning_rate=6e-3,
        options=TrainingOptions(ema_decay=0.98, times="log_normal" if schedule_name == "edm" else "stratified"),
        generator=generator,
    )
    record["train_seconds"] = time.perf_counter() - start
    ways: dict[str, DenoiserLike] = {"distance": result.denoiser}
    if target in ("eps", "score"):
        ways["clipped"] = Clipped(result.denoiser, data)
    steps = STEPS_X0 if target == "x0" else STEPS
    for way, trained in ways.items():
        record[way] = {}
        for method in METHODS:
            draws = torch.Generator().manual_seed(1)
            noise = torch.randn(N_ROWS, 2, generator=draws)
            try:
                rows = sample(trained, noise, method=method, steps=steps.get(method, 40), generator=draws)
            except ValueError as error:
                record[way][method] = str(error)
            else:
                record[way][method] = sliced_wasserstein(rows, data)
    return record


def key(row: dict[str, Any]) -> tuple:
    return (row["schedule"], row["target"])


def print_table(records: list[dict]) -> None:
    """Print a row for each schedule and target, a column for each method; "no" stands for an error."""
    print("| schedule | target | " + " | ".join(METHODS) + " |")
    print("|---|---|" + "--:|" * len(METHODS))
    for record in records:
        if "error" in record:
            print(f"| {record['schedule']} | {record['target']} |" + " no |" * len(METHODS))
            continue
        for way in ("distance", "clipped"):
            if way in record:
                values = [record[way][m] for m in METHODS]
                cells = [f"{v:.3g}" if isinstance(v, float) else "no" for v in values]
                label = record["target"] + (", clipped" if way == "clipped" else "")
                print(f"| {record['schedule']} | {label} | " + " | ".join(cells) + " |")
    reference = next((r for r in records if "floor" in r), None)
    if reference is not None:
        print(f"\nAnother draw of the mixture {reference['floor']:.3f}, normal noise {reference['noise']:.3f}.")
    for record in records:
        if "error" in record:
            print(f"\n{record['schedule']} with {record['target']}: {record['error']}")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, RESULTS / "combinations.jsonl")
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(args.threads)
        done = {key(row) for row in read_results(args.results)}
        settings = {"threads": args.threads, **provenance("torch")}
        for pair in itertools.product(SCHEDULES, TARGETS):
            if pair not in done:
                write_result(args.results, {**measure(*pair), "settings": {"train_steps": N_STEPS, **settings}}, key)
    print_table(read_results(args.results))


if __name__ == "__main__":
    main()
