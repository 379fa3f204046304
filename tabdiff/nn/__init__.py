"""Networks and embeddings: plain torch modules that know nothing of tables, cells or estimators."""

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
