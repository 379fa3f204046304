"""The mathematics of diffusion, on tensors alone.

``schedules`` say how much noise there is at a time, ``targets`` what a network predicts, ``losses``, ``time_sampling``
and ``learned_variance`` how it is trained. ``denoiser`` makes an estimate of the clean row of it, ``mixed_denoiser`` of
rows with categories (``segment_softmax``) and ``masks`` of rows of which some entries are given; ``oracles`` are exact
ones, ``guidance`` and ``posterior`` (of measurements, by ``operators``) push one. ``samplers`` and ``inversion`` walk
between noise and rows, ``generate`` draws rows in batches, and ``likelihood`` and ``bound`` (with ``bound_terms`` and
``cubature``) weigh rows.
"""

from tabdiff.diffusion.bound import variational_bound
from tabdiff.diffusion.denoiser import Denoiser, DenoiserLike, coefficients
from tabdiff.diffusion.guidance import (
    AutoGuidance,
    CFGPlusPlus,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    MultiConditionGuidance,
)
from tabdiff.diffusion.inversion import encode, interpolate, slerp
from tabdiff.diffusion.likelihood import bits_per_dim, dequantise, flow_log_likelihood
from tabdiff.diffusion.losses import LOSSES, Loss, elbo_weight, make_loss, x0_factor
from tabdiff.diffusion.oracles import GaussianDenoiser, MixtureDenoiser
from tabdiff.diffusion.posterior import PosteriorGuidance, RePaint, sample_known
from tabdiff.diffusion.samplers.ancestral import DDIM, DDPM, PredictorCorrector
from tabdiff.diffusion.samplers.base import Model, Sampler
from tabdiff.diffusion.samplers.grids import GRIDS, Node, make_path, node_at, time_grid
from tabdiff.diffusion.samplers.multistep import DPMpp2M, DPMpp3M, UniPC
from tabdiff.diffusion.samplers.runge_kutta import RK4, RK45, Euler, EulerMaruyama, Heun
from tabdiff.diffusion.samplers.sample import METHODS, SampleState, make_sampler, sample
from tabdiff.diffusion.schedules.registry import (
    CosineSchedule,
    DiscreteCosineSchedule,
    DiscreteLinearSchedule,
    EDMSchedule,
    OffsetCosineSchedule,
    RectifiedFlowSchedule,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNRSchedule,
    make_schedule,
    schedule_from_config,
)
from tabdiff.diffusion.targets import TARGETS, convert, edm_coefficients, target_of, to_eps, to_x0
from tabdiff.diffusion.time_sampling import LogitNormal, LogNormal, LossAware, Times, make_times, stratified, uniform

__all__ = [
    "AutoGuidance",
    "CFGPlusPlus",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "CosineSchedule",
    "DDIM",
    "DDPM",
    "DPMpp2M",
    "DPMpp3M",
    "Denoiser",
    "DenoiserLike",
    "DiscreteCosineSchedule",
    "DiscreteLinearSchedule",
    "EDMSchedule",
    "Euler",
    "EulerMaruyama",
    "GRIDS",
    "GaussianDenoiser",
    "Heun",
    "LOSSES",
    "LogNormal",
    "LogitNormal",
    "Loss",
    "LossAware",
    "METHODS",
    "MixtureDenoiser",
    "Model",
    "MultiConditionGuidance",
    "Node",
    "OffsetCosineSchedule",
    "PosteriorGuidance",
    "PredictorCorrector",
    "RK4",
    "RK45",
    "RePaint",
    "RectifiedFlowSchedule",
    "SampleState",
    "Sampler",
    "Schedule",
    "ShiftedSchedule",
    "SigmoidSchedule",
    "SubVPSchedule",
    "TARGETS",
    "Times",
    "UniPC",
    "VESchedule",
    "VPSchedule",
    "ZeroTerminalSNRSchedule",
    "bits_per_dim",
    "coefficients",
    "convert",
    "dequantise",
    "edm_coefficients",
    "elbo_weight",
    "encode",
    "flow_log_likelihood",
    "interpolate",
    "make_loss",
    "make_path",
    "make_sampler",
    "make_schedule",
    "make_times",
    "node_at",
    "sample",
    "sample_known",
    "schedule_from_config",
    "slerp",
    "stratified",
    "target_of",
    "time_grid",
    "to_eps",
    "to_x0",
    "uniform",
    "variational_bound",
    "x0_factor",
]
