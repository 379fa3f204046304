"""The training loop, weight averaging, and the one place that decides devices and precision."""

from tabdiff.training.device import autocast_dtype, resolve_device
from tabdiff.training.ema import EMA
from tabdiff.training.loop import TrainingResult, train

__all__ = ["EMA", "TrainingResult", "autocast_dtype", "resolve_device", "train"]
