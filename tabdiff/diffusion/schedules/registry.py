"""Noise schedules by name; `tabdiff.diffusion.schedules.base` says what a schedule is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tabdiff.diffusion.schedules.base import Schedule
from tabdiff.diffusion.schedules.continuous import (
    CosineSchedule,
    EDMSchedule,
    OffsetCosineSchedule,
    RectifiedFlowSchedule,
    SigmoidSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)
from tabdiff.diffusion.schedules.discrete import (
    DiscreteCosineSchedule,
    DiscreteLinearSchedule,
    ShiftedSchedule,
    ZeroTerminalSNRSchedule,
)

__all__ = [
    "SCHEDULES",
    "CosineSchedule",
    "DiscreteCosineSchedule",
    "DiscreteLinearSchedule",
    "EDMSchedule",
    "OffsetCosineSchedule",
    "RectifiedFlowSchedule",
    "Schedule",
    "ShiftedSchedule",
    "SigmoidSchedule",
    "SubVPSchedule",
    "VESchedule",
    "VPSchedule",
    "ZeroTerminalSNRSchedule",
    "make_schedule",
    "schedule_from_config",
]

_CONTINUOUS: dict[str, type[Schedule]] = {
    "cosine": CosineSchedule,
    "offset_cosine": OffsetCosineSchedule,
    "linear": VPSchedule,
    "sigmoid": SigmoidSchedule,
    "vp": VPSchedule,
    "sub_vp": SubVPSchedule,
    "ve": VESchedule,
    "rectified_flow": RectifiedFlowSchedule,
    "edm": EDMSchedule,
}
_DISCRETE: dict[str, Callable[[int], Schedule]] = {
    "cosine": DiscreteCosineSchedule,
    "linear": DiscreteLinearSchedule,
}
_OTHERS: tuple[type[Schedule], ...] = (
    DiscreteCosineSchedule,
    DiscreteLinearSchedule,
    ZeroTerminalSNRSchedule,
    ShiftedSchedule,
)
SCHEDULES = tuple(_CONTINUOUS)
_BY_NAME = {cls.name: cls for cls in (*_CONTINUOUS.values(), *_OTHERS)}


def make_schedule(schedule: str | Schedule, n_timesteps: int | None = None) -> Schedule:
    """Return a schedule by its name; a schedule object is returned as it is.

    Parameters
    ----------
    schedule : str or Schedule
        "cosine", "offset_cosine", "linear", "sigmoid", "vp", "sub_vp", "ve", "rectified_flow", "edm", or an
        object. "linear" in continuous time is the VP-SDE; "cosine" with `n_timesteps` is the published one with an
        offset of .008, "offset_cosine" the same in continuous time.
    n_timesteps : int, optional
        Number of steps of a discrete schedule ("cosine" and "linear"); None for continuous time.

    Returns
    -------
    Schedule
        The schedule of that name.

    Raises
    ------
    ValueError
        If the name is unknown, or names a schedule that has no discrete form while `n_timesteps` is given, or
        an object is given whose `n_timesteps` differs from the one asked for.

    Examples
    --------
    >>> make_schedule("cosine").config()
    {'name': 'cosine', 't_min': 0.001, 't_max': 0.999}
    >>> float(make_schedule("linear", 1000).alpha(1.0) ** 2)  # doctest: +ELLIPSIS
    4.0358...e-05
    """
    if isinstance(schedule, Schedule):
        if n_timesteps not in (None, schedule.n_timesteps):
            raise ValueError(
                f"the schedule given has n_timesteps={schedule.n_timesteps}, but n_timesteps={n_timesteps} was asked "
                "for; leave n_timesteps out when you pass an object"
            )
        return schedule
    if schedule not in _CONTINUOUS:
        raise ValueError(f"unknown schedule {schedule!r}; known ones are {', '.join(sorted(_CONTINUOUS))}")
    if n_timesteps is None:
        return _CONTINUOUS[schedule]()
    if schedule not in _DISCRETE:
        raise ValueError(
            f"schedule must be {' or '.join(map(repr, sorted(_DISCRETE)))} with n_timesteps={n_timesteps}; got "
            f"{schedule!r}, which is defined in continuous time only. Leave n_timesteps out, or use "
            "schedule='cosine', which then has the published offset."
        )
    return _DISCRETE[schedule](n_timesteps)


def schedule_from_config(config: dict[str, Any]) -> Schedule:
    """Return the schedule that `Schedule.config` described.

    Parameters
    ----------
    config : dict
        What `Schedule.config` returned.

    Returns
    -------
    Schedule
        An equal schedule.

    Raises
    ------
    ValueError
        If the dict names no known schedule.

    Examples
    --------
    >>> from tabdiff.diffusion import CosineSchedule, schedule_from_config
    >>> schedule_from_config(CosineSchedule().config())
    CosineSchedule(t_min=0.001, t_max=0.999)
    """
    if config.get("name") not in _BY_NAME:
        raise ValueError(f"unknown schedule {config.get('name')!r}; known ones are {', '.join(sorted(_BY_NAME))}")
    values = {
        key: schedule_from_config(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key != "name"
    }
    return _BY_NAME[config["name"]](**values)
