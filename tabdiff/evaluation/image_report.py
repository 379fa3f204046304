"""The report of images: the figures of `evaluate_images`, and drawn images beside real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.images import evaluate_images
from tabdiff.evaluation.report import Drawing, Report
from tabdiff.io.image_grid import image_grid
from tabdiff.io.images import read_images
from tabdiff.utils.fingerprint import array_digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["report_images"]

SHOWN = 40


def report_images(real: Any, synthetic: Any, **settings: Any) -> Report:
    """Score images; see `tabdiff.evaluate`."""
    scores = evaluate_images(real, synthetic, **settings)
    images = {"real": read_images(real, "real"), "synthetic": read_images(synthetic, "synthetic")}
    grids, n = {}, {}
    rng = np.random.default_rng(settings.get("random_state"))
    for name, found in images.items():
        assert found is not None
        n[name] = len(found)
        grids[name] = image_grid(found.take(np.sort(rng.permutation(len(found))[:SHOWN])).array(), columns=10)
    drawing = Drawing(
        _draw, grids, f"Up to {SHOWN} synthetic images beside as many real ones, drawn at random.", (7.2, 2.6)
    )
    features = scores.attrs["features"]
    sizes = {"images": f"{n['real']:,} real, {n['synthetic']:,} synthetic", "features": features}
    assert images["real"] is not None
    return Report(
        "images",
        scores,
        {},
        _findings(scores),
        sizes,
        {"images": drawing},
        fingerprint=array_digest(images["real"].array()),
    )


def _draw(figure: Figure, real: np.ndarray, synthetic: np.ndarray) -> None:
    for axes, image, title in zip(figure.subplots(1, 2), (real, synthetic), ("real", "synthetic"), strict=True):
        axes.imshow(image, cmap="gray" if image.ndim == 2 else None, interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()


def _findings(scores: pd.DataFrame) -> list[str]:
    by = scores.set_index("metric")
    row = by.loc["frechet_distance"]
    out = [
        f"The Fréchet distance is {row['synthetic']:.3g}; unseen real images score {row['floor']:.3g}, independent "
        f"pixels {row['independent']:.3g}."
    ]
    if "class_accuracy" in by.index and np.isfinite(by.loc["class_accuracy", "synthetic"]):
        row = by.loc["class_accuracy"]
        out.append(
            f"{100 * row['synthetic']:.0f} % are taken for the class that was asked for; of real ones "
            f"{100 * row['floor']:.0f} %."
        )
    copied = by.loc["memorisation_ratio"]
    if copied["high"] < 0.9:
        out.append(f"Images lie too near to training images: {copied['synthetic']:.2f} of the usual distance.")
    return out
