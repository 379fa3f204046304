"""Networks and embeddings: plain torch modules that know nothing of tables, cells or estimators.

``mlp``, ``dit`` (with ``tokens``) and ``unet`` are what denoises, ``embeddings`` what they are given of time, condition
and numbers; ``count_autoencoder`` (with ``negative_binomial``) and ``image_autoencoder`` make latents.
"""

from tabdiff.nn.dit import DiT
from tabdiff.nn.dropout import Dropout
from tabdiff.nn.embeddings import (
    ConditionEmbedding,
    Context,
    FourierEmbedding,
    FourierFeatures,
    ImageCondition,
    SinusoidalEmbedding,
    TableEmbedding,
    VectorColumns,
)
from tabdiff.nn.mlp import ResidualMLP
from tabdiff.nn.tokens import ColumnTokens, PatchTokens, SequenceTokens
from tabdiff.nn.unet import UNet

__all__ = [
    "ColumnTokens",
    "ConditionEmbedding",
    "Context",
    "DiT",
    "Dropout",
    "FourierEmbedding",
    "FourierFeatures",
    "ImageCondition",
    "PatchTokens",
    "ResidualMLP",
    "SequenceTokens",
    "SinusoidalEmbedding",
    "TableEmbedding",
    "UNet",
    "VectorColumns",
]
