"""The model of count matrices behind `CellCodec`: per-class negative binomials plus a small latent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tabdiff.codecs.cells.autoencoder_training import SVD_CELLS, start_loadings, train
from tabdiff.codecs.cells.blocks import Blocks
from tabdiff.codecs.cells.calibration import CountCalibration
from tabdiff.codecs.cells.classes import CellClasses
from tabdiff.codecs.cells.depth import at_depth, draw_log_library
from tabdiff.codecs.cells.effects import CombinationEffects
from tabdiff.codecs.cells.rates import ClassRates, fit_dispersion, overdispersed_genes
from tabdiff.io.expression import CHUNK, block_rows, dense_rows
from tabdiff.nn.count_autoencoder import CountAutoencoder
from tabdiff.nn.negative_binomial import nb_sample
from tabdiff.utils.array_likes import MAX_EXACT
from tabdiff.utils.memory import tensor_of

# Dispersion fitted without latents counts as noise what the latents should explain: start at less noise.
START_THETA = 5.0
MAX_INPUT_GENES = 2000
# Counts, zeros included, that are drawn to calibrate marginals, and of how many cells at least and at most; fewer for a
# fit's own calibration, which one against cells drawn by the diffusion follows.
CALIBRATION_VALUES, CALIBRATION_CELLS = 100_000_000, (4000, 20_000)
OWN_CALIBRATION_VALUES, OWN_CALIBRATION_CELLS = 20_000_000, (2000, 20_000)
SCALE_CELLS = 10_000  # from which the means and spreads of latents are taken
MAX_VIEW = 50  # principal components that `latent` returns at most
# Log rates and log inverse dispersions of combinations of levels that training never showed.
Offsets = dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]
MIN_GAIN = 0.02  # share of the prior's variance that the data must settle for a latent dimension to be kept


class CountModel:
    """Negative-binomial autoencoder with class offsets, calibrated marginals and library size as a latent.

    Genes may come in blocks, those of several modalities, that have a library size each. The latents of a cell are
    those of all blocks together.

    Parameters
    ----------
    n_latent : int, optional
        Latent dimensions; by default they follow the number of cells and genes.
    blocks : sequence of int, optional
        Number of genes in each block; by default all genes are one.

    Attributes
    ----------
    classes : CellClasses
    rates : ClassRates
    effects : list of CombinationEffects
        Of each block; empty where every combination of classes was seen.
    n_features : int
        Length of the encoded vector: active latents and, for each block, log library size.
    """

    def __init__(self, *, n_latent: int | None = None, blocks: Sequence[int] | None = None) -> None:
        self.n_latent = n_latent
        self.blocks = Blocks([] if blocks is None else blocks)

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
    ) -> CountModel:
        """Learn from a matrix of cells × genes with their encoded condition (n, k); see `CellCodec.fit`."""
        n_cells, n_genes = matrix.shape
        self.levels = [int(n) for n in levels]
        self.classes = CellClasses(condition, levels, n_cells)
        self.blocks = self.blocks if len(self.blocks) else Blocks([n_genes])
        self.library = np.maximum(self.blocks.totals(matrix), 0.5)
        self.blocks.judge(self.library)
        self.n_genes = n_genes
        log_theta, genes = self._fit_rates(matrix)
        limit = int(min(round(2 * n_cells ** (1 / 3)), 16 if n_cells < 10_000 else 24, n_genes // 2, n_cells // 3))
        model = CountAutoencoder(
            torch.as_tensor(self.rates.class_log_rate),
            torch.as_tensor(np.maximum(log_theta, math.log(START_THETA))),
            self.levels,
            torch.as_tensor(genes),
            n_latent=max(1, self.n_latent or limit),
            generator=generator,
            blocks=self.blocks.sizes,
        )
        start = self.classes.training, self.rates.class_log_rate, self.library
        start_loadings(model, matrix, *start, self.blocks, generator)
        self.model = model.to(device)
        self.history = train(self.model, matrix, self.classes.training, condition, generator, max_time, callback)
        self._standardise(matrix, condition, generator)
        self.model.to("cpu").requires_grad_(False)
        data = self.encode(matrix, condition, generator)
        self.classes.set_latents(data.numpy())
        self._fit_spread(data.numpy())
        largest = matrix.max(axis=0)
        maxima = np.asarray(largest.toarray() if sparse.issparse(largest) else largest).reshape(-1).astype(np.int64)
        self.silent = np.flatnonzero(maxima == 0)
        self.calibration = CountCalibration(len(self.classes), maxima)
        for rows in np.array_split(np.arange(n_cells), max(1, -(-n_cells // block_rows(n_genes)))):
            self.calibration.observe(matrix[rows], self.classes.training[rows])
        most = int(np.clip(OWN_CALIBRATION_VALUES // n_genes, *OWN_CALIBRATION_CELLS))
        repeats = int(np.clip(most // n_cells, 1, 5))
        if repeats > 1:
            data = torch.cat([data, self.encode(matrix, condition, generator, n_copies=repeats - 1)])
        self.calibrate(data, None if condition is None else condition.repeat(repeats, 1), generator, most)
        self.library = self.library.astype(np.float32)
        self.library_class = self.classes.training.astype(np.int32)
        self._fit_view(matrix, condition, generator)
        return self

    def _fit_rates(self, matrix: Any) -> tuple[np.ndarray, np.ndarray]:
        """Fit the rates of each block; log inverse dispersions of all, and the genes that the encoder reads."""
        rates, effects, dispersions, genes = [], [], [], []
        for own, library in zip(self.blocks.columns, self.blocks.each(self.library), strict=True):
            part = matrix if len(self.blocks) == 1 else matrix[:, own]
            rates.append(ClassRates(part, self.classes, library))
            if CombinationEffects.wanted(self.classes):
                effects.append(CombinationEffects(part, self.classes, library))
            dispersions.append(fit_dispersion(part, self.classes, library, rates[-1].class_log_rate))
            genes.append(own.start + overdispersed_genes(part, MAX_INPUT_GENES))
        self.rates, self.effects = ClassRates.joined(rates), effects
        return np.concatenate(dispersions, axis=1), np.concatenate(genes)

    def _fit_view(self, matrix: Any, condition: Tensor | None, generator: torch.Generator) -> None:
        """Principal components of the expected log rates of training cells, between and within classes."""
        from sklearn.utils.extmath import randomized_svd

        rows = torch.randperm(matrix.shape[0], generator=generator)[:SVD_CELLS].sort().values
        chosen = None if condition is None else condition[rows]
        log_rate = np.concatenate(list(self._expected(*self._locate(matrix[rows.numpy()], chosen))))
        self.view_mean = log_rate.mean(axis=0)
        rank = max(1, min(len(self.active) + len(self.classes) - 1, MAX_VIEW, *log_rate.shape))
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        _, _, axes = randomized_svd(log_rate - self.view_mean, rank, random_state=seed)
        self.view_axes = axes.astype(np.float32)

    def _locate(self, matrix: Any, condition: Tensor | None) -> tuple[Tensor, Tensor | None, np.ndarray, np.ndarray]:
        """Posterior means of all latent dimensions, and the completed condition, class and levels of each cell."""
        generator = torch.Generator().manual_seed(0)
        blank = torch.zeros(matrix.shape[0], self.n_features)
        condition, index, codes = self.classes.resolve(condition, blank, generator)
        nearest = np.where(index < 0, self.classes.nearest(codes), index) if (index < 0).any() else index
        _, mean, _ = self._sample(matrix, nearest, condition, generator)
        z = torch.zeros_like(mean)
        z[:, self.active] = mean[:, self.active]
        return z, condition, index, codes

    def _expected(
        self, z: Tensor, condition: Tensor | None, index: np.ndarray, codes: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Log rates of the genes that the encoder reads, some rows at a time."""
        genes = self.model.input_features.numpy()
        for start in range(0, len(z), CHUNK):
            part = slice(start, start + CHUNK)
            y = None if condition is None else condition[part]
            yield self._rates(z[part], y, index[part], codes[part])[0].numpy()[:, genes]

    def view(self, matrix: Any, condition: Tensor | None) -> np.ndarray:
        """Cells (n, k) float32 as principal components of their expected log rates."""
        return self._project(*self._locate(matrix, condition))

    def view_latents(self, data: Tensor, condition: Tensor | None, generator: torch.Generator) -> np.ndarray:
        """The same (n, k) for standardised latents."""
        condition, index, codes = self.classes.resolve(condition, data, generator)
        return self._project(self._latent(data), condition, index, codes)

    def _project(self, z: Tensor, condition: Tensor | None, index: np.ndarray, codes: np.ndarray) -> np.ndarray:
        parts = [(x - self.view_mean) @ self.view_axes.T for x in self._expected(z, condition, index, codes)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.view_axes)), dtype=np.float32)

    def training_totals(self, condition: Tensor | None, n: int, generator: torch.Generator) -> np.ndarray:
        """Total counts (n,) int64 of training cells, drawn from each row's class; from all for unseen ones.

        Of several blocks they are those of each, (n, n_blocks).
        """
        blank = torch.zeros(n, self.n_features)
        _, index, _ = self.classes.resolve(condition, blank, generator)
        out = np.empty((n, *self.library.shape[1:]), dtype=np.int64)
        for c in np.unique(index):
            pool = self.library[self.library_class == c] if c >= 0 else self.library
            rows = np.flatnonzero(index == c)
            drawn = torch.randint(len(pool), (len(rows),), generator=generator).numpy()
            out[rows] = np.rint(pool[drawn])
        return out

    @torch.no_grad()
    def _sample(
        self, matrix: Any, index: np.ndarray, condition: Tensor | None, generator: torch.Generator, n_copies: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior samples (n_copies, n_cells, n_latent), means and variances, each (n_cells, n_latent)."""
        draws, means, variances = [], [], []
        device, genes = self.model.class_log_rate.device, self.model.input_features.cpu().numpy()
        for start in range(0, matrix.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            read = matrix[part]
            read = read if len(genes) == self.n_genes else read[:, genes]  # the encoder reads no others
            counts = tensor_of(dense_rows(read, slice(None))).to(device)
            y = None if condition is None else condition[part].to(device, torch.float32)
            rows = torch.as_tensor(index[part], device=device)
            mean, cholesky = self.model.posterior(counts, rows, y)
            eps = torch.randn((n_copies, *mean.shape), generator=generator).to(device).permute(1, 2, 0)
            z = mean[:, :, None] + torch.linalg.solve_triangular(cholesky.mT, eps, upper=True)
            draws.append(z.permute(2, 0, 1).cpu())
            means.append(mean.cpu())
            variances.append(torch.diagonal(torch.cholesky_inverse(cholesky), dim1=1, dim2=2).cpu())
        return torch.cat(draws, dim=1), torch.cat(means), torch.cat(variances)

    def _standardise(self, matrix: Any, condition: Tensor | None, generator: torch.Generator) -> None:
        index = self.classes.training
        if len(index) > SCALE_CELLS:  # where all lie is found once, by `encode`: it takes as long as training
            some = torch.randperm(len(index), generator=generator)[:SCALE_CELLS].sort().values
            condition = None if condition is None else condition[some]
            matrix, index = matrix[some.numpy()], index[some.numpy()]
        _, means, variances = (z.numpy() for z in self._sample(matrix, index, condition, generator))
        self.active = np.flatnonzero(1 - variances.mean(axis=0) > MIN_GAIN)
        means, variances = means[:, self.active], variances[:, self.active]
        depths = self.blocks.each(np.log(self.library))
        spread = np.sqrt(means.var(axis=0) + variances.mean(axis=0))
        self.center = np.append(means.mean(axis=0), [d.mean() for d in depths]).astype(np.float32)
        self.scale = np.append(spread, [max(float(d.std()), 0.05) for d in depths]).astype(np.float32)
        self.n_features = len(self.active) + len(self.blocks)

    def encode(self, matrix: Any, condition: Tensor | None, generator: torch.Generator, *, n_copies: int = 1) -> Tensor:
        """Posterior samples and log library size, standardised: (n_copies * n_cells, n_features) float32."""
        blank = torch.zeros(matrix.shape[0], self.n_features)
        condition, index, codes = self.classes.resolve(condition, blank, generator)
        nearest = np.where(index < 0, self.classes.nearest(codes), index) if (index < 0).any() else index
        draws, _, _ = self._sample(matrix, nearest, condition, generator, n_copies)
        total = np.log(np.maximum(self.blocks.totals(matrix), 0.5)).reshape(matrix.shape[0], -1)
        parts = []
        for z in draws:
            depth = total
            if any(self.blocks.uncertain):
                depth = self._draw_depths(matrix, total, z, condition, index, codes, generator)
            parts.append(torch.cat([z[:, self.active], torch.as_tensor(depth, dtype=torch.float32)], dim=1))
        return (torch.cat(parts) - torch.as_tensor(self.center)) / torch.as_tensor(self.scale)

    def _draw_depths(
        self,
        matrix: Any,
        depth: np.ndarray,
        z: Tensor,
        condition: Tensor | None,
        index: np.ndarray,
        codes: np.ndarray,
        generator: torch.Generator,
    ) -> np.ndarray:
        """Log library sizes (n, n_blocks), those that are uncertain drawn given counts and latents; see `Blocks`."""
        depth, size = depth.copy(), block_rows(self.n_genes)
        for start in range(0, len(z), size):
            part = slice(start, start + size)
            y = None if condition is None else condition[part]
            log_rate, log_theta = self._rates(z[part], y, index[part], codes[part])
            counts = torch.from_numpy(dense_rows(matrix, part).copy())
            for b in np.flatnonzero(self.blocks.uncertain).tolist():
                own = self.blocks.columns[b]
                known = counts[:, own], log_rate[:, own], log_theta[:, own]
                depth[part, b] = draw_log_library(*known, *self.depth_prior(b), generator)
        return depth

    def _fit_spread(self, data: np.ndarray) -> None:
        """Covariance (n_features, n_features) of encoded training cells within their classes, for several blocks."""
        self.spread = None
        if len(self.blocks) > 1 and self.classes.means is not None:
            centred = data - self.classes.means[self.classes.training]
            self.spread = (centred.T @ centred / len(data) + 1e-3 * np.eye(data.shape[1])).astype(np.float32)

    def depth_prior(self, block: int) -> tuple[float, float]:
        """Mean and standard deviation of the log library sizes of a block."""
        place = len(self.active) + block
        return float(self.center[place]), float(self.scale[place])

    @torch.no_grad()
    def _rates(
        self,
        z: Tensor,
        condition: Tensor | None,
        index: np.ndarray,
        codes: np.ndarray,
        offsets: Offsets | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log rates and log inverse dispersions (n, n_genes) at latents z (n, n_latent)."""
        rows = torch.as_tensor(np.where(index < 0, 0, index))
        log_rate = self.model.offset(rows)
        log_theta = self.model.log_theta(rows)
        unseen = np.flatnonzero(index < 0)
        if len(unseen):
            log_rate[unseen] = torch.as_tensor(self.rates.additive(codes[unseen]))
            log_theta[unseen] = self.model.log_theta(torch.as_tensor(self.classes.nearest(codes[unseen])))
            for key, (rate, theta) in (offsets or {}).items():
                own = unseen[(codes[unseen] == np.array(key)).all(axis=1)]
                log_rate[own], log_theta[own] = torch.from_numpy(rate), torch.from_numpy(theta)
        return self.model.log_rate(z, log_rate, condition), log_theta

    def _raw(self, data: Tensor) -> Tensor:
        return data.to(torch.float32) * torch.as_tensor(self.scale) + torch.as_tensor(self.center)

    def _latent(self, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """All latent dimensions; those that the data do not settle are drawn from their prior, or zero."""
        shape = (len(data), self.model.n_latent)
        z = torch.zeros(shape) if generator is None else torch.randn(shape, generator=generator)
        z[:, self.active] = self._raw(data)[:, : len(self.active)]
        return z

    def _draw(
        self,
        data: Tensor,
        condition: Tensor | None,
        index: np.ndarray,
        codes: np.ndarray,
        generator: torch.Generator,
        offsets: Offsets | None = None,
    ) -> tuple[np.ndarray, Tensor, Tensor]:
        """Counts (n, n_genes) of the autoencoder at standardised latents, before calibration; their means and log θ."""
        z = self._latent(data, generator)
        log_rate, log_theta = self._rates(z, condition, index, codes, offsets)
        depth = self._raw(data)[:, len(self.active) :]
        if len(self.blocks) > 1:
            depth = depth.repeat_interleave(torch.tensor(self.blocks.sizes), dim=1)
        mean = torch.exp(log_rate + depth).clamp(max=MAX_EXACT)
        # What float32 holds at most is far beyond what an integer does.
        counts = nb_sample(mean, log_theta, generator).clamp(max=MAX_EXACT)
        return counts.numpy().astype(np.int64), mean, log_theta

    @torch.no_grad()
    def predict_offsets(self, data: Tensor, condition: Tensor) -> Offsets:
        """Log rates and log inverse dispersions of combinations that training never showed.

        The rates are such that cells at these latents have, in the mean, the shares that are predicted.

        Parameters
        ----------
        data : Tensor (n, n_features)
            Latents drawn under the conditions.
        condition : Tensor (n, k)

        Returns
        -------
        dict
            From levels to two float32 arrays (n_genes,); empty where nothing is predicted.
        """
        out: Offsets = {}
        if not self.effects:
            return out
        for key, rows in self.classes.unseen(condition).items():
            codes = np.array(key)
            additive = self.rates.additive(codes[None])[0].astype(np.float64)
            parts = []
            for own, effects in zip(self.blocks.columns, self.effects, strict=True):
                share = torch.from_numpy(effects(codes, additive[own])).clamp_min(1e-8)
                parts.append(share / share.sum())
            wanted = torch.cat(parts)
            z, y = self._latent(data[rows]), condition[rows]
            log_rate = wanted.log()
            for _ in range(3):  # the softmax makes it more than one step
                mean = torch.zeros(self.n_genes)
                for start in range(0, len(z), CHUNK):
                    part = slice(start, start + CHUNK)
                    offset = log_rate.expand(len(z[part]), -1)
                    mean += self.model.log_rate(z[part], offset, y[part]).exp().sum(dim=0) / len(z)
                log_rate = log_rate + wanted.log() - mean.clamp_min(1e-12).log()
            out[key] = (log_rate.numpy(), self._dispersion(codes))
        return out

    def _dispersion(self, codes: np.ndarray) -> np.ndarray:
        """Log inverse dispersions (n_genes,) of an unseen combination: those where the gene was counted most."""
        near = np.flatnonzero((self.classes.codes == codes).any(axis=1))
        near = np.arange(len(self.classes)) if len(near) == 0 else near
        log_theta = self.model.log_theta(torch.from_numpy(near)).numpy()
        weight = np.exp(self.rates.class_log_rate[near]) * self.classes.counts[near, None]
        return -np.log((weight * np.exp(-log_theta)).sum(axis=0) / weight.sum(axis=0)).astype(np.float32)

    @property
    def calibration_cells(self) -> int:
        """Number of cells that `calibrate` draws at most: of more, it would take longer than the rest of a fit."""
        return int(np.clip(CALIBRATION_VALUES // self.n_genes, *CALIBRATION_CELLS))

    def calibrate(
        self, data: Tensor, condition: Tensor | None, generator: torch.Generator, most: int | None = None
    ) -> None:
        """Fit the marginal calibration to counts simulated at latents `data` (n, n_features), or `most` of them."""
        most = self.calibration_cells if most is None else most
        if len(data) > most:
            some = torch.randperm(len(data), generator=generator)[:most].sort().values
            data, condition = data[some], None if condition is None else condition[some]
        size = block_rows(self.n_genes)

        def simulate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, len(data), size):
                part = slice(start, start + size)
                y = None if condition is None else condition[part]
                y, index, codes = self.classes.resolve(y, data[part], generator)
                counts, _, _ = self._draw(data[part], y, index, codes, generator)
                yield counts[index >= 0], index[index >= 0]

        self.calibration.fit(simulate())

    def decode(
        self,
        data: Tensor,
        condition: Tensor | None,
        generator: torch.Generator,
        totals: np.ndarray | None = None,
        offsets: Offsets | None = None,
    ) -> sparse.csr_matrix:
        """Counts (n, n_genes) CSR for standardised latents, of the given totals (n,) if there are any.

        `offsets` are those of `predict_offsets`. Counts are int32, or int64 where some are larger than that holds.
        """
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        parts = []
        size = block_rows(self.n_genes)
        for start in range(0, len(data), size):
            part = slice(start, start + size)
            y, index, codes = self.classes.resolve(
                None if condition is None else condition[part], data[part], generator
            )
            counts, mean, log_theta = self._draw(data[part], y, index, codes, generator, offsets)
            rows = np.where(index < 0, self.classes.nearest(codes), index) if (index < 0).any() else index
            # What no class shows is not to be cut off at the largest counts of another.
            for key in offsets or {}:
                rows = np.where((codes == np.array(key)).all(axis=1), -1, rows)
            counts = self.calibration(counts, rows, rng)
            counts[:, self.silent] = 0
            if totals is not None:
                # After calibration, which holds at the depths of training alone.
                wanted = zip(self.blocks.columns, self.blocks.each(totals[part]), strict=True)
                for own, total in wanted:
                    known = mean[:, own], log_theta[:, own], np.isin(np.arange(self.n_genes)[own], self.silent)
                    counts[:, own] = at_depth(counts[:, own], total, *known, rng, generator)
            fits = counts.max(initial=0) <= np.iinfo(np.int32).max
            parts.append(sparse.csr_matrix(counts.astype(np.int32 if fits else np.int64)))
        return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, self.n_genes), dtype=np.int32)

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        state: dict[str, Any] = {k: getattr(self, k) for k in _PLAIN}
        if len(self.blocks) > 1:
            state |= {"blocks": self.blocks.sizes, "uncertain": self.blocks.uncertain, "spread": self.spread}
        state["classes"] = self.classes.state()
        state["rates"] = self.rates.state()
        for b, effects in enumerate(self.effects):
            state[f"effects_{b}" if b else "effects"] = effects.state()
        state["calibration"] = self.calibration.state()
        state["weights"] = {k: v.detach().cpu().numpy() for k, v in self.model.state_dict().items()}
        state["hidden_size"] = self.model.hidden_size
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CountModel:
        """Inverse of :meth:`state`."""
        self = cls(n_latent=state["n_latent"], blocks=state.get("blocks", [state["n_genes"]]))
        for key in _PLAIN:
            setattr(self, key, state[key])
        self.spread = state.get("spread")
        self.blocks.uncertain = [bool(value) for value in state.get("uncertain", [False])]
        self.classes = CellClasses.from_state(state["classes"])
        self.rates = ClassRates.from_state(state["rates"])
        names = [f"effects_{b}" if b else "effects" for b in range(len(self.blocks))]
        self.effects = [CombinationEffects.from_state(state[name]) for name in names if state.get(name) is not None]
        self.calibration = CountCalibration.from_state(state["calibration"])
        weights = {k: torch.as_tensor(np.array(v)) for k, v in state["weights"].items()}
        broken = [k for k, v in weights.items() if not torch.isfinite(v).all()]
        if broken:
            raise ValueError(f"weights {broken[:5]} of the codec are not finite")
        if int(state["hidden_size"]) > max(n for v in weights.values() for n in v.shape):
            raise ValueError(f"the codec is said to have {state['hidden_size']} hidden units, and its weights have not")
        self.model = CountAutoencoder(
            weights["class_log_rate"],
            weights["start_log_theta"],
            self.levels,
            weights["input_features"],
            n_latent=weights["loadings.weight"].shape[1],
            hidden_size=int(state["hidden_size"]),
            blocks=self.blocks.sizes,
        )
        self.model.load_state_dict(weights)
        self.model.eval().requires_grad_(False)
        return self


_PLAIN = (
    "n_latent",
    "levels",
    "n_genes",
    "active",
    "center",
    "scale",
    "n_features",
    "silent",
    "library",
    "library_class",
    "view_mean",
    "view_axes",
)
