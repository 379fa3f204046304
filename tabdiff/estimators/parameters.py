"""What each parameter may be, checked before anything is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from tabdiff.codecs.base import Codec
from tabdiff.codecs.conditions.text import check_text_encoder
from tabdiff.diffusion import make_loss
from tabdiff.model.networks import check_denoiser
from tabdiff.training import Callback
from tabdiff.training.options import options_of
from tabdiff.utils.validation import is_integer, is_number

__all__ = ["check_parameters"]


def check_parameters(parameters: Any) -> None:
    """Raise a ValueError that names the first parameter out of range and what is allowed."""
    p = parameters
    check_denoiser(p)
    if p.variance not in ("fixed", "learned"):
        raise ValueError(f"variance must be 'fixed' or 'learned'; got {p.variance!r}.")
    check_text_encoder(p.text_encoder)
    make_loss(p.loss)  # raises where a name is unknown
    options_of(p.training)
    for name in ("hidden_size", "n_blocks", "max_steps", "batch_size"):
        value = getattr(p, name)
        if value != "auto" and not is_integer(value, 1):
            raise ValueError(f"{name} must be 'auto' or an integer of at least 1; got {value!r}.")
    if not isinstance(p.refine, bool | np.bool_) and p.refine != "auto":
        raise ValueError(f"refine must be 'auto', True or False; got {p.refine!r}.")
    if p.n_timesteps is not None and not is_integer(p.n_timesteps, 2):
        raise ValueError(f"n_timesteps must be None or an integer of at least 2; got {p.n_timesteps!r}.")
    if p.codec is not None:
        if not isinstance(p.codec, Codec):
            raise TypeError(
                f"codec must be None or an object such as tabdiff.TableCodec(); got {p.codec!r:.80}. Leave it out."
            )
        p.codec.check()
    rate = () if isinstance(p.learning_rate, str) and p.learning_rate == "auto" else ("learning_rate",)
    _check_condition_dropout(p.condition_dropout)
    for name in rate:
        _check_number(name, getattr(p, name))
    if p.max_time is not None:
        _check_number("max_time", p.max_time)
    if isinstance(p.autoguidance, str):
        allowed = p.autoguidance == "auto"
    else:
        _check_number("autoguidance", p.autoguidance)
        allowed = p.autoguidance >= 0
    if not allowed:
        raise ValueError(f"autoguidance must be 'auto' or a number of at least 0; got {p.autoguidance!r}.")
    if rate and not p.learning_rate > 0:
        raise ValueError(f"learning_rate must be positive; got {p.learning_rate!r}.")
    _check_training(p)
    if p.max_time is not None and not p.max_time > 0:
        raise ValueError(f"max_time must be None or positive; got {p.max_time!r}.")


def _check_condition_dropout(value: Any) -> None:
    for name, share in value.items() if isinstance(value, dict) else [(None, value)]:
        shown = "condition_dropout" if name is None else f"condition_dropout[{name!r}]"
        _check_number(shown, share)
        if not 0 <= share <= 1:
            raise ValueError(f"{shown} must lie in [0, 1]; got {share!r}.")


def _check_training(p: Any) -> None:
    """Check what says when training stops, and who watches it."""
    for name in ("early_stopping", "warm_start"):
        if not isinstance(getattr(p, name), bool | np.bool_):
            raise ValueError(f"{name} must be True or False; got {getattr(p, name)!r}.")
    _check_number("validation_fraction", p.validation_fraction)
    if not 0 < p.validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie in (0, 1); got {p.validation_fraction!r}.")
    if not is_integer(p.n_iter_no_change, 1):
        raise ValueError(f"n_iter_no_change must be an integer of at least 1; got {p.n_iter_no_change!r}.")
    if p.callbacks is not None and not isinstance(p.callbacks, list | tuple):
        raise ValueError(f"callbacks must be None or a list of callbacks; got {p.callbacks!r}.")
    for callback in p.callbacks or ():
        missing = [name for name in vars(Callback) if name.startswith("on_") and not hasattr(callback, name)]
        if missing or isinstance(callback, type):
            raise ValueError(
                "each of callbacks must be an object with the methods of tabdiff.training.Callback; got "
                f"{callback!r}{' is a class; make an object of it' if not missing else f' lacks {missing}'}."
            )


def _check_number(name: str, value: Any) -> None:
    if not is_number(value):
        raise ValueError(f"{name} must be a finite number; got {value!r}.")
