"""Diffusion models for tables and single cells, as scikit-learn estimators."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabdiff.detector import DiffusionOutlierDetector
    from tabdiff.evaluation import evaluate
    from tabdiff.generator import DiffusionGenerator
    from tabdiff.imputer import DiffusionImputer
    from tabdiff.oversampler import DiffusionOverSampler
    from tabdiff.sampling_pipeline import sample_pipeline

__all__ = [
    "DiffusionGenerator",
    "DiffusionImputer",
    "DiffusionOutlierDetector",
    "DiffusionOverSampler",
    "evaluate",
    "sample_pipeline",
]

_HOME = {
    "DiffusionGenerator": "tabdiff.generator",
    "DiffusionImputer": "tabdiff.imputer",
    "DiffusionOutlierDetector": "tabdiff.detector",
    "DiffusionOverSampler": "tabdiff.oversampler",
    "evaluate": "tabdiff.evaluation",
    "sample_pipeline": "tabdiff.sampling_pipeline",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `tabdiff --help` does not wait for torch.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
