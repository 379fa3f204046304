"""Diffusion models for tables and single cells, as scikit-learn estimators."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabdiff.codecs.cells.codec import CellCodec
    from tabdiff.codecs.cells.multimodal import MultimodalCodec
    from tabdiff.codecs.images.codec import ImageCodec
    from tabdiff.codecs.images.latent import LatentImageCodec
    from tabdiff.codecs.sequences import SequenceCodec
    from tabdiff.codecs.tables.array import ArrayCodec
    from tabdiff.codecs.tables.codec import TableCodec
    from tabdiff.estimators.detector import DiffusionOutlierDetector
    from tabdiff.estimators.generator import DiffusionGenerator
    from tabdiff.estimators.imputer import DiffusionImputer
    from tabdiff.estimators.judging import evaluate, privacy_report
    from tabdiff.estimators.oversampler import DiffusionOverSampler
    from tabdiff.estimators.pipeline import sample_pipeline
    from tabdiff.evaluation import Report, compare
    from tabdiff.generation.options import SamplingOptions
    from tabdiff.model.networks import MLP, DiT, UNet
    from tabdiff.training.options import TrainingOptions
    from tabdiff.training.privacy import PrivacyBudget

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "ArrayCodec",
    "CellCodec",
    "DiT",
    "DiffusionGenerator",
    "DiffusionImputer",
    "DiffusionOutlierDetector",
    "DiffusionOverSampler",
    "ImageCodec",
    "LatentImageCodec",
    "MultimodalCodec",
    "PrivacyBudget",
    "Report",
    "SamplingOptions",
    "SequenceCodec",
    "TableCodec",
    "TrainingOptions",
    "UNet",
    "compare",
    "evaluate",
    "privacy_report",
    "sample_pipeline",
]

_HOME = {
    "ArrayCodec": "tabdiff.codecs.tables.array",
    "CellCodec": "tabdiff.codecs.cells.codec",
    "ImageCodec": "tabdiff.codecs.images.codec",
    "LatentImageCodec": "tabdiff.codecs.images.latent",
    "MultimodalCodec": "tabdiff.codecs.cells.multimodal",
    "SamplingOptions": "tabdiff.generation.options",
    "SequenceCodec": "tabdiff.codecs.sequences",
    "TableCodec": "tabdiff.codecs.tables.codec",
    "MLP": "tabdiff.model.networks",
    "DiT": "tabdiff.model.networks",
    "UNet": "tabdiff.model.networks",
    "DiffusionGenerator": "tabdiff.estimators.generator",
    "DiffusionImputer": "tabdiff.estimators.imputer",
    "DiffusionOutlierDetector": "tabdiff.estimators.detector",
    "DiffusionOverSampler": "tabdiff.estimators.oversampler",
    "TrainingOptions": "tabdiff.training.options",
    "PrivacyBudget": "tabdiff.training.privacy",
    "Report": "tabdiff.evaluation",
    "compare": "tabdiff.evaluation",
    "evaluate": "tabdiff.estimators.judging",
    "privacy_report": "tabdiff.estimators.judging",
    "sample_pipeline": "tabdiff.estimators.pipeline",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `tabdiff --help` does not wait for torch.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
