"""Parameters that had another name or place: what to write instead, and how models that were saved with them are read.

A parameter that moves gets a line in one of the tables; nothing else needs to know of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["current_names", "refuse_old_names", "what_replaces"]

P = ParamSpec("P")
S = TypeVar("S")

RENAMED = {"patience": "n_iter_no_change"}
# Into an object of options, by the parameter that holds it.
MOVED = {
    "training": (
        "TrainingOptions",
        ("weight_decay", "ema_decay", "clip_grad_norm", "accumulation_steps", "learning_rate_schedule", "times"),
    ),
}
REPLACED = {
    "checkpoint_dir": "callbacks=[Checkpoint(folder)]",
    "checkpoint_every": "callbacks=[Checkpoint(folder, every=...)]",
}
# Losses whose name means something else today.
RENAMED_LOSSES = {"inverse_snr": "clipped_inverse_snr"}


def what_replaces(names: Iterable[str]) -> str | None:
    """Return a sentence that says what to write instead of the first old name, None where there is none."""
    for name in names:
        if name in RENAMED:
            return f"{name} is called {RENAMED[name]} now: {RENAMED[name]}=..."
        if name in REPLACED:
            return f"{name} became a callback of tabdiff.training: {REPLACED[name]}"
        for parameter, (kind, moved) in MOVED.items():
            if name in moved:
                return f"{name} moved: {parameter}={kind}({name}=...)"
    return None


def refuse_old_names(init: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Have a constructor raise a TypeError that says what to write instead of an old name.

    The constructor keeps its signature, which scikit-learn reads the parameters from.
    """

    @functools.wraps(init)
    def checked(self: S, /, *args: P.args, **parameters: P.kwargs) -> None:
        message = what_replaces(parameters)
        if message is not None:
            raise TypeError(message)
        init(self, *args, **parameters)

    return checked


def current_names(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of a saved model, of this or an earlier version, under the names of this one.

    Options are dicts of their own, as in what this version saves.
    """
    if not is_old(parameters):
        return parameters
    found = {RENAMED.get(name, name): value for name, value in parameters.items() if name not in REPLACED}
    for parameter, (_, moved) in MOVED.items():
        found[parameter] = {name: found.pop(name) for name in moved if name in found}
    if isinstance(found.get("loss"), str):
        found["loss"] = current_loss(found["loss"])
    return found


def is_old(parameters: dict[str, Any]) -> bool:
    """Return whether parameters of a saved model are of a version before `training` held options."""
    return "training" not in parameters


def current_loss(weighting: str) -> str:
    """Return what a loss that an earlier version saved is called now."""
    return RENAMED_LOSSES.get(weighting, weighting)
