"""Training that ends when drawn images no longer come nearer to real ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tabdiff.evaluation.image_features import as_features
from tabdiff.evaluation.images import frechet_distance
from tabdiff.io.images import read_images
from tabdiff.training import Callback, Training

if TYPE_CHECKING:
    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = ["FrechetStopping"]


class FrechetStopping(Callback):
    """Draw images every so many steps, and end the fit when their Fréchet distance to real ones no longer falls.

    Parameters
    ----------
    images : images
        Real ones that are not trained on, in any form that `DiffusionGenerator.fit` takes; as many are drawn.
    features : callable, optional
        What maps images to features, such as a `ClassifierFeatures`; by default principal components of pixels.
    every : int, default=500
        Steps between two distances.
    patience : int, default=5
        Distances in a row without an improvement after which the fit ends.
    condition, steps : optional
        As in `DiffusionGenerator.sample`.
    random_state : int, default=0
        Of the images, the same each time.

    Attributes
    ----------
    distances_ : list of tuple
        Step and distance of each.
    best_ : DiffusionGenerator or None
        The generator with the weights that had the smallest, fitted; `fit` itself returns the last.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff import DiffusionGenerator
    >>> images = np.random.default_rng(0).random((40, 6, 6))
    >>> watch = FrechetStopping(images[30:], every=2, steps=2)
    >>> gen = DiffusionGenerator(max_steps=4, hidden_size=8, callbacks=[watch], random_state=0).fit(images[:30])
    >>> [step for step, distance in watch.distances_], watch.best_.sample(3).shape
    ([2, 4], (3, 6, 6))
    """

    def __init__(
        self,
        images: Any,
        *,
        features: Any = None,
        every: int = 500,
        patience: int = 5,
        condition: Any = None,
        steps: str | int = "auto",
        random_state: int = 0,
    ) -> None:
        for name, value in (("every", every), ("patience", patience)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, however: {value!r}.")
        self.images, self.features, self.condition = images, features, condition
        self.every, self.patience, self.steps, self.random_state = every, patience, steps, random_state

    def on_fit_begin(self, training: Training) -> None:
        """Look at the real images."""
        read = read_images(self.images)
        if read is None or len(read) < 2:
            raise ValueError(f"images must be at least two images, however: {type(self.images).__name__}.")
        self._network = as_features(self.features, read, None, 0)
        self._known, self._n = self._network(read), len(read)
        self.distances_: list[tuple[int, float]] = []
        self.best_: DiffusionGenerator | None = None
        self._since = 0

    def on_step_end(self, training: Training) -> bool | None:
        """Draw and compare where it is time."""
        if training.step % self.every or training.snapshot is None:
            return None
        gen = training.snapshot()
        drawn = gen.sample(
            None if self.condition is not None and not isinstance(self.condition, str | int | float) else self._n,
            self.condition,
            steps=self.steps,
            random_state=self.random_state,
        )
        read = read_images(drawn)
        assert read is not None
        distance = frechet_distance(self._known, self._network(read))
        best = min((d for _, d in self.distances_), default=math.inf)
        self.distances_.append((training.step, distance))
        if distance < best:
            self.best_, self._since = gen, 0
        else:
            self._since += 1
        return self._since >= self.patience
