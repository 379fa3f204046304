"""Training a denoiser on encoded rows.

``loop`` is the one loop, over ``batches`` that ``vicinal`` may vary, with the settings of ``options``, the weights'
average of ``ema`` and the held-out rows of ``validation``; ``state`` is where it stands, which ``callbacks`` see and
``checkpoint`` keeps.
"""

from tabdiff.training.callbacks import Callback, CSVLog, PeriodicSamples, StopOnScore, TensorBoard
from tabdiff.training.checkpoint import Checkpoint, CheckpointError
from tabdiff.training.ema import EMA
from tabdiff.training.loop import TrainingResult, train
from tabdiff.training.options import TrainingOptions, options_of
from tabdiff.training.state import Training
from tabdiff.training.validation import Validation

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
    "options_of",
    "train",
]
