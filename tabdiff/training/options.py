"""Settings of training that are rarely changed, in one object."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from tabdiff.diffusion import Times, make_times
from tabdiff.training.privacy import PrivacyBudget
from tabdiff.utils.validation import is_integer, is_number

__all__ = ["TrainingOptions", "options_of"]

OPTIMIZERS = ("adamw", "adam")
SCHEDULES = ("cosine", "constant")
COMPILE = ("auto", "graph", "default")


class TrainingOptions(BaseEstimator):
    """How a network is trained: optimiser, warm-up, averaging of the weights, and how times are drawn.

    An estimator of scikit-learn, so that ``training__ema_decay`` is a parameter of a `DiffusionGenerator` in
    `set_params` and in a grid search. Values are checked in `fit`.

    Parameters
    ----------
    optimizer : {"adamw", "adam"}, default="adamw"
        AdamW shrinks weights apart from the gradient (Loshchilov and Hutter, 2019); Adam adds `weight_decay` times the
        weights to the gradient (Kingma and Ba, 2015). Without weight decay they are the same.
    betas : tuple of two floats, default=(0.9, 0.99)
        Decay of the optimiser's averages of the gradient and of its square, each in [0, 1). Published models of images
        mostly have (0.9, 0.999); the shorter memory suits the hundreds to thousands of steps of a table.
    weight_decay : float, default=0.01
        Of the optimiser, at least 0.
    warmup_steps : "auto" or int, default="auto"
        Steps in which the learning rate rises linearly to its peak, with either schedule; 0 starts there. "auto" is
        100, or a tenth of all steps where that is less.
    learning_rate_schedule : {"cosine", "constant"}, default="cosine"
        Whether the rate decays to zero along half a cosine, or stays.
    ema_decay : float, default=0.999
        Decay, in [0, 1), of the average of the weights, which is what samples; 0 keeps the last weights.
    clip_grad_norm : float or None, default=1.0
        Largest norm of the gradient; None does not clip.
    accumulation_steps : int, default=1
        Batches whose gradients make one step, where more rows a step are wanted than memory holds.
    times : str or Times, default="stratified"
        How times are drawn: "stratified", "uniform", "log_normal", "logit_normal", "loss_aware" or an object of
        `tabdiff.diffusion.time_sampling`.
    observed_masks : "auto" or float, default="auto"
        Share of the training rows of which a random part is shown to the network without noise, which teaches it to
        draw some columns given others: `impute`, and columns in `sample` that were not declared as conditions. "auto"
        is 0.25 for a complete table, and as much more as there are missing cells, up to 0.75. 0 leaves both out and
        gives slightly better samples. It has no effect on AnnData, images or with a callable `denoiser`.
    compile : {"auto", "graph", "default"} or False, default="auto"
        How steps run. "graph" records a step as one CUDA graph, which is launched at once instead of kernel by kernel;
        "auto" does so on CUDA devices, except with float16 and with images read from files, and is False elsewhere;
        "default" has `torch.compile` write kernels for the loss too, on any device, which takes a minute at the start;
        False runs one kernel after another. Where a step cannot be recorded, a warning says why and it is run as with
        False. Weights are the same but for rounding.
    distillation : bool, default=False
        Whether a copy of the MLP of a table learns, at the end of the fit, to draw in 5 evaluations what the sampler
        draws in 16. Rows that are refined come of it then, unless `sample` is given a `method` or `steps`: two to three
        times as many a second, which on some tables are easier to tell from real ones. Trainings of fewer than 834
        steps have none.
    privacy : PrivacyBudget, optional
        What the fit may tell about any single row of a DataFrame: then counts of columns and gradients are noised, and
        autoguidance, refinement and raking are off. `clip_grad_norm`, `accumulation_steps` and `times` do not count
        then. None is an ordinary fit, without any such promise.

    Examples
    --------
    >>> from tabdiff import DiffusionGenerator, TrainingOptions
    >>> gen = DiffusionGenerator(training=TrainingOptions(ema_decay=0.99, times="loss_aware"))
    >>> gen.set_params(training__warmup_steps=0).training
    TrainingOptions(ema_decay=0.99, times='loss_aware', warmup_steps=0)
    """

    def __init__(
        self,
        *,
        optimizer: str = "adamw",
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        warmup_steps: str | int = "auto",
        learning_rate_schedule: str = "cosine",
        ema_decay: float = 0.999,
        clip_grad_norm: float | None = 1.0,
        accumulation_steps: int = 1,
        times: str | Times = "stratified",
        observed_masks: str | float = "auto",
        compile: str | bool = "auto",
        distillation: bool = False,
        privacy: PrivacyBudget | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.betas = betas
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.learning_rate_schedule = learning_rate_schedule
        self.ema_decay = ema_decay
        self.clip_grad_norm = clip_grad_norm
        self.accumulation_steps = accumulation_steps
        self.times = times
        self.observed_masks = observed_masks
        self.compile = compile
        self.distillation = distillation
        self.privacy = privacy

    def check(self) -> None:
        """Raise a ValueError that names the first option out of range, and what is allowed."""
        for name, allowed in (("optimizer", OPTIMIZERS), ("learning_rate_schedule", SCHEDULES)):
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}; got {getattr(self, name)!r}.")
        warmup = self.warmup_steps
        if not (isinstance(warmup, str) and warmup == "auto") and not is_integer(warmup, 0):
            raise ValueError(f"warmup_steps must be 'auto' or an integer of at least 0; got {warmup!r}.")
        if not (self.compile is False or (isinstance(self.compile, str) and self.compile in COMPILE)):
            raise ValueError(f"compile must be {', '.join(map(repr, COMPILE))} or False; got {self.compile!r}.")
        if not isinstance(self.distillation, bool | np.bool_):
            raise ValueError(f"distillation must be True or False; got {self.distillation!r}.")
        if not is_integer(self.accumulation_steps, 1):
            raise ValueError(f"accumulation_steps must be an integer of at least 1; got {self.accumulation_steps!r}.")
        pair = isinstance(self.betas, tuple | list) and len(self.betas) == 2
        if not pair or not all(is_number(b) and 0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), such as (0.9, 0.999); got {self.betas!r}.")
        if not is_number(self.weight_decay) or self.weight_decay < 0:
            raise ValueError(f"weight_decay must be a finite number of at least 0; got {self.weight_decay!r}.")
        if not is_number(self.ema_decay) or not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be a number in [0, 1); got {self.ema_decay!r}.")
        if self.clip_grad_norm is not None and not (is_number(self.clip_grad_norm) and self.clip_grad_norm > 0):
            raise ValueError(f"clip_grad_norm must be None or a positive number; got {self.clip_grad_norm!r}.")
        masks: Any = self.observed_masks
        if not (isinstance(masks, str) and masks == "auto") and not (is_number(masks) and 0 <= masks <= 1):
            raise ValueError(f"observed_masks must be 'auto' or a number in [0, 1]; got {masks!r}.")
        if self.privacy is not None:
            if not isinstance(self.privacy, PrivacyBudget):
                raise ValueError(
                    f"privacy must be None or a PrivacyBudget, such as PrivacyBudget(3); got {self.privacy!r:.80}."
                )
            self.privacy.check()
        if not callable(make_times(self.times)):  # which raises where a name is unknown
            raise ValueError(
                f"times must be a name or a callable of tabdiff.diffusion.time_sampling; got {self.times!r}."
            )

    def rate_share(self, step: int, progress: float, max_steps: int) -> float:
        """Return the share of the peak learning rate at a step, counted from 0, with a share `progress` of it done."""
        n = min(100, max_steps // 10) if self.warmup_steps == "auto" else int(self.warmup_steps)
        warm_up = min(1.0, (step + 1) / max(1, n))
        if self.learning_rate_schedule == "constant":
            return warm_up
        return warm_up * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def make_optimizer(self, parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        """Return the optimiser of parameters, which are all on one device."""
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        # Fused, it never waits for the device, also where a scaler of gradients may have it leave out a step.
        device = parameters[0].device if parameters else torch.device("cpu")
        on_gpu = device.type == "cuda"
        first, second = (float(b) for b in self.betas)
        optimizer = kind(
            parameters,
            lr=learning_rate,
            betas=(first, second),
            weight_decay=float(self.weight_decay),
            fused=device.type in ("cpu", "cuda") and bool(parameters),
            capturable=on_gpu,
        )
        if on_gpu:
            # A step that is recorded reads the rate anew each time.
            for group in optimizer.param_groups:
                group["lr"] = torch.full((), learning_rate, device=device)
        return optimizer


def options_of(training: Any) -> TrainingOptions:
    """Return checked options for what a parameter `training` holds; None stands for the defaults.

    Parameters
    ----------
    training : TrainingOptions or None
        What the parameter `training` holds.

    Returns
    -------
    TrainingOptions
        Checked options.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> from tabdiff.training.options import options_of
    >>> options_of(None).ema_decay
    0.999
    """
    if training is None:
        return TrainingOptions()
    if not isinstance(training, TrainingOptions):
        given = f"the class {training.__name__}" if isinstance(training, type) else repr(training)
        raise TypeError(f"training must be a TrainingOptions or None; got {given:.80}. Use training=TrainingOptions().")
    training.check()
    return training
