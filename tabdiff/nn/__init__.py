"""Networks and embeddings: plain torch modules that know nothing of tables, cells or estimators."""

from tabdiff.nn.dropout import Dropout
from tabdiff.nn.embeddings import ConditionEmbedding, ImageCondition, SinusoidalEmbedding
from tabdiff.nn.mlp import ResidualMLP
from tabdiff.nn.unet import UNet

__all__ = ["ConditionEmbedding", "Dropout", "ImageCondition", "ResidualMLP", "SinusoidalEmbedding", "UNet"]
