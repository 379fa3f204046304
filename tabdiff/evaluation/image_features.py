"""What images are compared by: features of a small classifier trained on real ones, or principal components."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.io.images import Images
from tabdiff.utils.array_likes import read_array
from tabdiff.utils.seeding import borrowed_rng

__all__ = ["ClassifierFeatures", "ImageFeatures", "PixelFeatures", "as_features"]

BATCH = 128
# Steps of training; few images are seen about twenty times, of many no more are needed for digits.
MIN_STEPS, MAX_STEPS, EPOCHS = 150, 1500, 20
CHUNK = 1024
N_FEATURES = 64


class ImageFeatures(Protocol):
    """What maps images to features: a callable with a name that says which it is."""

    name: str

    def __call__(self, images: Images) -> np.ndarray:
        """Return features (n, k)."""


class PixelFeatures:
    """Principal components of the pixels of real images, for where there are no labels to train a network on.

    Parameters
    ----------
    images : images
        Real ones, at least two, in any form that `DiffusionGenerator.fit` takes.
    """

    def __init__(self, images: Any) -> None:
        self._codec = ImageCodec().fit(images)
        pixels = self._codec.read(images).numpy().astype(np.float64)
        self._mean = pixels.mean(axis=0)
        self._axes = np.linalg.svd(pixels - self._mean, full_matrices=False)[2][:N_FEATURES]
        self.name = f"{len(self._axes)} principal components of the pixels of {len(images)} real images"

    def __call__(self, images: Any) -> np.ndarray:
        """Return the components (n, k)."""
        return (self._codec.read(images).numpy() - self._mean) @ self._axes.T


class ClassifierFeatures:
    """A convolutional classifier trained on real images: 64 features before its last layer, and its labels.

    Parameters
    ----------
    images : images
        Real ones to learn from, in any form that `DiffusionGenerator.fit` takes.
    labels : array-like of shape (n,)
        Their classes.
    random_state : int, default=0
        Of weights and batches.

    Attributes
    ----------
    name : str
        What it was trained on, and a hash of its weights.
    classes : ndarray
        Labels, in order.

    Raises
    ------
    ValueError
        If all labels are the same.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import ClassifierFeatures
    >>> images = np.zeros((20, 4, 4))
    >>> images[10:, :, :2] = 1.0
    >>> features = ClassifierFeatures(images, np.repeat(["dark", "half"], 10))
    >>> features(images).shape, features.predict(images[[0, -1]]).tolist()
    ((20, 64), ['dark', 'half'])
    """

    def __init__(self, images: Any, labels: Any, random_state: int = 0) -> None:
        self._codec = ImageCodec().fit(images)
        self.classes, codes = np.unique(labels, return_inverse=True)
        if len(self.classes) < 2:
            raise ValueError(f"a classifier needs at least two classes; got {self.classes.tolist()}.")
        with borrowed_rng(random_state):
            self._network = _Network(self._codec.size_, len(self.classes))
        self._train(self._codec.encode(images), torch.from_numpy(codes), random_state)
        digest = hashlib.sha256()
        for value in self._network.state_dict().values():
            digest.update(value.numpy().tobytes())
        self.name = (
            f"{N_FEATURES} features of a convolutional classifier of {len(self.classes)} classes, trained on "
            f"{len(images)} real images (weights {digest.hexdigest()[:8]})"
        )

    def _train(self, rows: Any, codes: Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        steps = int(np.clip(EPOCHS * len(codes) // BATCH, MIN_STEPS, MAX_STEPS))
        optimizer = torch.optim.AdamW(self._network.parameters(), lr=3e-3, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        order = torch.empty(0, dtype=torch.long)
        self._network.train()
        for _ in range(steps):
            if len(order) < BATCH:
                order = torch.cat([order, torch.randperm(len(codes), generator=generator)])
            chosen, order = order[:BATCH], order[BATCH:]
            images = self._codec.prepare(rows[chosen]).reshape(-1, *self._codec.size_)
            loss = F.cross_entropy(self._network(images), codes[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        self._network.eval()

    @torch.no_grad()
    def __call__(self, images: Any) -> np.ndarray:
        """Return features (n, 64)."""
        rows = self._codec.read(images).reshape(-1, *self._codec.size_)
        return torch.cat([self._network.features(part) for part in rows.split(CHUNK)]).double().numpy()

    @torch.no_grad()
    def predict(self, images: Any) -> np.ndarray:
        """Return the labels (n,) that images are taken for."""
        rows = self._codec.read(images).reshape(-1, *self._codec.size_)
        codes = torch.cat([self._network(part).argmax(1) for part in rows.split(CHUNK)])
        return self.classes[codes.numpy()]


class _Network(nn.Module):
    def __init__(self, size: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        channels, height, width = size
        stride = 2 if min(height, width) >= 16 else 1
        self.maps = nn.Sequential(
            nn.Conv2d(channels, 32, 5, stride=stride, padding=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d((max(1, height // (2 * stride)), max(1, width // (2 * stride)))),
            nn.Conv2d(64, 96, 3, padding=1),
            nn.BatchNorm2d(96),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(3),
        )
        self.inner = nn.Linear(9 * 96, N_FEATURES)
        self.norm = nn.BatchNorm1d(N_FEATURES)
        self.outer = nn.Linear(N_FEATURES, n_classes)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.inner(self.maps(images).flatten(1))))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.outer(self.features(images))
        return logits


class _Named:
    """A user's callable, given images as they are and named by itself."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.name = str(getattr(function, "name", getattr(function, "__name__", type(function).__name__)))

    def __call__(self, images: Images) -> np.ndarray:
        features = self._features(images)
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(
                f"features must return an array (n, k) for n images; got shape {features.shape} for {len(images)}."
            )
        return features

    def _features(self, images: Images) -> np.ndarray:
        return read_array(self._function(images.array()), "what features returned", np.float64)


class _Module(_Named):
    """A user's network, given pixels in [0, 1] in batches, in evaluation mode and on its own device."""

    def __init__(self, module: nn.Module, images: Images) -> None:
        super().__init__(module)
        self._range = ImageCodec().fit(images).range_

    @torch.no_grad()
    def _features(self, images: Images) -> np.ndarray:
        module = self._function
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        pixels, before = images.array(), module.training
        scale, shift = {"byte": (1 / 255, 0.0), "unit": (1.0, 0.0), "symmetric": (0.5, 0.5)}[self._range]
        module.eval()
        try:
            parts = [
                module(torch.from_numpy(pixels[i : i + BATCH].astype(np.float32)).to(device) * scale + shift)
                for i in range(0, len(images), BATCH)
            ]
        finally:
            module.train(before)
        # Networks that give a list of the maps of several layers, as pytorch-fid's, give one of them here.
        parts = [p[0] if isinstance(p, list | tuple) and len(p) == 1 else p for p in parts]
        if not all(isinstance(part, Tensor) for part in parts):
            raise ValueError(f"features must return one tensor (n, k); got {type(parts[0]).__name__} from {self.name}.")
        return torch.cat(parts).flatten(1).double().cpu().numpy()


def as_features(features: Any, images: Images, labels: np.ndarray | None, random_state: int) -> ImageFeatures:
    """Return what `evaluate` was asked to compare by: by default a classifier, or pixels where there are no labels."""
    if features is not None and not (isinstance(features, str) and features == "auto"):
        if not callable(features):
            raise TypeError(f"features must be a callable of images; got {features!r}.")
        if isinstance(features, nn.Module):
            return _Module(features, images)
        return features if isinstance(features, ClassifierFeatures | PixelFeatures) else _Named(features)
    return PixelFeatures(images) if labels is None else ClassifierFeatures(images, labels, random_state)
