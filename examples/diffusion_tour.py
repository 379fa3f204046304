"""Diffusion on the plane, one picture per idea: from noise to learning.

All but the last picture use a mixture of Gaussians, whose best denoiser is known in closed form. So nothing in them is
an error of training: what you see is what the method itself does.

Run it: python examples/diffusion_tour.py -o pictures   (about a minute; --quick for a rough look)
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from torch import Tensor

from tabdiff import DiffusionGenerator
from tabdiff.diffusion import (
    CFGPlusPlus,
    ClassifierFreeGuidance,
    CosineSchedule,
    DenoiserLike,
    MixtureDenoiser,
    Schedule,
    ShiftedSchedule,
    ZeroTerminalSNRSchedule,
    bits_per_dim,
    encode,
    flow_log_likelihood,
    interpolate,
    make_schedule,
    sample,
    sample_known,
    slerp,
)


class Size(NamedTuple):
    """How much to compute."""

    rows: int  # points in a panel
    pixels: int  # of a density map, along each side
    steps: int  # of the solvers of likelihood and inversion
    training_steps: tuple[int, int]  # of the two learned denoisers


FULL = Size(rows=2000, pixels=64, steps=100, training_steps=(100, 800))
QUICK = Size(rows=300, pixels=16, steps=15, training_steps=(2, 10))
SEED = 0

TIMES = (0.001, 0.2, 0.4, 0.6, 0.8, 0.999)
SCHEDULES = ("cosine", "offset_cosine", "sigmoid", "vp", "sub_vp", "ve", "rectified_flow", "edm")
METHODS = {"ddpm": "DDPM", "ddim": "DDIM", "heun": "Heun", "dpmpp_2m": "DPM-Solver++ 2M", "unipc": "UniPC"}
STEPS = (5, 10, 20, 50)
SCALES = (0, 1, 2, 4)
SCALES_PLUS_PLUS = (0, 0.25, 0.5, 1)
REPAINT = ((1, 1), (10, 1), (10, 10))  # how often each block of steps is taken, and its length
KNOWN = 0.9
BIN = 0.01  # to which rows are rounded where bits are counted
MOON_NOISE = 0.08
RARE = -12.0  # log-density below which data are hardly ever, in nats

# The colours of Okabe and Ito (2008), which people with any common colour blindness can tell apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
MARKERS = ("o", "^", "s", "D", "v")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 3)))
GREY, POINT = "#999999", "#0072B2"
REACH, TITLE = 2.8, 9  # of the plane from its middle; size of letters


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw a tour of diffusion on the plane, one PNG per idea.")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="where the pictures go")
    parser.add_argument("--quick", action="store_true", help="few points and steps: seconds, but rough")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    chapters = (forward, schedules, samplers, guidance, known, likelihood, latent, learned)
    for number, chapter in enumerate(chapters, start=1):
        path = options.output / f"{number}_{chapter.__name__}.png"
        figure = chapter(QUICK if options.quick else FULL, torch.Generator().manual_seed(SEED))
        figure.savefig(path, dpi=110, bbox_inches="tight")
        print(path)


# ---------------------------------------------------------------- chapters


def forward(size: Size, generator: torch.Generator) -> Figure:
    """Draw how noise takes a distribution apart, and what is left to be known of the clean row at each time.

    Above, ``x_t = alpha x_0 + sigma eps`` at six times: the five arms blur, then merge, and end as a standard normal.
    Below, the denoiser's answer ``E[x_0 | x_t]`` for the same points. With little noise it is the row itself; in
    between, rows whose arm can no longer be told land between arms; at the end it is the mean of all data for everyone.

    Sohl-Dickstein et al., "Deep Unsupervised Learning using Nonequilibrium Thermodynamics", 2015; Ho, Jain and Abbeel,
    "Denoising Diffusion Probabilistic Models", 2020.
    """
    oracle = pinwheel()
    x0, arm = oracle.sample(size.rows, generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    figure, axes = panels(2, len(TIMES), "The forward process (cosine schedule), and the best guess of the way back")
    for t, (above, below) in zip(TIMES, axes.T):
        alpha, sigma = oracle.schedule.alpha(t), oracle.schedule.sigma(t)
        x_t = alpha * x0 + sigma * noise
        scatter_classes(above, x_t, arm)
        scatter_classes(below, oracle(x_t, torch.tensor(t)), arm)
        above.set_title(
            f"t = {t:g}\nα = {alpha:.2f}, σ = {sigma:.2f}\nlog-SNR = {oracle.schedule.log_snr(t):.1f}", fontsize=TITLE
        )
    axes[0, 0].set_ylabel("noisy rows $x_t$")
    axes[1, 0].set_ylabel("denoised $E[x_0 | x_t]$")
    return figure


def schedules(size: Size, generator: torch.Generator) -> Figure:
    """Draw every schedule as its log signal-to-noise ratio over time, the one coordinate in which they compare.

    Left, continuous time, stretched to [0, 1]. The variational bound depends on the two ends only; the way between them
    decides where a uniform draw of times spends its effort. The offset of the published cosine puts a little more noise
    at t = 0. Right, discrete schedules of 1000 steps: the linear one
    stops with signal left at t = 1 (the cross), which rescaling to zero terminal SNR removes (its curve falls out of
    the picture), and a shift for larger images lowers the whole curve by a constant.

    Kingma et al., "Variational Diffusion Models", 2021; Nichol and Dhariwal, "Improved Denoising Diffusion
    Probabilistic Models", 2021; Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023;
    Hoogeboom, Heek and Salimans, "Simple Diffusion", 2023.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, name in enumerate(SCHEDULES):
        draw_log_snr(left, make_schedule(name), name, i)
    linear, cosine = make_schedule("linear", 1000), make_schedule("cosine", 1000)
    discrete = {
        "linear, T = 1000": linear,
        "cosine, T = 1000": cosine,
        "linear, zero terminal SNR": ZeroTerminalSNRSchedule(linear),
        "cosine, shifted by factor 4": ShiftedSchedule(make_schedule("cosine"), 4.0),
    }
    for i, (name, schedule) in enumerate(discrete.items()):
        draw_log_snr(right, schedule, name, i)
    right.plot(1, linear.log_snr(1.0), "x", color=COLORS[0], markersize=9, markeredgewidth=2, clip_on=False)
    left.set(title="continuous time", xlabel="(t - t_min) / (t_max - t_min)", ylabel="log-SNR = 2 log(α / σ)")
    right.set(title="discrete time, and two changes of a schedule", xlabel="(t - t_min) / (t_max - t_min)")
    left.set_ylim(-15, 15)
    for ax in (left, right):
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.annotate("as much noise as signal", (1.0, 0.2), color="#555555", fontsize=8, ha="right")
        ax.legend(fontsize=8, handlelength=3.5, loc="lower left")
    return figure


def samplers(size: Size, generator: torch.Generator) -> Figure:
    """Draw what each sampler makes of the same noise in 5, 10, 20 and 50 steps with the exact denoiser.

    Contours are the truth. A title has the sliced Wasserstein distance from an exact draw; its floor is the distance
    between two exact draws of that many rows; a single draw may be luckier. Few steps of a first-order
    method (DDPM, DDIM) leave the arms too short and rows between them. Second order gets there sooner: DPM-Solver++ at
    one evaluation of the network a step, Heun at two, so compare Heun with its neighbours at twice the steps. With few,
    long steps extrapolation can also go wrong, as UniPC's does at 5.

    Ho et al., DDPM, 2020; Song, Meng and Ermon, DDIM, 2021; Karras et al., EDM (Heun), 2022; Lu et al.,
    DPM-Solver++, 2022; Zhao et al., UniPC, 2023.
    """
    oracle = pinwheel()
    real, _ = oracle.sample(size.rows, generator)
    floor = draw_floor(oracle, size.rows, generator)
    noise = torch.randn((size.rows, 2), generator=generator)
    figure, axes = panels(len(METHODS), len(STEPS), "Samplers by steps, with their distance from the truth")
    for line, (method, label) in zip(axes, METHODS.items()):
        for steps, ax in zip(STEPS, line):
            counted = Counted(oracle)
            rows = sample(counted, noise, method=method, steps=steps, generator=generator)
            scatter(ax, rows, POINT)
            contours(ax, oracle)
            title = f"{steps} steps, {counted.calls} evaluations\nSWD {distance(rows, real):.3f} (floor {floor:.3f})"
            ax.set_title(title, fontsize=TITLE)
        line[0].set_ylabel(label)
    return figure


def guidance(size: Size, generator: torch.Generator) -> Figure:
    """Draw three classes that overlap, asked for with guidance scales 0, 1, 2 and 4.

    At 0 the class is ignored: every colour is everywhere. At 1 each class is drawn as it is (its contours). Larger
    scales push away from what the classes share: rows leave no doubt of their class (p), but they also leave where
    the class is, and their spread shrinks. Guidance trades diversity for typicality; it does not sample the class.
    Below, CFG++: each step puts back the noise of the unguided estimate, so its scales lie between 0 and 1. Methods
    that step along a velocity cannot do so, and refuse; DDIM can.

    Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022; the scale here is their 1 + w. Chung et al.,
    "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models", 2024.
    """
    oracle = three_classes()
    k = len(oracle.means)
    condition = torch.arange(k, dtype=torch.float32).repeat_interleave(size.rows // k)[:, None]
    noise = torch.randn((len(condition), 2), generator=generator)
    figure, axes = panels(2, len(SCALES), "Classifier-free guidance: D(∅) + scale · (D(class) - D(∅))", reach=3.6)
    ways = [(ClassifierFreeGuidance(oracle, scale), "heun") for scale in SCALES]
    ways += [(CFGPlusPlus(oracle, scale), "ddim") for scale in SCALES_PLUS_PLUS]
    for (guided, method), ax in zip(ways, axes.flat):
        rows = sample(guided, noise, condition, method=method, steps=50)
        code = condition[:, 0].long()
        scatter_classes(ax, rows, code)
        for c in range(k):
            contours(ax, oracle, torch.tensor([[float(c)]]), COLORS[c])
        p = oracle.posterior(rows)[torch.arange(len(rows)), code].mean()
        spread = torch.stack([rows[code == c].std(0).mean() for c in range(k)]).mean()
        ax.set_title(f"scale {guided.scale}\np(class | row) = {p:.2f}, spread {spread:.2f}", fontsize=TITLE)
    axes[0, 0].set_ylabel("guidance, Heun")
    axes[1, 0].set_ylabel("CFG++, DDIM")
    return figure


def known(size: Size, generator: torch.Generator) -> Figure:
    """Draw rows of which one coordinate is known, by RePaint: a histogram of the other beside its exact density.

    The known coordinate is put in its place, with the noise of the time, after each step. One pass knows of it too
    late: the upper arm gets too many rows, in the wrong place. Going back and stepping again lets the two settle, and
    jumps over blocks of ten steps change more than details; the arms' shares are still not quite right. Each title has
    the Wasserstein distance from the exact conditional distribution.

    Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022.
    """
    oracle = pinwheel()
    noise = torch.randn((size.rows, 2), generator=generator)
    first, mask = torch.full((size.rows, 2), KNOWN), torch.tensor([True, False])
    at = torch.linspace(-REACH, REACH, 1001, dtype=torch.float64)
    density = oracle.log_prob(torch.stack([torch.full_like(at, KNOWN), at], 1)).exp()
    density /= density.sum() * (at[1] - at[0])
    cdf = density.cumsum(0) / density.sum()
    exact = at[torch.searchsorted(cdf, (torch.arange(size.rows) + 0.5) / size.rows).clamp(max=len(at) - 1)]
    figure, axes = panels(1, len(REPAINT), f"RePaint: rows of which the first coordinate is {KNOWN}")
    for (repeats, jump), ax in zip(REPAINT, axes[0]):
        settings = {"n_resamples": repeats, "jump_length": jump, "steps": 50, "generator": generator}
        found = sample_known(oracle, noise, first, mask, **settings)[:, 1].double().sort().values
        contours(ax, oracle)
        bars, edges = np.histogram(found, 120, (-REACH, REACH), density=True)
        ax.stairs(KNOWN + bars / 3, edges, baseline=KNOWN, orientation="horizontal", fill=True, color=COLORS[4])
        ax.plot(KNOWN + density / 3, at, color=COLORS[5], linewidth=1.2)
        times = "once" if repeats == 1 else f"{repeats} times"
        ax.set_title(f"blocks of {jump} taken {times}\nW1 {(found - exact).abs().mean():.3f}", fontsize=TITLE)
    return figure


def likelihood(size: Size, generator: torch.Generator) -> Figure:
    """Draw the log-density of the plane: the mixture's own, the one that the probability flow computes, and the error.

    The flow carries each point to noise by an ordinary differential equation and adds up how much it stretches the
    space around it. It knows the denoiser only, yet agrees with the closed form; the error that is left is of the
    solver's steps and of the noise at the two ends of the schedule. Rows that are rounded to hundredths take
    so many bits per coordinate. White is where data hardly ever are (below -12 nats): there the flow is stiff, and
    would need many more steps.

    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021; Chen et al.,
    "Neural Ordinary Differential Equations", 2018.
    """
    oracle = pinwheel()
    rows = plane(size.pixels)
    exact = oracle.log_prob(rows)
    flow = flow_log_likelihood(oracle, rows, steps=size.steps, grid="quadratic")
    drawn, _ = oracle.sample(size.rows // 10, generator)
    of_drawn = (oracle.log_prob(drawn), flow_log_likelihood(oracle, drawn, steps=size.steps, grid="quadratic"))
    bits = [f"{bits_per_dim(log_p, 2, bin_width=BIN).mean():.2f} bits per dim" for log_p in of_drawn]
    figure, axes = panels(1, 3, "Log-likelihood, in nats")
    shared = {"vmin": RARE, "vmax": exact.max().item()}
    draw_map(axes[0, 0], exact, f"exact (closed form), {bits[0]}", extend="min", **shared)
    draw_map(axes[0, 1], flow, f"probability flow, {size.steps} steps, {bits[1]}", extend="min", **shared)
    error = (flow - exact).abs().where(exact > RARE, torch.nan)
    draw_map(axes[0, 2], error.log10(), f"log10 |difference|, median {error.nanmedian():.0e}")
    return figure


def latent(size: Size, generator: torch.Generator) -> Figure:
    """Draw rows, the noise that DDIM inversion finds for them, and the way between two rows through that noise.

    Without fresh noise sampling is a map that can be run backwards. Middle: encoded, the rows fill a standard normal
    (the circles hold 50 % and 95 % of it), and each arm keeps a sector to itself. The black way between two encoded
    rows follows the great circle. Decoded (right) it keeps to where data are likely, along the arms and at a leap from
    one to the next, while the straight line spends most of its length where there are none. Heun's method runs the way
    here, for its small error there and back; with method="ddim" it is larger.

    Song, Meng and Ermon, "Denoising Diffusion Implicit Models", 2021, sections 4.3 and 5.3; White, "Sampling
    Generative Networks", 2016, for the great circle.
    """
    oracle = pinwheel()
    rows, arm = oracle.sample(size.rows, generator)
    noise = encode(oracle, rows, method="heun", steps=size.steps)
    back = sample(oracle, noise, method="heun", steps=size.steps)
    a, b = (oracle.means[i : i + 1] for i in (0, 2))
    shares = torch.linspace(0, 1, 41).tolist()
    way = interpolate(oracle, a, b, shares, method="heun", steps=size.steps)[:, 0]
    ends = [encode(oracle, end, method="heun", steps=size.steps) for end in (a, b)]
    arc = torch.cat([slerp(*ends, share) for share in shares])

    figure, axes = panels(1, 3, "DDIM inversion and interpolation")
    left, middle, right = axes[0]
    scatter_classes(left, rows, arm)
    left.set_title("rows", fontsize=TITLE)
    scatter_classes(middle, noise, arm)
    for mass in (0.5, 0.95):
        circle(middle, math.sqrt(-2 * math.log(1 - mass)))
    trail(middle, arc, "great circle")
    middle.set_title("the same rows, encoded to noise", fontsize=TITLE)
    contours(right, oracle)
    trail(right, way, "through the noise")
    right.plot(*torch.cat([a, b]).T, "--", color=COLORS[5], linewidth=1.8, label="straight line")
    right.set_title(
        f"from row to row\n(encoded and decoded again: error {(back - rows).abs().median():.0e})", fontsize=TITLE
    )
    for ax in (middle, right):
        ax.legend(fontsize=8, loc="upper right")
    return figure


def learned(size: Size, generator: torch.Generator) -> Figure:
    """Draw two moons: data, rows from their exact denoiser, and from networks trained for a short and a longer time.

    scikit-learn draws moons as points on two arcs plus Gaussian noise: a mixture with a component per point, so even
    here the best denoiser is known. After few training steps each coordinate by itself is right already, because the
    estimator maps columns to normal ones and back; how the two go together is what training adds. More steps come close
    to the exact denoiser. Last, the chain of improved DDPM: 100 steps, of which 20 are taken, whose widths are learned.

    Ho et al., DDPM, 2020; Salimans and Ho, "Progressive Distillation", 2022, for the v-prediction used in training;
    Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, for learned variances.
    """
    oracle = moons()
    data, _ = oracle.sample(size.rows, generator)
    real, _ = oracle.sample(size.rows, generator)
    noise = torch.randn((size.rows, 2), generator=generator)
    drawn = {"exact denoiser": sample(oracle, noise, method="heun", steps=20)}
    for steps in size.training_steps:
        model = DiffusionGenerator(max_steps=steps, random_state=SEED).fit(data.numpy())
        drawn[f"learned, {steps} training steps"] = torch.from_numpy(np.asarray(model.sample(size.rows)))
    chain = DiffusionGenerator(n_timesteps=100, variance="learned", max_steps=steps, random_state=SEED).fit(
        data.numpy()
    )
    drawn["learned variance, DDPM"] = torch.from_numpy(chain.sample(size.rows, method="ddpm", steps=20))

    floor = draw_floor(oracle, size.rows, generator)
    figure, axes = panels(1, 5, "A learned denoiser beside the exact one", reach=2.1)
    scatter(axes[0, 0], data, "#555555")
    axes[0, 0].set_title(f"training data\nSWD {distance(data, real):.3f} (floor {floor:.3f})", fontsize=TITLE)
    for ax, (label, rows) in zip(axes[0, 1:], drawn.items()):
        scatter(ax, rows, POINT)
        ax.set_title(f"{label}\nSWD {distance(rows, real):.3f} (floor {floor:.3f})", fontsize=TITLE)
    return figure


# ----------------------------------------------------- data whose denoiser is known


def pinwheel() -> MixtureDenoiser:
    """Return the exact denoiser of five slanted arms around the origin."""
    angles = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5 + math.pi / 2
    means = 1.3 * torch.stack([angles.cos(), angles.sin()], 1)
    along = torch.stack([(angles + 0.7).cos(), (angles + 0.7).sin()], 1)
    covs = 0.15 * along[:, :, None] * along[:, None, :] + 0.006 * torch.eye(2)
    return MixtureDenoiser(torch.ones(5), means, covs, CosineSchedule())


def three_classes() -> MixtureDenoiser:
    """Return the exact denoiser of three round classes that overlap; the condition is the class."""
    angles = 2 * math.pi * torch.arange(3, dtype=torch.float64) / 3 + math.pi / 2
    means = 0.8 * torch.stack([angles.cos(), angles.sin()], 1)
    return MixtureDenoiser(torch.ones(3), means, torch.full((3, 2), 0.35), CosineSchedule())


def moons() -> MixtureDenoiser:
    """Return the exact denoiser of two moons."""
    means = torch.from_numpy(make_moons(200, shuffle=False)[0])
    means = (means - means.mean(0)) * 1.2
    return MixtureDenoiser(torch.ones(200), means, torch.full((200, 2), MOON_NOISE**2), CosineSchedule())


class Counted:
    """A denoiser that counts how often it is asked."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        self.denoiser, self.schedule, self.calls = denoiser, denoiser.schedule, 0

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        self.calls += 1
        return self.denoiser(x_t, t, condition)


# ---------------------------------------------------------------- measuring


def distance(a: Tensor, b: Tensor) -> float:
    """Return the sliced Wasserstein-1 distance of two samples of equal size (Rabin et al., 2012)."""
    angles = torch.linspace(0, math.pi, 51, dtype=torch.float64)[:-1]
    directions = torch.stack([angles.cos(), angles.sin()])
    sorted_a, sorted_b = ((rows.double() @ directions).sort(0).values for rows in (a, b))
    return (sorted_a - sorted_b).abs().mean().item()


def draw_floor(oracle: MixtureDenoiser, n: int, generator: torch.Generator) -> float:
    """Return the mean distance between two exact draws of `n` rows: what a perfect sampler would get."""
    pairs = [distance(oracle.sample(n, generator)[0], oracle.sample(n, generator)[0]) for _ in range(20)]
    return sum(pairs) / len(pairs)


# ------------------------------------------------------------------ drawing


def panels(n_rows: int, n_columns: int, title: str, reach: float = REACH) -> tuple[Figure, np.ndarray]:
    """Return a figure of square panels without ticks, all of the same part of the plane."""
    width = max(2.4, 10.5 / n_columns)
    figure = Figure(figsize=(width * n_columns, (width + 0.55) * n_rows + 0.4), layout="compressed")
    figure.suptitle(title)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    return figure, axes


def scatter(ax: Axes, rows: Tensor, color: str, marker: str = "o") -> None:
    ax.scatter(*rows.T.numpy(), s=5, color=color, marker=marker, alpha=0.45, linewidths=0)


def scatter_classes(ax: Axes, rows: Tensor, code: Tensor) -> None:
    """Draw rows by class, an eighth of each class at a time, so that none of them hides the others."""
    classes = [(c, rows[code == c].tensor_split(8)) for c in code.unique().tolist()]
    for part in range(8):
        for c, parts in classes:
            scatter(ax, parts[part], COLORS[c], MARKERS[c])


def plane(pixels: int, reach: float = REACH) -> Tensor:
    """Return the points of a square grid, shape ``(pixels ** 2, 2)``, float64."""
    line = torch.linspace(-reach, reach, pixels, dtype=torch.float64)
    return torch.cartesian_prod(line, line).flip(1)


def contours(ax: Axes, oracle: MixtureDenoiser, condition: Tensor | None = None, color: str = "#333333") -> None:
    """Draw the contours of the true density at 60 %, 10 % and 1 % of its peak."""
    reach, pixels = ax.get_xlim()[1], 120
    rows = plane(pixels, reach)
    wanted = None if condition is None else condition.expand(len(rows), 1)
    density = oracle.log_prob(rows, condition=wanted).exp().reshape(pixels, pixels).numpy()
    line, peak = np.linspace(-reach, reach, pixels), density.max()
    ax.contour(line, line, density, levels=[0.01 * peak, 0.1 * peak, 0.6 * peak], colors=color, linewidths=0.7)


def draw_map(ax: Axes, values: Tensor, title: str, *, extend: str = "neither", **limits: float) -> None:
    side = math.isqrt(len(values))
    image = ax.imshow(
        values.reshape(side, side).numpy(), origin="lower", extent=(-REACH, REACH) * 2, cmap="cividis", **limits
    )
    ax.figure.colorbar(image, ax=ax, shrink=0.8, extend=extend)
    ax.set_title(title, fontsize=TITLE)


def draw_log_snr(ax: Axes, schedule: Schedule, name: str, i: int) -> None:
    t = torch.linspace(schedule.t_min, schedule.t_max, 1000, dtype=torch.float64)
    share = (t - schedule.t_min) / (schedule.t_max - schedule.t_min)
    ax.plot(share, schedule.log_snr(t), label=name, color=COLORS[i], linestyle=LINES[i], linewidth=1.8)


def trail(ax: Axes, rows: Tensor, label: str) -> None:
    """Draw a way through the plane with dots at equal shares, and its two ends."""
    ax.plot(*rows.T.numpy(), color="black", linewidth=1, marker=".", markersize=4, label=label)
    ax.plot(*rows[[0, -1]].T.numpy(), "*", color="white", markeredgecolor="black", markersize=14)


def circle(ax: Axes, radius: float) -> None:
    angles = np.linspace(0, 2 * np.pi, 200)
    ax.plot(radius * np.cos(angles), radius * np.sin(angles), color="#333333", linewidth=0.8)


if __name__ == "__main__":
    main()
