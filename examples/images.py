"""Handwritten digits, learned and drawn: five pictures, each with the figures behind it printed.

1. real digits beside drawn ones of the same classes;
2. noise that turns into digits, and what the network takes it for on the way;
3. guidance: clearer digits at the price of variety;
4. quality against the number of steps, by sampler;
5. digits of which half was erased, and of which four pixels in a block are known by their mean alone.

Run it: python examples/images.py -o pictures   (about three minutes of CPU)
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tabdiff import DiffusionGenerator, evaluate
from tabdiff.diffusion import SampleState, sample
from tabdiff.evaluation import ClassifierFeatures, frechet_distance, precision_recall
from tabdiff.pictures import image_grid
from tabdiff.restoring import super_resolve

SEED = 0
SCALES = (0.0, 1.0, 2.0, 4.0)
STEPS = (2, 5, 10, 25, 50)
SAMPLERS = ("ddpm", "ddim", "dpmpp_2m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("pictures"), help="folder of the pictures")
    parser.add_argument("--quick", action="store_true", help="hardly train: to see that everything runs")
    args = parser.parse_args()
    folder = args.output
    folder.mkdir(parents=True, exist_ok=True)

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    train, unseen, y, y_unseen = train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=SEED
    )
    if args.quick:
        unseen, y_unseen = unseen[:120], y_unseen[:120]
    print(f"Fitting {len(train)} digits of 8 × 8 pixels ...", flush=True)
    gen = DiffusionGenerator(denoiser="unet", max_steps=5 if args.quick else 700, random_state=SEED).fit(train, y)
    seconds = gen.history_["seconds"][-1]
    weights = sum(p.numel() for p in gen.denoiser_.network.parameters())
    print(f"{gen.n_steps_} steps in {seconds:.0f} s, {weights:,} parameters, loss {gen.history_['loss'][-1]:.3f}\n")

    drawn = gen.sample(condition=y_unseen, random_state=SEED)
    labels = {"real": y, "synthetic": y_unseen, "holdout": y_unseen}
    judge = ClassifierFeatures(train, y)
    scores = evaluate(train, drawn, holdout=unseen, labels=labels, features=judge)
    print(f"Drawn digits beside digits that the model has not seen, by {scores.attrs['features']}:")
    print(scores.round(3).to_string(index=False))

    draw_grids(folder / "images-1-grid.png", unseen, drawn, y_unseen)
    draw_trajectory(folder / "images-2-trajectory.png", gen)
    draw_guidance(folder / "images-3-guidance.png", gen, train, y_unseen, judge)
    draw_steps(folder / "images-4-steps.png", gen, train, unseen, y_unseen, judge, STEPS[: 2 if args.quick else None])
    draw_restored(folder / "images-5-restored.png", gen, unseen, y_unseen)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)
    print(f"Picture: {path}", flush=True)


def first_of_each(y: np.ndarray, n: int) -> np.ndarray:
    """Positions of the first n of each class."""
    return np.concatenate([np.flatnonzero(y == k)[:n] for k in range(10)])


def show(ax: Axes, images: np.ndarray, columns: int, title: str) -> None:
    ax.imshow(image_grid(images, columns=columns), cmap="gray", vmin=0, vmax=255)
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def draw_grids(path: Path, unseen: np.ndarray, drawn: np.ndarray, y: np.ndarray) -> None:
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = first_of_each(y, 10)
    show(left, unseen[rows], 10, "Real digits that the model has not seen")
    show(right, drawn[rows], 10, "Drawn digits, a row for each class")
    save(figure, path)


def draw_trajectory(path: Path, gen: DiffusionGenerator) -> None:
    """Ten digits at eleven of the times that a sampler passes: noisy, and as the network takes them."""
    states: list[SampleState] = []
    asked = torch.from_numpy(gen.conditions_.encode(pd.DataFrame({"y": range(10)})))
    noise = torch.randn((10, 64), generator=torch.Generator().manual_seed(SEED))
    sample(gen.denoiser_, noise, asked, method="ddim", steps=50, callback=states.append)
    chosen = [states[i] for i in np.linspace(0, len(states) - 1, 11).astype(int)]
    noisy, clean = (
        np.stack([gen.codec_.decode(getattr(state, part)) for state in chosen], axis=1).reshape(-1, 8, 8)
        for part in ("x", "x0")
    )
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    show(left, noisy, 11, "From noise to digits")
    show(right, clean, 11, "What the network takes them for")
    save(figure, path)


def draw_guidance(
    path: Path, gen: DiffusionGenerator, train: np.ndarray, y: np.ndarray, judge: ClassifierFeatures
) -> None:
    figure = Figure(figsize=(3 * len(SCALES), 3.4), layout="constrained")
    print("\nguidance_scale  class accuracy  Fréchet distance  precision  recall")
    known, rows = judge(train), first_of_each(y, 8)
    for ax, scale in zip(figure.subplots(1, len(SCALES)), SCALES):
        drawn = gen.sample(condition=y, guidance_scale=scale, steps=25, random_state=SEED)
        found = judge(drawn)
        accuracy, distance = np.mean(judge.predict(drawn) == y), frechet_distance(known, found)
        shares = precision_recall(known, found)
        print(
            f"{scale:>14g}  {accuracy:>14.3f}  {distance:>16.2f}  {shares['precision']:>9.3f}  {shares['recall']:>6.3f}"
        )
        show(ax, drawn[rows], 8, f"scale {scale:g}: accuracy {accuracy:.2f}, recall {shares['recall']:.2f}")
    save(figure, path)


def draw_steps(
    path: Path,
    gen: DiffusionGenerator,
    train: np.ndarray,
    unseen: np.ndarray,
    y: np.ndarray,
    judge: ClassifierFeatures,
    counts: tuple[int, ...],
) -> None:
    known = judge(train)
    floor = frechet_distance(known, judge(unseen))
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    ax = figure.subplots()
    print(f"\nFréchet distance by sampler and steps (unseen real digits: {floor:.2f})")
    print("steps      " + "".join(f"{s:>8}" for s in counts))
    for method in SAMPLERS:
        drawn = (gen.sample(condition=y, method=method, steps=s, random_state=SEED) for s in counts)
        distances = [frechet_distance(known, judge(images)) for images in drawn]
        print(f"{method:<11}" + "".join(f"{d:>8.2f}" for d in distances), flush=True)
        ax.plot(counts, distances, "o-", label=method)
    ax.axhline(floor, color="gray", linestyle="--", label="unseen real digits")
    ax.set(xscale="log", xlabel="steps", ylabel="Fréchet distance", title="Quality against steps")
    ax.set_xticks(counts, labels=[str(s) for s in counts], minor=False)
    ax.minorticks_off()
    ax.legend()
    save(figure, path)


def draw_restored(path: Path, gen: DiffusionGenerator, unseen: np.ndarray, y: np.ndarray) -> None:
    chosen = unseen[first_of_each(y, 1)]
    mask = np.zeros((8, 8), dtype=bool)
    mask[4:] = True
    filled = gen.impute(chosen, mask=mask, n_draws=3, random_state=SEED)
    erased = np.where(mask, 128, chosen).astype(np.uint8)
    small = np.rint(chosen.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4))).astype(np.uint8)
    large = [super_resolve(gen, small, random_state=seed) for seed in range(3)]
    error = max(np.abs(x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)) - small).max() for x in large)
    kept = all((x[:, :4] == chosen[:, :4]).all() for x in filled)
    print(f"\nThe known half is kept exactly: {kept}. Blocks of enlarged digits differ by at most {error:.2f} of 255.")
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    show(left, np.concatenate([chosen, erased, *filled]), 10, "True, lower half erased, three draws of it")
    shown = small.repeat(2, axis=1).repeat(2, axis=2)
    show(right, np.concatenate([chosen, shown, *large]), 10, "True, blocks of 2 × 2 averaged, three draws")
    save(figure, path)


if __name__ == "__main__":
    main()
