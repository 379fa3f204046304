"""Speed of training and sampling beside a matrix product on the same device in the same run.

Steps, rows and images a second, with steps that run operation by operation, are recorded as CUDA graphs, or compiled;
achieved floating-point operations a second and their share of those of a large matrix product; memory; and how a step
grows with rows, columns, levels and width. Data are made up: an "adult" has the numbers, levels and rows of that table.

    python benchmarks/speed.py                      # on a GPU eight minutes at most, one command, prints tables
    python benchmarks/speed.py --quick              # a rehearsal with small networks: about a minute on a CPU
    python benchmarks/speed.py --sections table,sampling --seconds 120

What there is no time left for is said at the end. A fit is timed by a callback, between two steps at which the device
has finished: what is measured is the loop of `fit`, with all that the host does in it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from harness import RESULTS, device, markdown, n_weights, names, provenance, write_result
from torch.utils.flop_counter import FlopCounterMode

from tabdiff import MLP, DiffusionGenerator, TrainingOptions, UNet
from tabdiff.diffusion import Denoiser
from tabdiff.diffusion.generate import draw
from tabdiff.training import Callback
from tabdiff.utils.device import autocast_dtype, peak_memory

SECTIONS = ("product", "table", "sampling", "images", "growth")
# Levels of the categorical columns of Adult, beside six numbers.
ADULT_LEVELS = (9, 16, 7, 15, 6, 5, 2, 42, 2)
# Columns of the tables of a training step, and of rows that are drawn.
RATES = ["TFLOP/s", "% of product"]
STEP = ["data", "compile", "weights, M", "batch", "ms a step", "steps/s", "rows/s", *RATES, "× eager", "memory, MB"]
DRAWN = ["evaluations", "rows", "steps", "seconds", "rows/s", *RATES, "memory, MB"]


def table(n_rows: int, n_numbers: int = 6, levels: tuple[int, ...] = ADULT_LEVELS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    base = rng.normal(size=n_rows)
    numbers = {f"x{j}": base * (j % 3) + rng.normal(size=n_rows) for j in range(n_numbers)}
    codes = {f"c{j}": rng.integers(0, k, n_rows).astype(str) for j, k in enumerate(levels)}
    return pd.DataFrame({**numbers, **codes})


def finish() -> None:
    """Wait until the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Clock(Callback):
    """Times steps after a few, and ends the fit."""

    def __init__(self, skip: int, seconds: float) -> None:
        self.skip, self.seconds = skip, seconds
        self.step_seconds = float("nan")

    def on_step_end(self, training: Any) -> bool:
        if training.step == self.skip:
            finish()
            self.start = time.perf_counter()
        done = training.step - self.skip
        # Few looks at the clock: each makes the device wait.
        if done > 0 and (done & (done - 1) == 0 or done % 256 == 0):
            finish()
            spent = time.perf_counter() - self.start
            self.step_seconds = spent / done
            return spent >= self.seconds
        return False


class Bench:
    """What has been measured, and the time that is left."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.end = time.perf_counter() + args.seconds
        self.device = device()
        self.precision = autocast_dtype("auto", torch.device(self.device))
        self.left_out: list[str] = []
        self.product = float("nan")

    def wants(self, what: str, seconds: float) -> bool:
        """Whether there are about so many seconds left; else it is said at the end that there were not."""
        if time.perf_counter() + seconds > self.end:
            self.left_out.append(what)
            return False
        return True

    def show(self, section: str, header: list[str], rows: list[list[str]], **numbers: Any) -> None:
        print(f"\n{section}\n", *markdown(header, rows), sep="\n", flush=True)
        found = {"section": section, "quick": self.args.quick, "rows": [dict(zip(header, row)) for row in rows]}
        if self.args.results is not None:
            write_result(self.args.results, {**found, **numbers, **provenance("torch")}, lambda row: (json.dumps(row),))

    def modes(self) -> tuple[str | bool, ...]:
        """How steps are run: on a CPU there are no graphs."""
        if self.device == "cuda":
            return (False, "graph", "default") if self.args.compile else (False, "graph")
        return (False, "default") if self.args.compile else (False,)

    # ---------------------------------------------------------------- sections

    def measure_product(self) -> None:
        """The limit: a large matrix product, in the types that networks use."""
        n, rows = (8192 if self.device == "cuda" else 1024), []
        for dtype in dict.fromkeys((self.precision or torch.float32, torch.float32)):
            a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
            seconds = repeated(lambda a=a, b=b: a @ b, 0.2 if self.args.quick else 1.0)
            rate = 2 * n**3 / seconds
            self.product = rate if dtype is (self.precision or torch.float32) else self.product
            rows.append([str(dtype).removeprefix("torch."), f"{n}", f"{rate / 1e12:.3f}"])
        self.show("Matrix product", ["dtype", "side", "TFLOP/s"], rows)

    def train(self, X: Any, *, compile: str | bool, batch_size: int, **settings: Any) -> tuple[Any, float]:
        """A fit that the clock ends, and the seconds of a step."""
        # Recording starts behind three steps, compiling takes the first; then some that settle.
        clock = Clock(8, 0.3 if self.args.quick else 2.0)
        gen = DiffusionGenerator(
            training=TrainingOptions(compile=compile, observed_masks=0.0),
            batch_size=batch_size,
            max_steps=10**6,
            callbacks=[clock],
            random_state=0,
            autoguidance=1.0,
            **{"refine": False, **settings},
        )
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # that a step could not be recorded belongs to the result
            gen.fit(X)
        return gen, clock.step_seconds

    def step_row(self, gen: Any, seconds: float, batch: int, flops: float, what: list[str], eager: float) -> list[str]:
        return [
            *what,
            f"{n_weights(gen.denoiser_) / 1e6:.2f}",
            f"{batch}",
            f"{1e3 * seconds:.2f}",
            f"{1 / seconds:.1f}",
            f"{batch / seconds:,.0f}",
            f"{flops / seconds / 1e12:.3f}",
            f"{100 * flops / seconds / self.product:.1f}",
            f"{eager / seconds:.1f}",
            f"{peak_memory(torch.device(self.device)):,.0f}",
        ]

    def train_rows(self, X: Any, batches: tuple[int, ...], what: str, **settings: Any) -> list[list[str]]:
        rows = []
        for batch in batches:
            eager = float("nan")
            for mode in self.modes():
                if not self.wants(f"{what}, batches of {batch}, compile={mode!r}", 90 if mode == "default" else 15):
                    continue
                if self.device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                gen, seconds = self.train(X, compile=mode, batch_size=batch, **settings)
                eager = seconds if mode is False else eager
                flops = step_flops(gen, X, batch)
                rows.append(self.step_row(gen, seconds, batch, flops, [what, str(mode)], eager))
        return rows

    def measure_table(self) -> None:
        """A step on a table of Adult's shape."""
        X = table(2_000 if self.args.quick else 32_561)
        size = MLP(hidden_size=64, n_blocks=2) if self.args.quick else MLP(hidden_size=512, n_blocks=4)
        batches = (128,) if self.args.quick else (512, 4096, 16384)
        self.show("Training, a table", STEP, self.train_rows(X, batches, "adult", denoiser=size))

    def measure_images(self) -> None:
        """A step on images of CIFAR-10's shape, and images drawn."""
        side, n = (8, 256) if self.args.quick else (32, 4096)
        X = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
        size = UNet() if self.device == "cuda" and not self.args.quick else UNet(model_channels=16, num_res_blocks=1)
        batches = (16,) if self.args.quick else (128, 256)
        rows = self.train_rows(X, batches, f"{side} × {side} × 3", denoiser=size)
        self.show("Training, images", STEP, rows)
        if not self.args.quick and self.wants("channels last", 60):
            self.show("U-Net, memory formats", ["weights", "ms"], self.unet_formats())
        if self.wants("images drawn", 40):
            gen, _ = self.train(X, compile=False, batch_size=batches[0], denoiser=size)
            n_drawn = 16 if self.args.quick else 1000
            self.show("Sampling, images", DRAWN, self.drawn_rows(gen, n_drawn, 5 if self.args.quick else 50))

    def unet_formats(self) -> list[list[str]]:
        """Forward and backward pass of the network for 32 × 32 pixels with weights in either order of memory."""
        from tabdiff.nn import UNet as Network
        from tabdiff.nn import unet_preset

        rows = []
        for form in (torch.contiguous_format, torch.channels_last):
            network = Network((3, 32, 32), **unet_preset(32, 32)).to(self.device).to(memory_format=form)
            x, t = torch.randn(128, 3 * 32 * 32, device=self.device), torch.rand(128, device=self.device)

            def step(network: Any = network, x: Any = x, t: Any = t) -> None:
                with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.precision is not None):
                    network(x, t).square().mean().backward()
                network.zero_grad(set_to_none=True)

            rows.append([str(form).removeprefix("torch."), f"{1e3 * repeated(step, 2.0):.1f}"])
        return rows

    def drawn_rows(self, gen: Any, n: int, steps: int) -> list[list[str]]:
        """Raw draws, with evaluations that are launched one by one and recorded."""
        rows = []
        denoiser, width = gen.denoiser_, gen.model_.config.width
        flops = n * steps * evaluation_flops(denoiser, width)
        for mode in ("one by one", "recorded") if self.device == "cuda" else ("one by one",):
            once = mock.patch("tabdiff.diffusion.generate.recorded", lambda d, _: d) if mode != "recorded" else None
            if self.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with once or nullcontext():

                def run() -> None:
                    draw(denoiser, n, None, width=width, generator=torch.Generator().manual_seed(0), steps=steps)

                run()  # which records
                finish()
                start = time.perf_counter()
                run()
                finish()
            seconds = time.perf_counter() - start
            memory = peak_memory(torch.device(self.device))
            rate, share = flops / seconds / 1e12, 100 * flops / seconds / self.product
            numbers = [f"{n:,}", f"{steps}", f"{seconds:.2f}", f"{n / seconds:,.0f}", f"{rate:.3f}", f"{share:.1f}"]
            rows.append([mode, *numbers, f"{memory:,.0f}"])
        return rows

    def measure_sampling(self) -> None:
        """Rows of a table: raw draws at 20 steps, and refined ones as `sample` returns them."""
        X = table(2_000 if self.args.quick else 32_561)
        size = MLP(hidden_size=64, n_blocks=2) if self.args.quick else MLP(hidden_size=512, n_blocks=4)
        if self.wants("raw draws", 30):
            gen, _ = self.train(X, compile=False, batch_size=128 if self.args.quick else 4096, denoiser=size)
            n = 2_000 if self.args.quick else (500_000 if self.device == "cuda" else 20_000)
            self.show("Sampling, a table, raw", DRAWN, self.drawn_rows(gen, n, 20))
        if self.wants("refined rows", 90):
            steps = 50 if self.args.quick else 3000
            start = time.perf_counter()
            gen = DiffusionGenerator(denoiser=size, max_steps=steps, refine=True, autoguidance=1.0, random_state=0)
            gen.fit(X)
            fitted = time.perf_counter() - start
            n = 500 if self.args.quick else 50_000
            start = time.perf_counter()
            gen.sample(n, random_state=0)
            seconds = time.perf_counter() - start
            kept = gen.model_.refinement.acceptance_
            row = [f"{steps}", f"{fitted:.1f}", f"{n:,}", f"{seconds:.2f}", f"{n / seconds:,.0f}", f"{100 * kept:.0f}"]
            header = ["steps of fit", "fit, s", "rows", "seconds", "rows/s", "kept, %"]
            self.show("Sampling, a table, refined", header, [row])

    def measure_growth(self) -> None:
        """Time of a step as one thing grows, the others as in the first line."""
        quick = self.args.quick
        base = {"rows": 128 if quick else 4096, "columns": 6, "levels": 10, "width": 64 if quick else 256}
        grown = {
            "rows": (256,) if quick else (512, 16384, 65536),
            "columns": (24,) if quick else (24, 96, 384),
            "levels": (100,) if quick else (100, 1000),
            "width": (128,) if quick else (512, 1024, 2048),
        }
        cases = [base] + [{**base, name: value} for name, values in grown.items() for value in values]
        rows = []
        for case in cases:
            if not self.wants(f"growth: {case}", 10):
                continue
            X = table(2_000, case["columns"], (case["levels"],) * case["columns"])
            size = MLP(hidden_size=case["width"], n_blocks=3)
            mode = "graph" if self.device == "cuda" else False
            gen, seconds = self.train(X, compile=mode, batch_size=case["rows"], denoiser=size)
            flops = step_flops(gen, X, case["rows"])
            rate = [f"{flops / seconds / 1e12:.3f}", f"{100 * flops / seconds / self.product:.1f}"]
            memory = f"{peak_memory(torch.device(self.device)):,.0f}"
            rows.append([*(f"{value:,}" for value in case.values()), f"{1e3 * seconds:.2f}", *rate, memory])
        header = ["batch", "numbers, and categories", "levels", "width", "ms a step", "TFLOP/s", "% of product"]
        self.show("Growth of a step", [*header, "memory, MB"], rows)


def repeated(function: Callable[[], Any], seconds: float) -> float:
    """Seconds of one call, from as many as fit."""
    function()
    finish()
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(8):
            function()
        finish()
        n += 8
    return (time.perf_counter() - start) / n


def step_flops(gen: Any, X: Any, batch: int) -> float:
    """Floating-point operations of the matrix products and convolutions of a step, counted on a few rows."""
    model, few = gen.model_, min(batch, 16)
    denoiser: Denoiser = model.denoiser
    at = next(denoiser.parameters()).device
    rows = model.codec.encode(X[:few])
    rows = (rows if model.codec.prepare is None else model.codec.prepare(rows)).to(at)
    parameters = list(denoiser.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    t = torch.full((few,), 0.5, device=at)
    with FlopCounterMode(display=False) as counter:
        denoiser.loss(rows, None, t=t, eps=torch.randn(few, model.config.width, device=at)).mean().backward()
    for parameter in parameters:
        parameter.requires_grad_(False).grad = None
    return counter.get_total_flops() * batch / few


@torch.no_grad()
def evaluation_flops(denoiser: Denoiser, width: int) -> float:
    """The same of one evaluation of a row."""
    at = next(denoiser.parameters()).device
    with FlopCounterMode(display=False) as counter:
        denoiser(torch.zeros(16, width, device=at), torch.tensor(0.5, dtype=torch.float64), None)
    return counter.get_total_flops() / 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", type=names, default=list(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--seconds", type=float, default=450.0, help="nothing is begun that would end later")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, a minute for each network")
    parser.add_argument("--quick", action="store_true", help="small networks and few rows")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--results", type=Path, default=None, help=f"append JSON lines, such as {RESULTS}/speed.jsonl")
    args = parser.parse_args()
    unknown = set(args.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"--sections must be among {', '.join(SECTIONS)}; got {', '.join(sorted(unknown))}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    bench, start = Bench(args), time.perf_counter()
    print(json.dumps(provenance("torch", "tabdiff")["machine"]), f"{bench.device=} {bench.precision=}")
    for section in dict.fromkeys(["product", *args.sections]):
        getattr(bench, f"measure_{section}")()
    print(f"\n{time.perf_counter() - start:.0f} s in all.")
    if bench.left_out:
        print("There was no time for:", *bench.left_out, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
