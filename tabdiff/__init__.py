"""Diffusion models for tables and single cells, as scikit-learn estimators."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabdiff.evaluation import evaluate
    from tabdiff.generator import DiffusionGenerator
    from tabdiff.imputer import DiffusionImputer

__all__ = [
    "DiffusionGenerator",
    "DiffusionImputer",
    "evaluate",
]

_HOME = {
    "DiffusionGenerator": "tabdiff.generator",
    "DiffusionImputer": "tabdiff.imputer",
    "evaluate": "tabdiff.evaluation",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `tabdiff --help` does not wait for torch.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
