"""What each parameter may be, checked before anything is read."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tabdiff.codecs.conditions.text import check_text_encoder
from tabdiff.codecs.images.codec import augmentations
from tabdiff.diffusion import make_loss, make_times
from tabdiff.model.defaults import check_network
from tabdiff.training.callbacks import Callback

__all__ = ["check_parameters"]


def check_parameters(parameters: Any) -> None:
    """Raise a ValueError that names the first parameter out of range and what is allowed."""
    p = parameters
    check_network(p.denoiser, p.conditioning, p.time_embedding)
    check_text_encoder(p.text_encoder)
    make_times(p.times)  # these two raise where a name is unknown
    make_loss(p.loss)
    for name in ("hidden_size", "n_blocks", "max_steps", "batch_size"):
        value = getattr(p, name)
        if value != "auto" and not _is_positive_integer(value):
            raise ValueError(f"{name} must be 'auto' or an integer of at least 1, however: {value!r}.")
    if not isinstance(p.refine, bool | np.bool_) and p.refine != "auto":
        raise ValueError(f"refine must be 'auto', True or False, however: {p.refine!r}.")
    if p.n_timesteps is not None and not (_is_positive_integer(p.n_timesteps) and p.n_timesteps > 1):
        raise ValueError(f"n_timesteps must be None or an integer of at least 2, however: {p.n_timesteps!r}.")
    augmentations(p.augment)
    if not _is_positive_integer(p.accumulation_steps):
        raise ValueError(f"accumulation_steps must be an integer of at least 1, however: {p.accumulation_steps!r}.")
    if p.learning_rate_schedule not in ("cosine", "constant"):
        raise ValueError(
            f"learning_rate_schedule must be 'cosine' or 'constant', however: {p.learning_rate_schedule!r}."
        )
    rate = () if isinstance(p.learning_rate, str) and p.learning_rate == "auto" else ("learning_rate",)
    for name in ("dropout", "ema_decay", "condition_dropout", *rate, "weight_decay"):
        _check_number(name, getattr(p, name))
    if isinstance(p.observed_masks, str) and p.observed_masks != "auto":
        raise ValueError(f"observed_masks must be 'auto' or a number in [0, 1], however: {p.observed_masks!r}.")
    if not isinstance(p.observed_masks, str):
        _check_number("observed_masks", p.observed_masks)
    for name in ("max_time", "clip_grad_norm"):
        if getattr(p, name) is not None:
            _check_number(name, getattr(p, name))
    for name in ("dropout", "ema_decay"):
        if not 0 <= getattr(p, name) < 1:
            raise ValueError(f"{name} must lie in [0, 1), however: {getattr(p, name)!r}.")
    if isinstance(p.autoguidance, str):
        allowed = p.autoguidance == "auto"
    else:
        _check_number("autoguidance", p.autoguidance)
        allowed = p.autoguidance >= 0
    if not allowed:
        raise ValueError(f"autoguidance must be 'auto' or a number of at least 0, however: {p.autoguidance!r}.")
    for name in ("condition_dropout", *(["observed_masks"] if p.observed_masks != "auto" else [])):
        if not 0 <= getattr(p, name) <= 1:
            raise ValueError(f"{name} must lie in [0, 1], however: {getattr(p, name)!r}.")
    if rate and not p.learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, however: {p.learning_rate!r}.")
    _check_training(p)
    if not p.weight_decay >= 0:
        raise ValueError(f"weight_decay must be at least 0, however: {p.weight_decay!r}.")
    for name in ("max_time", "clip_grad_norm"):
        value = getattr(p, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be None or positive, however: {value!r}.")


def _check_training(p: Any) -> None:
    """Check what says when training stops, and who watches it."""
    for name in ("early_stopping", "warm_start", "latent_diffusion"):
        if not isinstance(getattr(p, name), bool | np.bool_):
            raise ValueError(f"{name} must be True or False, however: {getattr(p, name)!r}.")
    _check_number("validation_fraction", p.validation_fraction)
    if not 0 < p.validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie in (0, 1), however: {p.validation_fraction!r}.")
    if not _is_positive_integer(p.patience):
        raise ValueError(f"patience must be an integer of at least 1, however: {p.patience!r}.")
    _check_number("checkpoint_every", p.checkpoint_every)
    if not p.checkpoint_every >= 0:
        raise ValueError(f"checkpoint_every must be at least 0 seconds, however: {p.checkpoint_every!r}.")
    if p.checkpoint_dir is not None and not isinstance(p.checkpoint_dir, str | os.PathLike):
        raise ValueError(f"checkpoint_dir must be None or the path of a folder, however: {p.checkpoint_dir!r}.")
    if p.callbacks is not None and not isinstance(p.callbacks, list | tuple):
        raise ValueError(f"callbacks must be None or a list of callbacks, however: {p.callbacks!r}.")
    for callback in p.callbacks or ():
        missing = [name for name in vars(Callback) if name.startswith("on_") and not hasattr(callback, name)]
        if missing or isinstance(callback, type):
            raise ValueError(
                "each of callbacks must be an object with the methods of tabdiff.training.Callback, however: "
                f"{callback!r}{' is a class; make an object of it' if not missing else f' lacks {missing}'}."
            )


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number, however: {value!r}.")


def _is_positive_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)
