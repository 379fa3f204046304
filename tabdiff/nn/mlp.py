"""The residual multilayer perceptron that denoises rows and latents."""

import torch
from torch import Tensor, nn

from tabdiff.nn.dropout import Dropout
from tabdiff.nn.embeddings import TIME_CONDITIONING, FourierFeatures, make_time_embedding

__all__ = ["MLP_CONDITIONING", "ResidualMLP"]

MLP_CONDITIONING = ("adaln", "addition", "concatenation")


class ResidualBlock(nn.Module):
    """``h + gate * MLP(scale * LayerNorm(h) + shift)``, modulated by the embedding of time and condition.

    The modulation starts at zero, so that every block starts as the identity: AdaLN-Zero of Peebles and Xie, 2023
    (https://arxiv.org/abs/2212.09748). With `embedding_size` 0 there is nothing to modulate it by: it is
    ``h + MLP(LayerNorm(h))``, whose last layer starts at zero instead.
    """

    def __init__(self, hidden_size: int, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=not embedding_size)
        self.modulation = nn.Linear(embedding_size, 3 * hidden_size) if embedding_size else None
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.SiLU(),
            Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
        )
        for parameter in (self.mlp[-1] if self.modulation is None else self.modulation).parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        if self.modulation is None or embedding is None:
            return h + self.mlp(self.norm(h))
        shift, scale, gate = self.modulation(embedding).chunk(3, dim=-1)
        return h + gate * self.mlp(torch.addcmul(shift, self.norm(h), 1 + scale))


def _project(x: Tensor, layer: nn.Linear, n_exact: int | None) -> Tensor:
    """Apply a layer to inputs (B, k), in float32 under autocast for the first `n_exact` of them, or for all.

    Eight bits of mantissa would blur numbers themselves; embeddings of levels lie far apart.
    """
    with torch.autocast(x.device.type, enabled=False):
        h = nn.functional.linear(x[:, :n_exact], layer.weight[:, :n_exact], layer.bias)
    return h if n_exact is None else h + nn.functional.linear(x[:, n_exact:], layer.weight[:, n_exact:])


class ResidualMLP(nn.Module):
    """Residual MLP with adaptive layer normalisation by time and condition.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Widths of the noisy input and of the output.
    condition_size : int, default=0
        Width of the embedded condition `c`; 0 for a network without condition.
    hidden_size : int, default=256
        Width of the residual stream.
    n_blocks : int, default=3
        Number of residual blocks, two linear layers each.
    dropout : float, default=0.0
        Dropout rate inside the blocks.
    given_size : int, default=0
        Width of what `forward` is told of given entries; 0 for a network that is told nothing.
    n_exact : int, optional
        Number of leading inputs and outputs that are computed in float32 under autocast; by default all. Embeddings of
        levels and logits need it less.
    n_waved : int, default=0
        Number of leading inputs whose Fourier features the network sees beside them.
    n_frequencies : int, default=8
        Frequencies of these features; see `FourierFeatures`.
    embedding_size : int, default=64
        Width of the embedding that modulates the blocks. A wide one costs more than the blocks themselves at small
        batches and gains nothing.
    conditioning : {"adaln", "addition", "concatenation"}, default="adaln"
        Where the condition enters: with the time into the modulation of the blocks; added to the hidden row ahead of
        each block; or beside the noisy row as further inputs.
    time_embedding : {"sinusoidal", "learned", "table"}, default="sinusoidal"
        See `tabdiff.nn.embeddings.make_time_embedding`.
    time_conditioning : {"adaln", "addition", "concatenation"}, default="adaln"
        Where the time enters, as for `conditioning`.
    n_timesteps : int, optional
        Number of times of a discrete schedule, for "table".

    Examples
    --------
    >>> import torch
    >>> network = ResidualMLP(5, 5, hidden_size=32, n_blocks=2)
    >>> network(torch.zeros(8, 5), torch.rand(8)).shape
    torch.Size([8, 5])
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        condition_size: int = 0,
        *,
        hidden_size: int = 256,
        n_blocks: int = 3,
        dropout: float = 0.0,
        given_size: int = 0,
        n_exact: int | None = None,
        n_waved: int = 0,
        n_frequencies: int = 8,
        embedding_size: int = 64,
        conditioning: str = "adaln",
        time_embedding: str = "sinusoidal",
        time_conditioning: str = "adaln",
        n_timesteps: int | None = None,
    ) -> None:
        super().__init__()
        if conditioning not in MLP_CONDITIONING:
            raise ValueError(f"conditioning must be one of {MLP_CONDITIONING}; got {conditioning!r}.")
        if time_conditioning not in TIME_CONDITIONING:
            raise ValueError(f"time_conditioning must be one of {TIME_CONDITIONING}; got {time_conditioning!r}.")
        if min(n_inputs, n_outputs, hidden_size, n_blocks) < 1:
            raise ValueError(f"sizes must be at least 1; got {n_inputs=} {n_outputs=} {hidden_size=} {n_blocks=}")
        self.time = nn.Sequential(
            make_time_embedding(time_embedding, embedding_size, n_timesteps),
            nn.Linear(embedding_size, embedding_size),
            nn.SiLU(),
        )
        self.conditioning, self.time_conditioning = conditioning, time_conditioning
        widths = {"adaln": embedding_size}  # what is added, or is an input, is as wide as the rows that blocks work on
        self.time_out = nn.Linear(embedding_size, widths.get(time_conditioning, hidden_size))
        self.condition = nn.Linear(condition_size, widths.get(conditioning, hidden_size)) if condition_size else None
        modulated = time_conditioning == "adaln" or (conditioning == "adaln" and condition_size > 0)
        self.project_in = nn.Linear(n_inputs, hidden_size)
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_size, embedding_size if modulated else 0, dropout) for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.project_out = nn.Linear(hidden_size, n_outputs)
        self.n_exact = n_outputs if n_exact is None else n_exact
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)
        self.n_waved = n_waved
        self.waves = FourierFeatures(n_waved, n_frequencies, embedding_size) if n_waved else None
        self.project_waves = nn.Linear(self.waves.size, hidden_size, bias=False) if self.waves is not None else None
        # Without biases, so that a row of which nothing is given is as it would be without these layers.
        self.project_given = (
            nn.Sequential(
                nn.Linear(given_size, hidden_size, bias=False),
                nn.SiLU(),
                nn.Linear(hidden_size, hidden_size, bias=False),
            )
            if given_size
            else None
        )

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """Map noisy rows x (B, n_inputs) at times t (B,) with conditions c (B, condition_size) to (B, n_outputs).

        `given` (B, given_size) says which entries of the rows are known, and their values; None is the same as zeros.
        """
        if len(t) > 1 and t.stride(0) == 0:
            t = t[:1]  # one time for all rows, as in sampling: one modulation for all, which is a third of the work
        told = self.time(t)
        # Where each of the two enters; a linear map of a row and of what stands beside it is the sum of two maps.
        entering = [(self.time_conditioning, self.time_out(told))]
        if self.condition is not None:
            if c is None:
                raise ValueError("this network was built with a condition, so it needs c.")
            entering.append((self.conditioning, self.condition(c)))
        modulating, added, beside = ([v for way, v in entering if way == name] for name in MLP_CONDITIONING)
        embedding = nn.functional.silu(sum(modulating[1:], modulating[0])) if modulating else None
        # Without autocast all are exact, and one product is faster than two.
        apart = self.n_exact < self.project_out.out_features and torch.is_autocast_enabled(x.device.type)
        k = self.n_exact if apart else None
        h = _project(x, self.project_in, k)
        if self.waves is not None and self.project_waves is not None:
            gating = embedding if self.time_conditioning == "adaln" else told  # the time says which waves are noise
            with torch.autocast(x.device.type, enabled=False):
                h = h + self.project_waves(self.waves(x[:, : self.n_waved], gating))
        if self.project_given is not None and given is not None:
            first = self.project_given[0]
            assert isinstance(first, nn.Linear)
            h = h + self.project_given[1:](_project(given, first, k))
        for part in beside:
            h = h + part
        for block in self.blocks:
            for part in added:
                h = h + part
            h = block(h, embedding)
        h = self.norm(h)
        weight, bias = self.project_out.weight, self.project_out.bias
        with torch.autocast(x.device.type, enabled=False):
            exact = nn.functional.linear(h, weight[:k], bias[:k])
        if k is None:
            return exact
        # All outputs, of which the exact ones are put in: joining the two would copy thousands of logits.
        output = nn.functional.linear(h, weight, bias).to(exact.dtype)
        output[:, :k] = exact
        return output
