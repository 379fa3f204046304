"""Training a denoiser on encoded rows.

``loop`` is the one loop, over ``batches`` that ``vicinal`` may vary, with the settings of ``options``, the weights'
average of ``ema`` and the held-out rows of ``validation``; ``state`` is where it stands, which ``callbacks`` see and
``checkpoint`` keeps. ``privacy`` is the budget of a differentially private fit, whose steps ``private_step`` does.
"""

from tabdiff.training.batches import Batches
from tabdiff.training.callbacks import Callback, CSVLog, PeriodicSamples, ProgressBar, StopOnScore, TensorBoard
from tabdiff.training.checkpoint import Checkpoint, CheckpointError
from tabdiff.training.ema import EMA
from tabdiff.training.loop import TrainingResult, train
from tabdiff.training.options import TrainingOptions
from tabdiff.training.privacy import PrivacyBudget
from tabdiff.training.private_step import ClippedNoise
from tabdiff.training.state import Run, Training
from tabdiff.training.validation import Validation

__all__ = [
    "Batches",
    "Callback",
    "CSVLog",
    "PeriodicSamples",
    "ProgressBar",
    "StopOnScore",
    "TensorBoard",
    "Checkpoint",
    "CheckpointError",
    "ClippedNoise",
    "EMA",
    "PrivacyBudget",
    "Run",
    "Training",
    "TrainingOptions",
    "TrainingResult",
    "Validation",
    "train",
]
