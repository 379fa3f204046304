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
# Into an object of options: what to write instead.
TRAINING = ("weight_decay", "ema_decay", "clip_grad_norm", "accumulation_steps", "learning_rate_schedule", "times")
NETWORK = ("dropout", "time_embedding", "conditioning")
MOVED = {
    **{name: f"training=TrainingOptions({name}=...)" for name in (*TRAINING, "observed_masks")},
    **{name: f"denoiser=MLP({name}=...), or DiT or UNet" for name in NETWORK},
    "dependencies": "codec=TableCodec(dependencies=...)",
    "augment": "codec=ImageCodec(augment=...)",
    "latent_diffusion": "codec=LatentImageCodec()",
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
        if name in MOVED:
            return f"{name} moved: {MOVED[name]}"
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


def current_names(saved: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a saved model, of this or an earlier version, under the names of this one.

    Options are dicts of their own, as in what this version saves.

    Parameters
    ----------
    saved : dict
        The model's description, as `tabdiff.model.persistence.describe` makes it.
    """
    parameters = saved["parameters"]
    if had_no_options(parameters):
        parameters = {RENAMED.get(name, name): value for name, value in parameters.items() if name not in REPLACED}
        parameters["training"] = {name: parameters.pop(name) for name in TRAINING if name in parameters}
        if isinstance(parameters.get("loss"), str):
            parameters["loss"] = current_loss(parameters["loss"])
    if "codec" in parameters:
        return parameters
    return _with_objects(parameters, saved["container"], saved["spec"].get("network", "mlp"))


def _with_objects(parameters: dict[str, Any], container: str, network: str) -> dict[str, Any]:
    """Return parameters of the version before networks and codecs had objects, with what was set in these."""
    found = dict(parameters)
    masks = found.pop("observed_masks", "auto")
    if masks != "auto":
        found["training"] = {**(found["training"] or {}), "observed_masks": masks}
    settings = {name: found.pop(name) for name in NETWORK if name in found}
    usual = {"dropout": 0.0, "time_embedding": "sinusoidal", "conditioning": "auto"}
    if not isinstance(found["denoiser"], dict) and any(value != usual[name] for name, value in settings.items()):
        found["denoiser"] = {"network": network, **settings}
    dependencies, augment = found.pop("dependencies", True), found.pop("augment", None)
    latent = found.pop("latent_diffusion", False)
    found["codec"] = None
    if not dependencies and container in ("table", "array"):
        found["codec"] = {"codec": container, "dependencies": False}
    if latent or augment:
        found["codec"] = {"codec": "latent_images" if latent else "images", "augment": augment}
    return found


def had_no_options(parameters: dict[str, Any]) -> bool:
    """Return whether parameters of a saved model are of a version before `training` held options."""
    return "training" not in parameters


def current_loss(weighting: str) -> str:
    """Return what a loss that an earlier version saved is called now."""
    return RENAMED_LOSSES.get(weighting, weighting)
