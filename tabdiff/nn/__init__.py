"""Networks and embeddings: plain torch modules that know nothing of tables, cells or estimators."""

from tabdiff.nn.dit import DiT
from tabdiff.nn.dropout import Dropout
from tabdiff.nn.embeddings import ConditionEmbedding, Context, FourierEmbedding, SinusoidalEmbedding, VectorColumns
from tabdiff.nn.mlp import ResidualMLP
from tabdiff.nn.tokens import ColumnTokens, PatchTokens, SequenceTokens

__all__ = [
    "ColumnTokens",
    "ConditionEmbedding",
    "Context",
    "DiT",
    "Dropout",
    "FourierEmbedding",
    "PatchTokens",
    "ResidualMLP",
    "SequenceTokens",
    "SinusoidalEmbedding",
    "VectorColumns",
]
