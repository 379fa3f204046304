"""A fitted generator as a plain description, and back: what `save` writes and `load` reads."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tabdiff.codecs import CODECS
from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.codecs.sequences import SequenceForm
from tabdiff.diffusion import Denoiser
from tabdiff.io.frames import ForeignFrame
from tabdiff.model.autoguidance import build_weak
from tabdiff.model.build import build_denoiser
from tabdiff.model.config import ModelConfig
from tabdiff.model.refinement.refinement import Refinement

if TYPE_CHECKING:
    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = ["codec_name", "container_name", "describe", "give_encoder", "restore"]

# Elements that a model may always make beside those of its weights: a schedule's table, say.
SMALL = 10_000_000


def codec_name(codec: Any) -> str:
    """Return the name of a codec in `CODECS`."""
    return next(name for name, kind in CODECS.items() if type(codec) is kind)


def container_name(codec: Any) -> str:
    """Return what a codec is for: "array", "table", "cells", "images" or "sequences"."""
    name = codec_name(codec)
    return "images" if name == "latent_images" else name


def describe(gen: DiffusionGenerator) -> dict:
    """Describe a fitted generator by JSON types and arrays.

    Raises
    ------
    TypeError
        If its denoiser is a callable.
    """
    if gen._spec.custom:
        raise TypeError("a model whose denoiser is a callable cannot be saved as data; use joblib.dump.")
    parameters = gen.get_params()
    # Objects cannot be saved as parameters. The fitted schedule and loss stand in the specification; how times were
    # drawn, a random state and another network matter only to a new fit.
    defaults: dict[str, Any] = {"denoiser": "auto", "schedule": None, "loss": None, "times": "stratified"}
    defaults |= {"random_state": None, "text_encoder": None}
    for name, default in defaults.items():
        if not isinstance(parameters[name], str | int | np.integer | None):
            parameters[name] = default
    parameters["device"] = "auto"
    # Who watches a fit, and where it may be taken up again, is of one machine and no part of the model.
    parameters["callbacks"] = parameters["checkpoint_dir"] = None
    if not isinstance(gen.categorical_features, str):
        parameters["categorical_features"] = list(gen.categorical_features)
    weights, weak = (_arrays(denoiser) for denoiser in (gen.denoiser_, gen.weak_))
    return {
        "container": codec_name(gen.codec_),
        "parameters": parameters,
        "spec": gen._spec.state(),
        "codec": gen.codec_.state(),
        "conditions": gen.conditions_.state() if gen.conditions_ is not None else None,
        "refinement": gen.refinement_.state() if gen.refinement_ is not None else None,
        "source": gen._source,
        "columns": gen._columns,
        "origin": gen._origin.state() if gen._origin is not None else None,
        "n_features_in": gen.n_features_in_,
        "feature_names_in": list(gen.feature_names_in_) if hasattr(gen, "feature_names_in_") else None,
        "history": gen.history_,
        "n_steps": gen.n_steps_,
        "n_samples_fit": gen.n_samples_fit_,
        "stream": json.dumps(gen._stream.bit_generator.state),
        "weights": list(weights),
        "weak_weights": list(weak),
        "autoguidance": gen.autoguidance_,
        "arrays": {f"w{i}": w for i, w in enumerate((*weights.values(), *weak.values()))},
    }


def _arrays(denoiser: Denoiser | None) -> dict[str, np.ndarray]:
    """Return the weights of a network by name; none where there is none."""
    return {} if denoiser is None else {k: v.detach().cpu().numpy() for k, v in denoiser.state_dict().items()}


def restore(cls: type[DiffusionGenerator], saved: dict, asked: Any) -> DiffusionGenerator:
    """Make the generator that a description describes, its network on the CPU; `asked` becomes its device.

    Raises
    ------
    ValueError
        If its parts do not fit together. A description that was tampered with can raise anything else too.
    """
    names = saved["weights"]
    weak_names = saved.get("weak_weights", [])  # earlier versions had no small network
    arrays = [torch.from_numpy(np.array(saved["arrays"][f"w{i}"])) for i in range(len(names) + len(weak_names))]
    weights = dict(zip(names, arrays[: len(names)], strict=True))
    weak_weights = dict(zip(weak_names, arrays[len(names) :], strict=True))
    # Until a network with these weights stands, sizes are claims.
    with _SizeLimit(4 * sum(w.numel() for w in arrays) + SMALL):
        spec = ModelConfig.from_state(saved["spec"])
        denoiser = build_denoiser(spec, spec.network, 0)
        weak = build_weak(spec) if weak_weights else None
    parameters: dict[str, Any] = {**saved["parameters"], "device": asked}
    fitted: dict[str, Any] = {"schedule": spec.schedule, "loss": spec.loss}
    gen = cls(**{k: fitted[k] if k in fitted and v is None else v for k, v in parameters.items()})
    gen.codec_ = CODECS[saved["container"]].from_state(saved["codec"])
    gen.conditions_ = Conditions.from_state(saved["conditions"]) if saved["conditions"] else None
    gen.refinement_ = Refinement.from_state(saved["refinement"]) if saved["refinement"] else None
    _check_weights(weights, denoiser.state_dict())
    denoiser.load_state_dict(weights)
    gen.denoiser_ = denoiser.eval().requires_grad_(False)
    if weak is not None:
        _check_weights(weak_weights, weak.state_dict())
        weak.load_state_dict(weak_weights)
        weak.eval().requires_grad_(False)
    gen.weak_, gen.autoguidance_ = weak, float(saved.get("autoguidance", 1.0))
    gen.history_, gen.n_steps_ = saved["history"], saved["n_steps"]
    gen._spec, gen._source, gen._columns = spec, saved["source"], saved["columns"]
    origin = saved["origin"]
    forms: Any = SequenceForm if origin and "sequences" in origin else ForeignFrame
    gen._origin = forms.from_state(origin) if origin else None
    gen.n_features_in_, gen.n_samples_fit_ = saved["n_features_in"], saved["n_samples_fit"]
    if saved["feature_names_in"] is not None:
        gen.feature_names_in_ = np.asarray(saved["feature_names_in"], dtype=object)
    gen._stream = np.random.default_rng()
    gen._stream.bit_generator.state = json.loads(saved["stream"])
    _check_codec(spec, gen.codec_)
    return gen


class _SizeLimit(TorchFunctionMode):
    """Raise a ValueError where new tensors take more than `limit` elements, all of them together."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
            size = kwargs.get("size", args[0] if args and isinstance(args[0], tuple | list) else args)
            self.left -= math.prod(int(n) for n in size)
        elif func in (torch.linspace, torch.logspace):
            self.left -= int(kwargs.get("steps", args[2] if len(args) > 2 else 0))
        elif func is torch.arange:
            self.left -= max((int(n) for n in args[:2]), default=0)
        if self.left < 0:
            raise ValueError("the network is said to be larger than its weights")
        return func(*args, **kwargs)


def _check_weights(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise a ValueError unless weights are those that a network needs, in shape and dtype, and finite."""
    if expected.keys() != weights.keys():
        raise ValueError(f"the network's weights differ in {sorted(expected.keys() ^ weights.keys())[:5]}")
    for name, wanted in expected.items():
        value = weights[name]
        if (value.shape, value.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"weight {name} has shape {tuple(value.shape)} of {value.dtype}, and the network needs "
                f"{tuple(wanted.shape)} of {wanted.dtype}"
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"weight {name} is not finite")


def _check_codec(spec: ModelConfig, codec: Any) -> None:
    """Raise a ValueError unless a codec decodes what the network draws."""
    if hasattr(codec, "n_continuous_"):
        drawn = (spec.n_continuous, [len(f) for f in spec.frequencies])
        decoded = (codec.n_continuous_, list(codec.n_levels_))
        if drawn != decoded:
            raise ValueError(f"the network draws {drawn}, and the codec decodes {decoded} numbers and levels")


def give_encoder(gen: DiffusionGenerator, text_encoder: Any) -> DiffusionGenerator:
    """Return a loaded generator with its text encoder.

    Raises
    ------
    ValueError
        If none of its conditions is text, or the encoder's vectors have another length.
    """
    if text_encoder is None:
        return gen
    if gen.conditions_ is None or not gen.conditions_.has_text:
        raise ValueError("text_encoder was given, but the model has no condition that is text.")
    gen.conditions_.bind(text_encoder)
    return gen.set_params(text_encoder=text_encoder)
