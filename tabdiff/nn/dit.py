"""The diffusion transformer: attention among the tokens of a row, modulated by time and condition.

AdaLN-Zero blocks of Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023
(https://arxiv.org/abs/2212.09748), over tokens that `tabdiff.nn.tokens` makes: columns of a table, patches of an image,
positions of a sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tabdiff.nn.dropout import Dropout
from tabdiff.nn.embeddings import TIME_CONDITIONING, Context, make_time_embedding
from tabdiff.nn.tokens import ColumnTokens, PatchTokens, SequenceTokens

__all__ = ["CONDITIONING", "DiT"]

CONDITIONING = ("adaln", "addition", "concatenation", "cross_attention")
HEAD_SIZE = 32


class Attention(nn.Module):
    """Multi-head attention of tokens to each other, or to those of a context.

    Parameters
    ----------
    hidden_size : int
        Length of a token.
    n_heads : int
        Number of heads, a divisor of it.
    qk_norm : bool
        Whether queries and keys are normalised (Dehghani et al., 2023, https://arxiv.org/abs/2302.05442), so that
        attention cannot saturate at high learning rates.
    """

    def __init__(self, hidden_size: int, n_heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.query_norm = nn.RMSNorm(hidden_size // n_heads) if qk_norm else None
        self.key_norm = nn.RMSNorm(hidden_size // n_heads) if qk_norm else None

    def forward(self, h: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Map tokens (B, T, hidden_size), and those of a context (B, L, hidden_size), to (B, T, hidden_size).

        `mask` (B, L) is True for tokens that may be attended to.
        """
        query = self._split(self.query(h))
        key, value = (self._split(part) for part in self.key_value(h if context is None else context).chunk(2, dim=-1))
        if self.query_norm is not None and self.key_norm is not None:
            dtype = self.query_norm.weight.dtype
            query = self.query_norm(query.to(dtype)).to(value.dtype)
            key = self.key_norm(key.to(dtype)).to(value.dtype)
        if value.device.type == "cpu" and value.dtype == torch.bfloat16:
            # What a CPU has for attention in bfloat16 takes ten times as long backwards.
            query, key, value = query.float(), key.float(), value.float()
        allowed = None if mask is None else mask[:, None, None]
        with torch.autocast(value.device.type, enabled=False):
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.n_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, or three that gate (SwiGLU: Shazeer, 2020).

    Parameters
    ----------
    hidden_size : int
    ratio : float
        Inner width over `hidden_size`; with `swiglu` two thirds of it, for as many weights.
    swiglu : bool
    """

    def __init__(self, hidden_size: int, ratio: float, *, swiglu: bool) -> None:
        super().__init__()
        inner = max(round(hidden_size * ratio * (2 / 3 if swiglu else 1)), 1)
        self.swiglu = swiglu
        self.read = nn.Linear(hidden_size, 2 * inner if swiglu else inner)
        self.write = nn.Linear(inner, hidden_size)

    def forward(self, h: Tensor) -> Tensor:
        """Map tokens (..., hidden_size) to as many."""
        inner = self.read(h)
        if self.swiglu:
            gate, value = inner.chunk(2, dim=-1)
            inner = nn.functional.silu(gate) * value
        else:
            inner = nn.functional.gelu(inner, approximate="tanh")
        out: Tensor = self.write(inner)
        return out


class DiTBlock(nn.Module):
    """Attention and a feed-forward layer, each normalised, shifted, scaled and gated by an embedding (AdaLN-Zero).

    The gates start at zero, and so does the output of the attention to a context, so that a block starts as the
    identity. With `embedding_size` 0 there is nothing to modulate it by: layer normalisation has weights of its own,
    and what both layers write starts at zero.
    """

    def __init__(
        self,
        hidden_size: int,
        embedding_size: int,
        n_heads: int,
        *,
        mlp_ratio: float,
        dropout: float,
        qk_norm: bool,
        swiglu: bool,
        cross_attention: bool,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size, elementwise_affine=not embedding_size)
        self.attention = Attention(hidden_size, n_heads, qk_norm=qk_norm)
        self.mlp_norm = nn.LayerNorm(hidden_size, elementwise_affine=not embedding_size)
        self.mlp = FeedForward(hidden_size, mlp_ratio, swiglu=swiglu)
        self.dropout = Dropout(dropout)
        self.modulation = nn.Linear(embedding_size, 6 * hidden_size) if embedding_size else None
        for layer in (self.attention.out, self.mlp.write) if self.modulation is None else (self.modulation,):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.cross_norm: nn.LayerNorm | None = None
        self.cross_attention: Attention | None = None
        if cross_attention:
            self.cross_norm = nn.LayerNorm(hidden_size)
            self.cross_attention = Attention(hidden_size, n_heads, qk_norm=qk_norm)
            nn.init.zeros_(self.cross_attention.out.weight)
            nn.init.zeros_(self.cross_attention.out.bias)

    def forward(
        self, h: Tensor, embedding: Tensor | None, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map tokens (B, T, hidden_size) under an embedding (B, embedding_size) or (1, embedding_size), or none.

        With attention to a context, `mask` (B, L) says which of its tokens there are; else which of the tokens `h`.
        """
        own_mask = mask if self.cross_attention is None else None
        if self.modulation is None or embedding is None:
            h = h + self.dropout(self.attention(self.attention_norm(h), None, own_mask))
            h = self._attend(h, context, mask)
            return h + self.dropout(self.mlp(self.mlp_norm(h)))
        parts = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        mixed = self.attention(torch.addcmul(parts[0], self.attention_norm(h), 1 + parts[1]), None, own_mask)
        h = self._attend(h + parts[2] * self.dropout(mixed), context, mask)
        return h + parts[5] * self.dropout(self.mlp(torch.addcmul(parts[3], self.mlp_norm(h), 1 + parts[4])))

    def _attend(self, h: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.cross_attention is None or self.cross_norm is None:
            return h
        return h + self.cross_attention(self.cross_norm(h), context, mask)


class DiT(nn.Module):
    """Diffusion transformer: a tokeniser, AdaLN-Zero blocks, and the tokeniser's way back.

    Attention goes through ``scaled_dot_product_attention``, whose memory grows with the number of tokens, not with its
    square.

    Parameters
    ----------
    tokens : ColumnTokens, PatchTokens or SequenceTokens
        Makes tokens of noisy rows, and outputs of tokens.
    condition_size : int, default=0
        Width of the embedded condition; 0 for a network without condition.
    n_blocks : int, default=3
        Number of blocks.
    n_heads : int, optional
        Number of attention heads, a divisor of the tokens' length; by default heads of 32, or one.
    mlp_ratio : float, default=2.0
        Width of the feed-forward layers over the tokens' length.
    dropout : float, default=0.0
        Dropout rate behind attention and feed-forward layers.
    qk_norm : bool, default=False
        Whether queries and keys are normalised; a tenth more work.
    swiglu : bool, default=False
        Whether feed-forward layers are gated.
    conditioning : {"adaln", "addition", "concatenation", "cross_attention"}, default="adaln"
        Where the condition enters: with the time into the modulation of the blocks; added to every token; as tokens
        beside those of the row; or as tokens that each block attends to.
    time_embedding : {"sinusoidal", "learned", "table"}, default="sinusoidal"
        See `make_time_embedding`.
    time_conditioning : {"adaln", "addition", "concatenation"}, default="adaln"
        Where the time enters: into the modulation of the blocks; added to every token; or as a token beside those of
        the row.
    n_timesteps : int, optional
        Number of times of a discrete schedule, for "table".
    embedding_size : int, default=64
        Width of the embedding that modulates the blocks.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.nn import ColumnTokens
    >>> network = DiT(ColumnTokens(5, [], 32), n_blocks=2)
    >>> network(torch.zeros(8, 5), torch.rand(8)).shape
    torch.Size([8, 5])
    """

    def __init__(
        self,
        tokens: ColumnTokens | PatchTokens | SequenceTokens,
        condition_size: int = 0,
        *,
        n_blocks: int = 3,
        n_heads: int | None = None,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        qk_norm: bool = False,
        swiglu: bool = False,
        conditioning: str = "adaln",
        time_embedding: str = "sinusoidal",
        time_conditioning: str = "adaln",
        n_timesteps: int | None = None,
        embedding_size: int = 64,
    ) -> None:
        super().__init__()
        size = tokens.hidden_size
        n_heads = default_heads(size) if n_heads is None else n_heads
        if conditioning not in CONDITIONING:
            raise ValueError(f"conditioning must be one of {CONDITIONING}; got {conditioning!r}.")
        if time_conditioning not in TIME_CONDITIONING:
            raise ValueError(f"time_conditioning must be one of {TIME_CONDITIONING}; got {time_conditioning!r}.")
        if n_blocks < 1 or n_heads < 1 or size % n_heads:
            raise ValueError(f"n_heads must divide the tokens' length {size}; got {n_heads=} {n_blocks=}")
        self.tokens = tokens
        self.conditioning = conditioning if condition_size else "none"
        self.time_conditioning = time_conditioning
        self.time = nn.Sequential(
            make_time_embedding(time_embedding, embedding_size, n_timesteps),
            nn.Linear(embedding_size, embedding_size),
            nn.SiLU(),
        )
        self.time_out = nn.Linear(embedding_size, embedding_size if time_conditioning == "adaln" else size)
        wanted = embedding_size if conditioning == "adaln" else size
        modulated = "adaln" in (time_conditioning, self.conditioning)
        self.condition = nn.Linear(condition_size, wanted) if condition_size else None
        self.blocks = nn.ModuleList(
            DiTBlock(
                size,
                embedding_size if modulated else 0,
                n_heads,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                qk_norm=qk_norm,
                swiglu=swiglu,
                cross_attention=self.conditioning == "cross_attention",
            )
            for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(size, elementwise_affine=not modulated)
        self.modulation = nn.Linear(embedding_size, 2 * size) if modulated else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, t: Tensor, c: Tensor | Context | None = None, given: Tensor | None = None) -> Tensor:
        """Map noisy rows x at times t (B,), with embedded conditions c, to outputs (B, n_outputs), or images to images.

        `c` is (B, condition_size), or a `Context` whose tokens "concatenation" and "cross_attention" use. `given` says
        which entries of the rows are known, and their values; None is the same as zeros.
        """
        if self.condition is not None and c is None:
            raise ValueError("this network was built with a condition, so it needs c.")
        if len(t) > 1 and t.stride(0) == 0:
            t = t[:1]  # one time for all rows, as in sampling: one modulation for all
        told = self.time_out(self.time(t))
        h = self.tokens.embed(x, given)
        n_tokens = h.shape[1]
        modulating = [told] if self.time_conditioning == "adaln" else []
        context = mask = None
        if self.condition is not None and c is not None:
            pooled = c.pooled if isinstance(c, Context) else c
            if self.conditioning == "adaln":
                modulating.append(self.condition(pooled))
            elif self.conditioning == "addition":
                h = h + self.condition(pooled)[:, None]
            else:
                context = self.condition(c.tokens if isinstance(c, Context) else c[:, None])
                mask = c.mask if isinstance(c, Context) else None
        if self.conditioning == "concatenation" and context is not None:
            h = torch.cat([h, context.to(h.dtype)], dim=1)
            mask = None if mask is None else nn.functional.pad(mask, (n_tokens, 0), value=True)
            context = None
        if self.time_conditioning == "addition":
            h = h + told[:, None]
        elif self.time_conditioning == "concatenation":
            h = torch.cat([h, told[:, None].expand(len(h), -1, -1).to(h.dtype)], dim=1)
            if mask is not None and context is None:  # of the tokens themselves, not of a context
                mask = nn.functional.pad(mask, (0, 1), value=True)
        embedding = nn.functional.silu(sum(modulating[1:], modulating[0])) if modulating else None
        for block in self.blocks:
            h = block(h, embedding, context, mask)
        h = self.norm(h[:, :n_tokens])
        if self.modulation is not None and embedding is not None:
            shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=-1)
            h = torch.addcmul(shift, h, 1 + scale)
        out = self.tokens.project(h)
        return out if x.dim() == 2 else out.reshape(len(x), -1, *x.shape[2:])


def default_heads(size: int) -> int:
    """Return how many heads tokens of a length have: as many of 32 as there is room for, or fewer that divide it."""
    return next(n for n in range(max(size // HEAD_SIZE, 1), 0, -1) if size % n == 0)
