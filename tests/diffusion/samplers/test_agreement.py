"""Samplers against diffusers and k-diffusion, whose samples `agreement/make.py` recorded.

Where this package departs from them on purpose, an option turns the departure off, and it agrees. What is left are
single-precision steps inside diffusers' multistep schedulers, and of its Euler and Heun.
"""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

from tabdiff.diffusion import (
    DDIM,
    DDPM,
    DiscreteCosineSchedule,
    DPMpp2M,
    DPMpp3M,
    EDMSchedule,
    Euler,
    Heun,
    Model,
    UniPC,
    make_path,
)

FOLDER = Path(__file__).resolve().parent / "agreement"
RECORDED = json.loads((FOLDER / "recorded.json").read_text(encoding="utf-8"))
spec = importlib.util.spec_from_file_location("agreement_make", FOLDER / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

DOUBLE, SINGLE = 1e-9, 2e-5


class Recorded(Model):
    """Draws the noises of the recording."""

    def __init__(self, denoiser):
        super().__init__(denoiser)
        self.left = iter(make.noises()[1:])

    def noise(self, like):
        return next(self.left)


def drawn(method, schedule, steps, grid):
    path = make_path(schedule, steps, grid)
    start = path[0].sigma * make.noises()[0]
    *_, (_, rows, _) = method(Recorded(make.oracle(schedule)), start, path)
    return rows


def difference(name, rows):
    return (rows - torch.tensor(RECORDED["cases"][name], dtype=torch.float64)).abs().max().item()


DIFFUSERS = {
    "ddim_0.0": (DDIM(), DOUBLE),
    "ddim_0.5": (DDIM(0.5), DOUBLE),
    "ddim_1.0": (DDIM(1.0), DOUBLE),
    "dpmpp_1m": (DDIM(), SINGLE),
    "dpmpp_2m": (DPMpp2M(limited=False), SINGLE),
    "dpmpp_3m": (DPMpp3M(), 2e-4),  # second differences of what is rounded
    "dpmpp_2m_sde": (DPMpp2M(stochastic=True, limited=False), SINGLE),
    "unipc_1": (UniPC(1, simplified=True, lower_order_final=True), DOUBLE),
    "unipc_2": (UniPC(2, simplified=True, lower_order_final=True), DOUBLE),
    "unipc_3": (UniPC(3, simplified=True, lower_order_final=True), DOUBLE),
}
EDM = {
    "euler": (Euler(), DOUBLE),
    "euler_ancestral": (DDPM(), DOUBLE),
    "heun": (Heun(), DOUBLE),
    "heun_churn": (Heun(churn=6.0, churn_noise=1.02, churn_range=(0.05, math.inf)), DOUBLE),
    "heun_churn_everywhere": (Heun(churn=400.0), DOUBLE),
    "edm_dpmpp_2m": (DPMpp2M(limited=False), DOUBLE),
    "edm_dpmpp_2m_sde": (DPMpp2M(stochastic=True, limited=False), DOUBLE),
    "edm_dpmpp_3m_sde": (DPMpp3M(stochastic=True), DOUBLE),
    "euler_diffusers": (Euler(), 1e-4),
    "heun_diffusers": (Heun(), 1e-4),
}


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_chain_of_ddpm(variance):
    rows = drawn(DDPM(variance), DiscreteCosineSchedule(20), 20, "trailing")
    assert difference(f"ddpm_{variance}", rows) < DOUBLE


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers_on_the_cosine_schedule(name):
    method, tolerance = DIFFUSERS[name]
    rows = drawn(method, DiscreteCosineSchedule(1000), make.N_STEPS, "trailing")
    assert difference(name, rows) < tolerance


@pytest.mark.parametrize("name", EDM)
def test_samplers_of_edm(name):
    method, tolerance = EDM[name]
    assert difference(name, drawn(method, EDMSchedule(), make.N_STEPS, "karras")) < tolerance


@pytest.mark.parametrize(
    ("name", "method"), [("dpmpp_2m", DPMpp2M()), ("dpmpp_3m", DPMpp3M(curvature=1.0)), ("unipc_2", UniPC(2))], ids=str
)
def test_departures_show_where_they_are_not_turned_off(name, method):
    rows = drawn(method, DiscreteCosineSchedule(1000), make.N_STEPS, "trailing")
    assert difference(name, rows) > 1e-3


def test_everything_that_was_recorded_is_compared():
    assert set(RECORDED["cases"]) == {"ddpm_small", "ddpm_large", *DIFFUSERS, *EDM}
