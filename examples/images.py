"""Images, learned and drawn: five pictures, each with the figures behind it printed.

1. real images beside drawn ones of the same classes;
2. noise that turns into images, and what the network takes it for on the way;
3. guidance: clearer images at the price of variety;
4. quality against the number of steps, by sampler;
5. images of which half was erased, and of which blocks of pixels are known by their mean, or by one pixel, alone.

Run it, with scikit-learn's handwritten digits (about three minutes of CPU) or with files of yours (see image_files.py):

    python examples/images.py -o pictures
    python examples/images.py --data MNIST/raw --max-time 600           # a folder with MNIST's IDX files
    python examples/images.py --data cifar-10-batches-bin               # CIFAR-10's binary version
    python examples/images.py --data photos --side 32 --flip            # a subfolder for each class
    TABDIFF_DATA=/path/to/data python examples/images.py --data mnist   # or cifar10, there a JPEG re-encoding
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from image_files import Pictures, load
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tabdiff import DiffusionGenerator, ImageCodec, evaluate
from tabdiff.diffusion import SampleState, sample
from tabdiff.evaluation import ClassifierFeatures, frechet_distance, precision_recall
from tabdiff.io.image_grid import image_grid

SEED = 0
SCALES = (0.0, 1.0, 2.0, 4.0)
STEPS = (2, 5, 10, 25, 50)
SAMPLERS = ("ddpm", "ddim", "dpmpp_2m")
SHOWN = 10  # classes at most, and images of each
SCORED, SCORED_LARGE, LARGE = 450, 200, 16 * 16  # unseen images at most, and of more pixels than these
FEWEST = 10  # unseen images, of which each is compared with its five nearest
COMPARED = 2_000  # training images at most that drawn ones are compared with
MEASURED = 1_024  # means of blocks at most, whose covariance is inverted at each step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, mnist, cifar10 or a folder of files")
    parser.add_argument("--side", type=int, help="crop and resize image files to so many pixels a side")
    parser.add_argument("--flip", action="store_true", help="train on mirrored images too, as for CIFAR-10")
    parser.add_argument("--max-time", type=float, help="seconds of training at most")
    parser.add_argument("--scored", type=int, help=f"unseen images at most ({SCORED}; {SCORED_LARGE} of large ones)")
    parser.add_argument("-o", "--output", type=Path, default=Path("pictures"), help="folder of the pictures")
    parser.add_argument("--quick", action="store_true", help="hardly train: to see that everything runs")
    args = parser.parse_args()
    try:
        pictures = load(args.data, args.side)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    folder = args.output
    folder.mkdir(parents=True, exist_ok=True)

    train, y = pictures.train, pictures.y
    unseen, y_unseen = some_unseen(pictures, args.scored or (120 if args.quick else None))
    if len(unseen) < FEWEST:
        parser.error(f"{FEWEST} unseen images are needed, however: {len(unseen)}. Add images, or give --scored more.")
    height, width = train.shape[1:3]
    print(f"Fitting {len(train)} images of {height} × {width} pixels, {len(np.unique(y))} classes ...", flush=True)
    if pictures.note:
        print(pictures.note)
    gen = DiffusionGenerator(
        denoiser="unet",
        codec=ImageCodec(augment="flip" if args.flip or pictures.flip else None),
        max_steps=5 if args.quick else 700 if args.data == "digits" else "auto",
        max_time=args.max_time,
        random_state=SEED,
    ).fit(train, y)
    seconds = gen.history_["seconds"][-1]
    weights = sum(p.numel() for p in gen.denoiser_.network.parameters())
    print(f"{gen.n_steps_} steps in {seconds:.0f} s, {weights:,} parameters, loss {gen.history_['loss'][-1]:.3f}\n")

    drawn = gen.sample(condition=y_unseen, random_state=SEED)
    labels = {"real": y, "synthetic": y_unseen, "holdout": y_unseen}
    judge = ClassifierFeatures(train, y)
    scores = evaluate(train, drawn, holdout=unseen, labels=labels, features=judge).to_frame()
    print(f"Drawn images beside images that the model has not seen, by {scores.attrs['features']}:")
    print(scores.drop(columns="meaning").round(3).to_string(index=False), flush=True)

    known = judge(np.random.default_rng(SEED).permutation(train)[:COMPARED])
    draw_grids(folder / "images-1-grid.png", unseen, drawn, y_unseen)
    draw_trajectory(folder / "images-2-trajectory.png", gen, unseen, y_unseen)
    draw_guidance(folder / "images-3-guidance.png", gen, known, y_unseen, judge)
    counts = STEPS[: 2 if args.quick else None]
    draw_steps(folder / "images-4-steps.png", gen, known, unseen, y_unseen, judge, counts)
    draw_restored(folder / "images-5-restored.png", gen, unseen, y_unseen)


def some_unseen(pictures: Pictures, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """As many of the images kept from the model as are drawn and scored, and their classes."""
    height, width = pictures.unseen.shape[1:3]
    most = most or (SCORED_LARGE if height * width > LARGE else SCORED)
    rows = np.sort(np.random.default_rng(SEED).permutation(len(pictures.unseen))[:most])
    return pictures.unseen[rows], pictures.y_unseen[rows]


def by_class(images: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
    """The first n images of each class, white in the place of those that a class lacks."""
    padded = np.concatenate([images, np.full_like(images[:1], 255)])
    found = [np.flatnonzero(y == k)[:n] for k in np.unique(y)[:SHOWN]]
    return padded[np.concatenate([np.pad(rows, (0, n - len(rows)), constant_values=len(images)) for rows in found])]


def canvas(panels: int, columns: int, rows: int, images: np.ndarray, width: float = 4.5) -> tuple[Figure, list[Axes]]:
    """Panels of one width side by side, as high as so many rows of images are."""
    height, across = images.shape[1:3]
    high = min(width * rows * height / (columns * across), 2 * width) + 0.3
    figure = Figure(figsize=(width * panels, high), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def show(ax: Axes, images: np.ndarray, columns: int, title: str, names: np.ndarray | None = None) -> None:
    """Images beside each other, with names of their rows."""
    grid = image_grid(images, columns=columns)
    ax.imshow(grid, cmap="gray", vmin=0, vmax=255)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[], frame_on=False)
    if names is not None:
        shown = [name if len(name) < 13 else name[:12] + "…" for name in map(str, names)]
        ax.set_yticks((np.arange(len(shown)) + 0.5) * len(grid) / len(shown) - 0.5, labels=shown, fontsize=7)
        ax.tick_params(length=0)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)
    print(f"Picture: {path}", flush=True)


def draw_grids(path: Path, unseen: np.ndarray, drawn: np.ndarray, y: np.ndarray) -> None:
    classes, counts = np.unique(y, return_counts=True)
    classes, columns = classes[:SHOWN], min(SHOWN, counts[:SHOWN].max())
    figure, (left, right) = canvas(2, columns, len(classes), unseen)
    show(left, by_class(unseen, y, columns), columns, "Real images that the model has not seen", classes)
    show(right, by_class(drawn, y, columns), columns, "Drawn images of the same classes")
    save(figure, path)


def draw_trajectory(path: Path, gen: DiffusionGenerator, images: np.ndarray, y: np.ndarray) -> None:
    """An image of each class at eleven of the times that a sampler passes: noisy, and as the network takes it."""
    states: list[SampleState] = []
    classes, device = np.unique(y)[:SHOWN], next(gen.denoiser_.parameters()).device
    asked = torch.from_numpy(gen.conditions_.encode(pd.DataFrame({"y": classes})))
    noise = torch.randn((len(classes), images[0].size), generator=torch.Generator().manual_seed(SEED))
    sample(gen.denoiser_, noise.to(device), asked.to(device), method="ddim", steps=50, callback=states.append)
    chosen = [states[i] for i in np.linspace(0, len(states) - 1, 11).astype(int)]
    noisy, clean = (
        np.stack([gen.codec_.decode(getattr(state, part).cpu()) for state in chosen], axis=1) for part in ("x", "x0")
    )
    figure, (left, right) = canvas(2, 11, len(classes), images)
    show(left, noisy.reshape(-1, *images.shape[1:]), 11, "From noise to images", classes)
    show(right, clean.reshape(-1, *images.shape[1:]), 11, "What the network takes them for")
    save(figure, path)


def draw_guidance(
    path: Path, gen: DiffusionGenerator, known: np.ndarray, y: np.ndarray, judge: ClassifierFeatures
) -> None:
    """The same classes and noise at several scales; `known` are the judge's features of training images."""
    columns = min(8, np.unique(y, return_counts=True)[1][:SHOWN].max())
    panels = []
    print("\nguidance_scale  class accuracy  Fréchet distance  precision  recall")
    for scale in SCALES:
        drawn = gen.sample(condition=y, guidance_scale=scale, steps=25, random_state=SEED)
        found = judge(drawn)
        accuracy, distance = np.mean(judge.predict(drawn) == y), frechet_distance(known, found)
        precision, recall = (precision_recall(known, found)[name] for name in ("precision", "recall"))
        print(f"{scale:>14g}  {accuracy:>14.3f}  {distance:>16.2f}  {precision:>9.3f}  {recall:>6.3f}", flush=True)
        panels.append((drawn, f"scale {scale:g}: accuracy {accuracy:.2f}, recall {recall:.2f}"))
    classes = np.unique(y)[:SHOWN]
    figure, axes = canvas(len(SCALES), columns, len(classes), drawn, width=3)
    for ax, (drawn, title) in zip(axes, panels):
        show(ax, by_class(drawn, y, columns), columns, title, classes if ax is axes[0] else None)
    save(figure, path)


def draw_steps(
    path: Path,
    gen: DiffusionGenerator,
    known: np.ndarray,
    unseen: np.ndarray,
    y: np.ndarray,
    judge: ClassifierFeatures,
    counts: tuple[int, ...],
) -> None:
    floor = frechet_distance(known, judge(unseen))
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    ax = figure.subplots()
    print(f"\nFréchet distance by sampler and steps (unseen real images: {floor:.2f})")
    print("steps      " + "".join(f"{s:>8}" for s in counts))
    for method in SAMPLERS:
        drawn = (gen.sample(condition=y, method=method, steps=s, random_state=SEED) for s in counts)
        distances = [frechet_distance(known, judge(images)) for images in drawn]
        print(f"{method:<11}" + "".join(f"{d:>8.2f}" for d in distances), flush=True)
        ax.plot(counts, distances, "o-", label=method)
    ax.axhline(floor, color="gray", linestyle="--", label="unseen real images")
    ax.set(xscale="log", xlabel="steps", ylabel="Fréchet distance", title="Quality against steps")
    ax.set_xticks(counts, labels=[str(s) for s in counts], minor=False)
    ax.minorticks_off()
    ax.legend()
    save(figure, path)


def blocks(images: np.ndarray, side: int) -> np.ndarray:
    """Means of blocks of side × side pixels."""
    n, height, width = images.shape[:3]
    parts = images.reshape(n, height // side, side, width // side, side, *images.shape[3:])
    return parts.mean(axis=(2, 4))


def block_side(images: np.ndarray) -> int | None:
    """Smallest side that divides those of the images, such that few means remain and yet an image; None without one."""
    height, width = images.shape[1:3]
    smallest = 4 if images.ndim == 3 else 5  # fewer pixels a side are not told apart from channels
    sides = (s for s in range(2, min(height, width) // smallest + 1) if height % s == 0 and width % s == 0)
    return next((s for s in sides if images[0].size <= MEASURED * s * s), None)


def draw_restored(path: Path, gen: DiffusionGenerator, unseen: np.ndarray, y: np.ndarray) -> None:
    counts = np.unique(y, return_counts=True)[1][:SHOWN]
    chosen = by_class(unseen, y, max(1, min(SHOWN // len(counts), counts.min())))
    columns = len(chosen)
    half, side = chosen.shape[1] // 2, block_side(chosen)
    mask = np.zeros(chosen.shape[1:3], dtype=bool)
    mask[half:] = True
    filled = gen.impute(chosen, mask=mask, n_draws=3, random_state=SEED)
    erased = chosen.copy()
    erased[:, half:] = 128
    kept = all((x[:, :half] == chosen[:, :half]).all() for x in filled)
    print(f"\nThe known half is kept exactly: {kept}.", end=" ")
    figure, axes = canvas(1 if side is None else 2, columns, 5, chosen)
    show(axes[0], np.concatenate([chosen, erased, *filled]), columns, "True, lower half erased, three draws of it")
    if side is None:
        height, width = chosen.shape[1:3]
        print(f"No super-resolution: {height} and {width} pixels share no divisor that leaves a smaller image.")
    else:
        small = np.rint(blocks(chosen, side)).astype(np.uint8)
        large = [gen.super_resolve(small, random_state=seed) for seed in range(2)]
        kept_pixels = chosen[:, ::side, ::side]
        from_pixels = gen.super_resolve(kept_pixels, operator="strided", random_state=SEED)
        error = max(np.abs(blocks(x, side) - small).max() for x in large)
        print(f"Blocks of enlarged images differ by at most {error:.2f} of 255;", end=" ")
        error = np.abs(from_pixels[:, ::side, ::side].astype(int) - kept_pixels).max()
        print(f"pixels that were kept alone by {error} of 255.")
        shown = small.repeat(side, axis=1).repeat(side, axis=2)
        title = f"True, blocks of {side} × {side} averaged, two draws; one of a pixel of each block"
        show(axes[1], np.concatenate([chosen, shown, *large, from_pixels]), columns, title)
    save(figure, path)


if __name__ == "__main__":
    main()
