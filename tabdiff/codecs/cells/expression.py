"""The model of continuous expression behind `CellCodec`: log-normalised, scaled or bulk values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tabdiff.codecs.cells.classes import CellClasses
from tabdiff.io.expression import CHUNK, dense_rows

CLASS_CELLS = 2.0  # cells of prior for a class's mean, at the additive mean
OWN_QUANTILES = 25  # cells from which a class has quantiles of its own
N_KNOTS = 129
SPIKE = 0.05  # share of one exact value from which it is reproduced exactly
PCA_CELLS = 5000
MAX_VIEW = 50  # principal components that `latent` returns at most


class MarginalQuantiles:
    """Quantile functions of genes, in which values of heavy weight (zeros above all) are exact steps.

    Parameters
    ----------
    values : float array (n, n_genes)
        Observed values.
    """

    def __init__(self, values: np.ndarray) -> None:
        n = len(values)
        ordered = np.sort(values, axis=0)
        self.knots = np.quantile(ordered, np.linspace(0, 1, N_KNOTS), axis=0, method="linear").astype(np.float32)
        # The heaviest value of a gene: the longest run in sorted order.
        change = np.ones_like(ordered, dtype=bool)
        change[1:] = ordered[1:] != ordered[:-1]
        position = np.arange(n)[:, None]
        start = np.maximum.accumulate(np.where(change, position, 0), axis=0)
        end = np.argmax(position - start, axis=0)
        genes = np.arange(values.shape[1])
        first = start[end, genes]
        run = end - first + 1
        heavy = (run > 1) & (run >= SPIKE * n)
        self.spike = np.where(heavy, ordered[end, genes], np.nan).astype(np.float32)
        # A spike at an end of the range takes everything beyond it.
        self.low = np.where(heavy, np.where(first > 0, first / n, -1.0), 3.0).astype(np.float32)
        self.high = np.where(heavy, np.where(end < n - 1, (end + 1) / n, 2.0), 3.0).astype(np.float32)
        self.below = ordered[np.maximum(first - 1, 0), genes].astype(np.float32)
        self.above = ordered[np.minimum(end + 1, n - 1), genes].astype(np.float32)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Values (n, n_genes) float32 at probabilities u in [0, 1]."""
        at = np.clip(u, 0, 1) * (N_KNOTS - 1)
        lower = np.minimum(at.astype(np.int64), N_KNOTS - 2)
        fraction = (at - lower).astype(np.float32)
        genes = np.arange(self.knots.shape[1])
        a, b = self.knots[lower, genes], self.knots[lower + 1, genes]
        out = a + fraction * (b - a)
        heavy = self.low < 3.0
        out = np.where(heavy & (u < self.low), np.minimum(out, self.below), out)
        out = np.where(heavy & (u >= self.high), np.maximum(out, self.above), out)
        return np.where((u >= self.low) & (u < self.high), self.spike, out).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        return {k: getattr(self, k) for k in ("knots", "spike", "low", "high", "below", "above")}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MarginalQuantiles:
        """Inverse of :meth:`state`."""
        self = cls.__new__(cls)
        for key in ("knots", "spike", "low", "high", "below", "above"):
            setattr(self, key, np.asarray(state[key]))
        return self


class ExpressionModel:
    r"""Class means, whitened principal components of what is left, noise per gene, and calibrated marginals.

    With standardised values :math:`e_{ig} = (x_{ig} - m_g) / s_g`, the model is

    .. math:: e_i = \mu_{c(i)} + B y_i + W z_i + \sigma \odot \epsilon_i,

    a probabilistic PCA (Tipping and Bishop, 1999) around the mean of the class c and the linear effect of the
    continuous attributes y. Draws are ranked among simulated ones and given the value of that rank in the data,
    per class where it has enough cells.
    """

    def __init__(self, *, n_latent: int | None = None) -> None:
        self.n_latent = n_latent

    def fit(
        self,
        matrix: Any,
        condition: Tensor | None,
        levels: Sequence[int],
        *,
        generator: torch.Generator,
        device: torch.device,
        max_time: float | None = None,
        callback: Callable[[dict[str, float | int | str]], object] | None = None,
    ) -> ExpressionModel:
        """Learn from a matrix of cells × genes with their encoded condition (n, k); see `CellCodec.fit`."""
        n_cells, self.n_genes = matrix.shape
        self.levels = [int(n) for n in levels]
        self.classes = CellClasses(condition, levels, n_cells)
        self._fit_scale(matrix)
        self._fit_offsets(matrix, condition)
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        rows = np.sort(rng.permutation(n_cells)[:PCA_CELLS])
        residual = self._residual(
            dense_rows(matrix, rows), self.classes.training[rows], self._smooth(condition, n_cells)[rows]
        )
        self._fit_components(residual, rng)
        self._sample_rows(matrix, condition, rng)
        data = self.encode(matrix, condition, generator)
        self.classes.set_latents(data.numpy())
        self._fit_view(data, condition, generator)
        self.calibrate(data, condition, generator)
        return self

    def _fit_view(self, data: Tensor, condition: Tensor | None, generator: torch.Generator) -> None:
        """Principal components of the expected values of training cells, between and within classes."""
        from sklearn.utils.extmath import randomized_svd

        rows = torch.randperm(len(data), generator=generator)[:PCA_CELLS].sort().values
        chosen = None if condition is None else condition[rows]
        expected = np.concatenate(list(self._expected(data[rows], chosen, generator)))
        rank = min(self.n_features + len(self.classes) - 1, MAX_VIEW, *expected.shape)
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        _, _, axes = randomized_svd(expected, rank, random_state=seed)
        self.view_axes = axes.astype(np.float32)

    def _fit_scale(self, matrix: Any) -> None:
        n, total, square = matrix.shape[0], np.zeros(self.n_genes), np.zeros(self.n_genes)
        for start in range(0, n, CHUNK):
            total += dense_rows(matrix, slice(start, start + CHUNK)).sum(axis=0, dtype=np.float64)
        mean = total / n
        for start in range(0, n, CHUNK):
            square += np.square(dense_rows(matrix, slice(start, start + CHUNK)) - mean).sum(axis=0)
        self.mean = mean.astype(np.float32)
        scale = np.sqrt(square / n)
        self.constant = scale <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
        self.scale = np.where(self.constant, 1.0, scale).astype(np.float32)

    def _smooth(self, condition: Tensor | None, n: int) -> np.ndarray:
        """Continuous attributes (n, k), null as the mean."""
        columns = [j for j, size in enumerate(self.levels) if size == 0]
        if condition is None or not columns:
            return np.zeros((n, len(columns)), dtype=np.float32)
        return np.nan_to_num(condition.detach().cpu().numpy()[:, columns].astype(np.float32))

    def _fit_offsets(self, matrix: Any, condition: Tensor | None) -> None:
        """Additive effects by ridge regression on levels and continuous attributes, then a mean per class."""
        classes, n = self.classes, matrix.shape[0]
        sizes = [self.levels[j] + 1 for j in classes.columns]
        self.effect_start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        smooth = self._smooth(condition, n)
        hot = np.zeros((len(classes), int(self.effect_start[-1])), dtype=np.float32)
        for j, start in enumerate(self.effect_start[:-1]):
            hot[np.arange(len(classes)), start + classes.codes[:, j]] = 1
        gram = np.zeros((hot.shape[1] + smooth.shape[1],) * 2)
        moment = np.zeros((len(gram), self.n_genes))
        sums = np.zeros((len(classes), self.n_genes))
        smooth_sums = np.zeros((len(classes), smooth.shape[1]))
        for start in range(0, n, CHUNK):
            part = slice(start, start + CHUNK)
            x = (dense_rows(matrix, part) - self.mean) / self.scale
            index = classes.training[part]
            design = np.concatenate([hot[index], smooth[part]], axis=1).astype(np.float64)
            gram += design.T @ design
            moment += design.T @ x
            np.add.at(sums, index, x)
            np.add.at(smooth_sums, index, smooth[part])
        ridge = np.linalg.solve(gram + np.eye(len(gram)), moment) if len(gram) else moment
        n_hot = hot.shape[1]
        self.effects, self.slopes = ridge[:n_hot].astype(np.float32), ridge[n_hot:].astype(np.float32)
        additive = hot @ self.effects
        count = classes.counts[:, None]
        rest = sums - smooth_sums @ self.slopes
        prior = CLASS_CELLS if len(sizes) > 1 else 0.0
        self.class_mean = ((rest + prior * additive) / (count + prior)).astype(np.float32)

    def _offset(self, index: np.ndarray, codes: np.ndarray, smooth: np.ndarray) -> np.ndarray:
        out = self.class_mean[np.maximum(index, 0)]
        unseen = np.flatnonzero(index < 0)
        if len(unseen):
            out[unseen] = sum(self.effects[s + codes[unseen, j]] for j, s in enumerate(self.effect_start[:-1]))
        return out + smooth @ self.slopes

    def _residual(self, x: np.ndarray, index: np.ndarray, smooth: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.scale - self.class_mean[index] - smooth @ self.slopes

    def _fit_components(self, residual: np.ndarray, rng: np.random.Generator) -> None:
        from sklearn.utils.extmath import randomized_svd

        n, limit = len(residual), min(residual.shape)
        rank = self.n_latent or int(np.clip(min(n - 1, self.n_genes - 1, n // 4 + 1), 1, 64))
        rank = min(rank, limit)
        _, singular, axes = randomized_svd(residual, rank, random_state=int(rng.integers(2**31)), n_oversamples=10)
        spread = singular / np.sqrt(n)
        self.axes = (axes * (spread > 1e-6)[:, None]).astype(np.float32)
        self.spread = np.maximum(spread, 1e-6).astype(np.float32)
        left = residual - (residual @ self.axes.T) @ self.axes
        self.noise = left.std(axis=0).astype(np.float32)
        self.n_features = rank

    def _sample_rows(self, matrix: Any, condition: Tensor | None, rng: np.random.Generator) -> None:
        """Quantiles of the data: per class with enough cells, and of standardised residuals for the others."""
        n = matrix.shape[0]
        self.quantiles: list[MarginalQuantiles | None] = []
        for c, count in enumerate(self.classes.counts):
            rows = np.flatnonzero(self.classes.training == c)
            if count < OWN_QUANTILES:
                self.quantiles.append(None)
                continue
            rows = np.sort(rng.permutation(rows)[:PCA_CELLS])
            self.quantiles.append(MarginalQuantiles(dense_rows(matrix, rows)))
        rows = np.sort(rng.permutation(n)[:PCA_CELLS])
        self.pooled = MarginalQuantiles(dense_rows(matrix, rows))

    def encode(self, matrix: Any, condition: Tensor | None, generator: torch.Generator) -> Tensor:
        """Whitened principal components (n_cells, n_features) float32."""
        n = matrix.shape[0]
        _, index, codes = self.classes.resolve(condition, torch.zeros(n, self.n_features), generator)
        smooth = self._smooth(condition, n)
        parts = []
        for start in range(0, n, CHUNK):
            part = slice(start, start + CHUNK)
            x = (dense_rows(matrix, part) - self.mean) / self.scale
            residual = x - self._offset(index[part], codes[part], smooth[part])
            parts.append(torch.from_numpy(((residual @ self.axes.T) / self.spread).astype(np.float32)))
        return torch.cat(parts)

    def _draw(
        self,
        data: Tensor,
        condition: Tensor | None,
        index: np.ndarray,
        codes: np.ndarray,
        generator: torch.Generator,
    ) -> np.ndarray:
        z = data.to(torch.float32).numpy() * self.spread
        eps = torch.randn(len(data), self.n_genes, generator=generator).numpy()
        return self._offset(index, codes, self._smooth(condition, len(data))) + z @ self.axes + eps * self.noise

    def calibrate(self, data: Tensor, condition: Tensor | None, generator: torch.Generator) -> None:
        """Remember the distribution of uncalibrated draws at latents `data`, per class and overall."""
        limit = torch.randperm(len(data), generator=generator)[: 4 * PCA_CELLS]
        data, condition = data[limit], None if condition is None else condition[limit]
        condition, index, codes = self.classes.resolve(condition, data, generator)
        draws = self._draw(data, condition, index, codes, generator).astype(np.float32)
        grid = np.linspace(0, 1, N_KNOTS)
        self.model_pooled = np.quantile(draws, grid, axis=0).astype(np.float32)
        self.model_class: list[np.ndarray | None] = []
        for c, own in enumerate(self.quantiles):
            rows = index == c
            usable = own is not None and rows.sum() >= OWN_QUANTILES
            self.model_class.append(np.quantile(draws[rows], grid, axis=0).astype(np.float32) if usable else None)

    def decode(self, data: Tensor, condition: Tensor | None, generator: torch.Generator) -> np.ndarray:
        """Values (n, n_genes) float32 for whitened components."""
        out = np.empty((len(data), self.n_genes), dtype=np.float32)
        condition, index, codes = self.classes.resolve(condition, data, generator)
        for start in range(0, len(data), CHUNK):
            part = slice(start, start + CHUNK)
            y = None if condition is None else condition[part]
            draws = self._draw(data[part], y, index[part], codes[part], generator)
            block = out[part]
            for c in np.unique(index[part]):
                rows = index[part] == c
                own, model = (self.quantiles[c], self.model_class[c]) if c >= 0 else (None, None)
                if own is None or model is None:
                    own, model = self.pooled, self.model_pooled
                block[rows] = own(_rank(draws[rows], model))
        out[:, self.constant] = self.mean[self.constant]
        return out

    def _expected(self, data: Tensor, condition: Tensor | None, generator: torch.Generator) -> Iterator[np.ndarray]:
        """Standardised values without noise at whitened components, some rows at a time."""
        condition, index, codes = self.classes.resolve(condition, data, generator)
        for start in range(0, len(data), CHUNK):
            part = slice(start, start + CHUNK)
            smooth = self._smooth(None if condition is None else condition[part], len(data[part]))
            z = data[part].to(torch.float32).numpy() * self.spread
            yield self._offset(index[part], codes[part], smooth) + z @ self.axes

    def view(self, matrix: Any, condition: Tensor | None) -> np.ndarray:
        """Cells (n, k) float32 as principal components of their expected values."""
        data = self.encode(matrix, condition, torch.Generator().manual_seed(0))
        return self.view_latents(data, condition, torch.Generator().manual_seed(0))

    def view_latents(self, data: Tensor, condition: Tensor | None, generator: torch.Generator) -> np.ndarray:
        """The same (n, k) for whitened components."""
        parts = [part @ self.view_axes.T for part in self._expected(data, condition, generator)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.view_axes)), dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        state: dict[str, Any] = {
            k: getattr(self, k)
            for k in (
                "n_latent",
                "levels",
                "n_genes",
                "mean",
                "scale",
                "constant",
                "effect_start",
                "effects",
                "slopes",
                "class_mean",
                "axes",
                "spread",
                "noise",
                "n_features",
                "model_pooled",
                "view_axes",
            )
        }
        state["classes"] = self.classes.state()
        state["pooled"] = self.pooled.state()
        state["quantiles"] = {str(c): q.state() for c, q in enumerate(self.quantiles) if q is not None}
        state["model_class"] = {str(c): q for c, q in enumerate(self.model_class) if q is not None}
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ExpressionModel:
        """Inverse of :meth:`state`."""
        self = cls(n_latent=state["n_latent"])
        for key, value in state.items():
            if key not in ("classes", "pooled", "quantiles", "model_class"):
                setattr(self, key, value)
        self.classes = CellClasses.from_state(state["classes"])
        self.pooled = MarginalQuantiles.from_state(state["pooled"])
        own, model = state["quantiles"], state["model_class"]
        n = range(len(self.classes))
        self.quantiles = [MarginalQuantiles.from_state(own[str(c)]) if str(c) in own else None for c in n]
        self.model_class = [model.get(str(c)) for c in n]
        return self


def _rank(draws: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Probability of each draw (n, n_genes) under the quantile function with `knots` (N_KNOTS, n_genes)."""
    u = np.empty_like(draws)
    grid = np.linspace(0, 1, len(knots))
    for g in range(draws.shape[1]):
        u[:, g] = np.interp(draws[:, g], knots[:, g], grid)
    return u
