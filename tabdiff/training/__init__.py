"""The training loop, weight averaging, callbacks, checkpoints, and the one place that decides devices and precision."""

from tabdiff.training.callbacks import Callback, CSVLog, PeriodicSamples, StopOnScore, TensorBoard
from tabdiff.training.checkpoint import Checkpoint, CheckpointError
from tabdiff.training.ema import EMA
from tabdiff.training.loop import TrainingResult, train
from tabdiff.training.options import TrainingOptions, options_of
from tabdiff.training.state import Training
from tabdiff.training.validation import Validation
from tabdiff.utils.device import autocast_dtype, resolve_device, sampling_dtype

__all__ = [
    "Callback",
    "CSVLog",
    "PeriodicSamples",
    "StopOnScore",
    "TensorBoard",
    "Checkpoint",
    "CheckpointError",
    "EMA",
    "Training",
    "TrainingOptions",
    "TrainingResult",
    "Validation",
    "autocast_dtype",
    "options_of",
    "resolve_device",
    "sampling_dtype",
    "train",
]
