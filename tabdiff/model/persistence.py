"""A fitted model as a plain description, and back: what `save` writes and `load` reads."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tabdiff.codecs import CODECS, codec_name
from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.codecs.sequences import SequenceForm
from tabdiff.diffusion import Denoiser, make_path
from tabdiff.io.csv_files import CsvForm
from tabdiff.io.frames import ForeignFrame
from tabdiff.model.autoguidance import build_guiding_denoiser
from tabdiff.model.build import build_denoiser
from tabdiff.model.config import ModelConfig
from tabdiff.model.distillation import Distilled
from tabdiff.model.fitted import FittedModel
from tabdiff.model.networks import NetworkSettings, settings_from_state, settings_to_state
from tabdiff.model.old_names import current_loss, current_names, had_no_options
from tabdiff.model.refinement.refinement import Refinement
from tabdiff.training import PrivacyBudget, TrainingOptions

__all__ = ["describe", "restore"]

# Elements that a model may always make beside those of its weights: a schedule's table, say.
SMALL = 10_000_000


def describe(model: FittedModel, parameters: dict[str, Any]) -> dict:
    """Describe a fitted model, and the parameters of its estimator, by JSON types and arrays.

    Raises
    ------
    TypeError
        If its denoiser is a callable.
    """
    if model.config.custom:
        raise TypeError("a model whose denoiser is a callable cannot be saved as data; use joblib.dump.")
    few = model.distilled
    networks = (model.denoiser, model.guiding_denoiser, None if few is None else few.denoiser)
    weights, guiding, distilled = (_arrays(denoiser) for denoiser in networks)
    return {
        "container": codec_name(model.codec),
        # The seed of a private fit is that of its noise, which could be taken off by it.
        "parameters": _plain_parameters(parameters | ({"random_state": None} if model.privacy is not None else {})),
        "spec": model.config.state(),
        "codec": model.codec.state(),
        "conditions": model.conditions.state() if model.conditions is not None else None,
        "refinement": model.refinement.state() if model.refinement is not None else None,
        "source": model.source,
        "columns": model.columns,
        "origin": model.origin.state() if model.origin is not None else None,
        "n_features_in": model.n_features,
        "feature_names_in": None if model.feature_names is None else list(model.feature_names),
        "history": model.history,
        "n_steps": model.n_steps,
        "n_samples_fit": model.n_samples,
        "stream": json.dumps(model.stream.bit_generator.state),
        "weights": list(weights),
        "weak_weights": list(guiding),
        "autoguidance": model.autoguidance,
        "distilled": None if few is None else {"times": list(few.times), "weights": list(distilled)},
        "privacy": model.privacy,
        "arrays": {f"w{i}": w for i, w in enumerate(w for own in (weights, guiding, distilled) for w in own.values())},
    }


def _plain_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON types, with defaults for what belongs to one fit or one machine."""
    plain = dict(parameters)
    # Objects cannot be saved as parameters. The fitted schedule and loss stand in the specification; how times were
    # drawn, a random state and another network matter only to a new fit.
    defaults: dict[str, Any] = {"denoiser": "auto", "schedule": None, "loss": None}
    defaults |= {"random_state": None, "text_encoder": None}
    for name, default in defaults.items():
        if not isinstance(plain[name], str | int | np.integer | None):
            plain[name] = default
    if plain["training"] is not None:
        options = plain["training"].get_params(deep=False)
        plain["training"] = options if isinstance(options["times"], str) else {**options, "times": "stratified"}
        if options["distillation"] is False:
            plain["training"].pop("distillation")  # earlier versions know no such option
        if options.get("privacy") is None:
            plain["training"].pop("privacy", None)  # earlier versions know no such option
        else:
            budget = options["privacy"].get_params(deep=False)
            public = [[name, isinstance(v, tuple), list(v)] for name, v in (budget["public"] or {}).items()]
            plain["training"] = {**plain["training"], "privacy": {**budget, "public": public}}
    if isinstance(parameters["denoiser"], NetworkSettings):
        plain["denoiser"] = settings_to_state(parameters["denoiser"])
    if plain["codec"] is not None:
        settings = plain["codec"].get_params(deep=False)
        plain["codec"] = {"codec": codec_name(plain["codec"])} | {k: _listed(v) for k, v in settings.items()}
    plain["device"] = "auto"
    # Who watches a fit is of one machine and no part of the model.
    plain["callbacks"] = None
    if isinstance(plain["condition_dropout"], dict):  # names may be other than strings, which keys of JSON are not
        plain["condition_dropout"] = list(plain["condition_dropout"].items())
    plain["categorical_features"] = _listed(plain["categorical_features"])
    return plain


def _listed(value: Any) -> Any:
    """Return what may be a sequence of names as a list."""
    return value if value is None or isinstance(value, str | int | float) else list(value)


def _arrays(denoiser: Denoiser | None) -> dict[str, np.ndarray]:
    """Return the weights of a network by name; none where there is none."""
    return {} if denoiser is None else {k: v.detach().cpu().numpy() for k, v in denoiser.state_dict().items()}


def restore(saved: dict) -> tuple[FittedModel, dict[str, Any]]:
    """Make the model that a description describes, its networks on the CPU, and the parameters of its estimator.

    Raises
    ------
    ValueError
        If its parts do not fit together. A description that was tampered with can raise anything else too.
    """
    names = saved["weights"]
    guiding_names = saved.get("weak_weights", [])  # earlier versions had no guiding denoiser
    few = saved.get("distilled")  # nor one of few steps
    few_names = [] if few is None else few["weights"]
    n_arrays = len(names) + len(guiding_names) + len(few_names)
    arrays = [torch.from_numpy(np.array(saved["arrays"][f"w{i}"])) for i in range(n_arrays)]
    taken = iter(arrays)
    weights, guiding_weights, few_weights = (
        {name: next(taken) for name in own} for own in (names, guiding_names, few_names)
    )
    # Until a network with these weights stands, sizes are claims.
    with _SizeLimit(4 * sum(w.numel() for w in arrays) + SMALL):
        config = ModelConfig.from_state(_current_spec(saved))
        denoiser = build_denoiser(config, config.network, 0)
        guiding = build_guiding_denoiser(config) if guiding_weights else None
        distilled = None if few is None else Distilled(build_denoiser(config, config.network, 0), tuple(few["times"]))
    fitted: dict[str, Any] = {"schedule": config.schedule, "loss": config.loss}
    parameters = current_names(saved)
    parameters = {k: fitted[k] if k in fitted and v is None else v for k, v in parameters.items()}
    del parameters["device"]
    if isinstance(parameters.get("condition_dropout"), list):
        parameters["condition_dropout"] = dict(parameters["condition_dropout"])
    if isinstance(parameters["denoiser"], dict):
        parameters["denoiser"] = settings_from_state(parameters["denoiser"])
    if parameters["codec"] is not None:
        settings = dict(parameters["codec"])
        parameters["codec"] = CODECS[settings.pop("codec")](**settings)
    if parameters["training"] is not None:
        options = dict(parameters["training"])
        if options.get("privacy") is not None:
            public = {name: tuple(v) if span else list(v) for name, span, v in options["privacy"]["public"]}
            options["privacy"] = PrivacyBudget(**{**options["privacy"], "public": public or None})
        parameters["training"] = TrainingOptions(**options)
    codec = CODECS[saved["container"]].from_state(saved["codec"])
    _take_weights(denoiser, weights)
    if guiding is not None:
        _take_weights(guiding, guiding_weights)
    if distilled is not None:
        _take_weights(distilled.denoiser, few_weights)
        make_path(config.schedule, 1, list(distilled.times))  # raises for times that are none
    _check_codec(config, codec)
    origin = saved["origin"]
    forms: dict[str, Any] = {"sequences": SequenceForm, "csv": CsvForm, "backend": ForeignFrame}
    stream = np.random.default_rng()
    stream.bit_generator.state = json.loads(saved["stream"])
    feature_names = saved["feature_names_in"]
    model = FittedModel(
        config=config,
        codec=codec,
        denoiser=denoiser,
        conditions=Conditions.from_state(saved["conditions"]) if saved["conditions"] else None,
        source=saved["source"],
        columns=saved["columns"],
        origin=next(forms[key] for key in forms if key in origin).from_state(origin) if origin else None,
        n_features=saved["n_features_in"],
        feature_names=None if feature_names is None else np.asarray(feature_names, dtype=object),
        stream=stream,
        refinement=Refinement.from_state(saved["refinement"]) if saved["refinement"] else None,
        guiding_denoiser=guiding,
        autoguidance=float(saved.get("autoguidance", 1.0)),
        distilled=distilled,
        history=saved["history"],
        n_steps=saved["n_steps"],
        n_samples=saved["n_samples_fit"],
        precision=parameters["precision"],
        privacy=saved.get("privacy"),
    )
    return model, parameters


def _take_weights(denoiser: Denoiser, weights: dict[str, Tensor]) -> None:
    """Give a denoiser the weights that were saved, checked, and make it one that is not trained."""
    _check_weights(weights, denoiser.state_dict())
    denoiser.load_state_dict(weights)
    denoiser.eval().requires_grad_(False)


def _current_spec(saved: dict) -> dict:
    """Return the description of what a network was built from, in the words of this version."""
    spec = saved["spec"]
    if not had_no_options(saved["parameters"]):
        return spec
    loss = {**spec["loss"], "weighting": current_loss(spec["loss"]["weighting"])}
    return {**spec, "loss": loss}


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
    drawn = (spec.n_continuous, [len(f) for f in spec.frequencies])
    decoded = (codec.n_continuous_, list(codec.n_levels_))
    if drawn != decoded:
        raise ValueError(f"the network draws {drawn}, and the codec decodes {decoded} numbers and levels")
