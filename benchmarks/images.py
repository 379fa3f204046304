"""Synthetic images: what a fit takes, and what the images score beside real ones that it has not seen.

    python benchmarks/images.py                                  # digits of scikit-learn, which need no other data
    TABDIFF_DATA=/path python benchmarks/images.py --sets digits,mnist
    TABDIFF_DATA=/path python benchmarks/images.py --sets mnist --latent     # in the latents of an autoencoder
    TABDIFF_DATA=/path python benchmarks/images.py --sets cifar10 --max-time 540 --resume   # in parts, on a GPU
    python benchmarks/images.py --steps-table --sets digits      # steps by sampler, from the kept model
    python benchmarks/images.py --table                          # print the tables as markdown, run nothing

TABDIFF_DATA is a folder with load.py, whose load_images(name) returns X_train, y_train, X_test, y_test. Fits take the
defaults of DiffusionGenerator(denoiser="unet"), but for limits of time or steps that are said in the results. Every
figure is of as many images as the test set has, or --n, and the floor is what the test images score. The CIFAR-10
there is a JPEG re-encoding: no figure of it compares with a published one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import (
    MODELS,
    RESULTS,
    add_run_arguments,
    data_loader,
    device,
    markdown,
    measured,
    n_weights,
    names,
    provenance,
    read_results,
    write_result,
)

from tabdiff import DiffusionGenerator, ImageCodec, LatentImageCodec, evaluate
from tabdiff.io.image_grid import save_grid
from tabdiff.training import Checkpoint

SETS = ("digits", "mnist", "cifar10")
MOST = 10_000
METRICS = {
    "class_accuracy": ("class accuracy", "{:.3f}"),
    "frechet_distance": ("Fréchet distance", "{:.2f}"),
    "kernel_distance": ("kernel distance", "{:.4f}"),
    "precision": ("precision", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "density": ("density", "{:.3f}"),
    "coverage": ("coverage", "{:.3f}"),
    "memorisation_ratio": ("memorisation ratio", "{:.2f}"),
}
GRID = {"ddpm": (10, 20, 50, 100, 1000), "ddim": (10, 20, 50, 100, 1000), "dpmpp_2m": (10, 20, 50, 100)}


def load(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, their labels, test images, their labels."""
    if name == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        data = load_digits()
        images = np.rint(data.images / 16 * 255).astype(np.uint8)
        train, test, y, y_test = train_test_split(
            images, data.target, test_size=0.25, stratify=data.target, random_state=0
        )
        return train, y, test, y_test
    parts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] = data_loader().load_images(name)
    return parts


def key(row: dict[str, Any]) -> tuple:
    names = ("set", "seed", "device", "max_steps", "max_time", "batch_size", "guidance_scale", "method", "steps")
    return (*(row[k] for k in names), row.get("latent", False))


def model_folder(name: str, args: argparse.Namespace) -> Path:
    return MODELS / "images" / f"{name}{'-latent' if args.latent else ''}-seed{args.seed}-{device()}"


def fit(name: str, args: argparse.Namespace) -> tuple[DiffusionGenerator, dict[str, Any]]:
    """Fit, or go on with a fit that was stopped; the model is kept."""
    train, y, *_ = load(name)
    folder = model_folder(name, args)
    folder.parent.mkdir(parents=True, exist_ok=True)
    kept = folder.with_name(folder.name + "-checkpoint")
    gen = DiffusionGenerator(
        denoiser="unet",
        codec=(LatentImageCodec if args.latent else ImageCodec)(augment="flip" if name == "cifar10" else None),
        max_steps="auto" if args.max_steps is None else args.max_steps,
        max_time=args.max_time,
        batch_size="auto" if args.batch_size is None else args.batch_size,
        callbacks=[Checkpoint(kept, every=60)] if args.resume else None,
        random_state=args.seed,
        verbose=1,
    )
    cpu, started = time.process_time(), time.perf_counter()
    gen.fit(train, y, resume_from=kept if args.resume else None)
    report = {
        "fit_seconds": time.perf_counter() - started,
        "training_seconds": gen.history_["seconds"][-1],
        "fit_cpu_seconds": time.process_time() - cpu,
        "training_steps": gen.n_steps_,
        "rows_per_second": float(np.median(gen.history_["rows_per_second"])),
        "parameters": n_weights(gen.denoiser_),
    }
    if args.latent:
        report["reconstruction_rmse"] = gen.codec_.reconstruction_rmse_
    gen.save(folder)
    (folder.with_suffix(".json")).write_text(json.dumps(report), encoding="utf-8")
    return gen, report


def kept(name: str, args: argparse.Namespace) -> tuple[DiffusionGenerator, dict[str, Any]] | None:
    folder = model_folder(name, args)
    if not folder.is_dir():
        return None
    return DiffusionGenerator.load(folder), json.loads(folder.with_suffix(".json").read_text(encoding="utf-8"))


def measure(
    name: str, gen: DiffusionGenerator, args: argparse.Namespace, *, method: str = "auto", steps: Any = "auto"
) -> dict[str, Any]:
    """Draw as many images as the test set has, of the same classes, and score them."""
    train, y, test, y_test = load(name)
    chosen = np.random.default_rng(0).permutation(len(test))[: min(args.n, MOST)]
    test, y_test = test[chosen], y_test[chosen]
    cpu, started = time.process_time(), time.perf_counter()
    drawn = gen.sample(
        condition=y_test, guidance_scale=args.guidance_scale, method=method, steps=steps, random_state=args.seed
    )
    took = {"sample_seconds": time.perf_counter() - started, "sample_cpu_seconds": time.process_time() - cpu}
    picture = model_folder(name, args).with_suffix(".png")
    order = np.argsort(y_test, kind="stable")
    firsts = [order[y_test[order] == k][:10] for k in np.unique(y_test)]
    save_grid(drawn[np.concatenate(firsts)], picture, columns=10, scale=3)
    labels = {"real": y, "synthetic": y_test, "holdout": y_test}
    scores = evaluate(train, drawn, holdout=test, labels=labels, random_state=0).to_frame()
    found: dict[str, Any] = {"images": len(drawn), "features": scores.attrs["features"], **took}
    for side in ("synthetic", "floor", "independent"):
        values = zip(scores["metric"], scores[side], strict=True)
        found[side] = {m: float(v) for m, v in values if v == v}
    return found


def run(name: str, args: argparse.Namespace) -> None:
    made = {"threads": torch.get_num_threads(), **provenance()}
    found = kept(name, args) if args.again or args.steps_table else None
    gen, report = found or fit(name, args)
    identity: dict[str, Any] = {"set": name, "seed": args.seed, "device": device(), "max_steps": args.max_steps}
    identity |= {
        "latent": args.latent,
        "max_time": args.max_time,
        "batch_size": args.batch_size,
        "guidance_scale": args.guidance_scale,
    }
    cells = [("auto", "auto")]
    if args.steps_table:
        cells = [(method, steps) for method, counts in GRID.items() for steps in counts]
    done = {key(row) for row in read_results(args.results)}
    for method, steps in cells:
        row = {**identity, "method": method, "steps": steps}
        if args.steps_table and key(row) in done:
            continue
        row |= measure(name, gen, args, method=method, steps=steps) | report | made | measured("torch", "scikit-learn")
        write_result(args.results, row, key)
        shown = {m: round(v, 4) for m, v in row["synthetic"].items()}
        print(f"{name} {method} {steps}: {shown}, fit {row['fit_seconds']:.0f} s", flush=True)


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: a table of metrics for each set, and one of steps by sampler."""
    out: list[str] = []
    for row in (r for r in rows if r["method"] == "auto"):
        limit = "" if row["max_time"] is None else f", at most {row['max_time']:g} s"
        guided = "" if row["guidance_scale"] == 1 else f", guidance scale {row['guidance_scale']:g}"
        latent = ", in latents" if row.get("latent") else ""
        out += [f"### {row['set']}, {row['device']}, {row['training_steps']} steps{limit}{guided}{latent}", ""]
        autoencoder = ""
        if "reconstruction_rmse" in row:
            autoencoder = f" The autoencoder misses pixels by {row['reconstruction_rmse']:.3f} of their range."
        lines = []
        for metric, (shown, form) in METRICS.items():
            cells = [
                form.format(row[s][metric]) if metric in row[s] else "" for s in ("synthetic", "floor", "independent")
            ]
            lines.append([shown, *cells])
        out += markdown(["", "tabdiff", "real test images (floor)", "independent pixels"], lines)
        out += [
            "",
            f"{row['parameters']:,} parameters. Fit {row['fit_seconds']:.0f} s ({row['fit_cpu_seconds']:.0f} s of CPU, "
            f"{row['threads']} threads), {row['images']} images drawn in {row['sample_seconds']:.0f} s "
            f"({row['sample_cpu_seconds']:.0f} s of CPU). Features: {row['features']}.{autoencoder}",
            "",
        ]
    for name in dict.fromkeys(r["set"] for r in rows if r["method"] != "auto"):
        mine = {(r["method"], r["steps"]): r for r in rows if r["set"] == name and r["method"] != "auto"}
        counts = sorted({steps for _, steps in mine})
        out += [f"### {name}: Fréchet distance by sampler and steps", ""]
        lines = [
            [m, *(f"{mine[m, s]['synthetic']['frechet_distance']:.2f}" if (m, s) in mine else "" for s in counts)]
            for m in dict.fromkeys(m for m, _ in mine)
        ]
        out += [*markdown(["", *map(str, counts)], lines), ""]
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=names, default=["digits"], help=f"of {','.join(SETS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=2_000, help="images drawn at most; the test set has so many or fewer")
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--max-time", type=float, help="seconds of training at most")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--latent", action="store_true", help="diffusion in the latents of an autoencoder")
    parser.add_argument("--resume", action="store_true", help="go on with a fit that was stopped")
    parser.add_argument("--again", action="store_true", help="measure the kept model, fit nothing")
    parser.add_argument("--steps-table", action="store_true", help="samplers by steps, of the kept model")
    add_run_arguments(parser, RESULTS / "images.jsonl", threads=2)
    args = parser.parse_args()
    if args.table:
        print(tables(read_results(args.results)))
        return 0
    unknown = [name for name in args.sets if name not in SETS]
    if unknown:
        parser.error(f"unknown sets {unknown}; there are {', '.join(SETS)}")
    torch.set_num_threads(args.threads)
    try:
        for name in args.sets:
            run(name, args)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
