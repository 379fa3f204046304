"""Writes recorded.json: what diffusers and k-diffusion draw from an exact denoiser, given starts and noises.

    pip install diffusers==0.35.2 k-diffusion==0.1.1.post1
    python tests/diffusion/samplers/agreement/make.py

`tests/diffusion/samplers/test_agreement.py` compares the samplers of this package with it and needs neither of the two.
All start from the same rows, see the same mixture of Gaussians at the same noise levels and draw the same noises, which
come from NumPy's frozen `RandomState`.
"""

import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

from tabdiff.diffusion import DiscreteCosineSchedule, EDMSchedule, MixtureDenoiser, time_grid

HERE = Path(__file__).resolve().parent
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
MEANS = torch.tensor([[-1.2, -0.3], [0.8, 0.9], [0.6, -1.1]], dtype=torch.float64)
VARIANCES = torch.tensor([[0.04, 0.05], [0.01, 0.09], [0.02, 0.02]], dtype=torch.float64)
N_ROWS, N_STEPS, N_NOISES = 6, 10, 60


def noises() -> list[torch.Tensor]:
    """Standard normal noises of shape (N_ROWS, 2), exact in float32, to which diffusers rounds some of them."""
    drawn = np.random.RandomState(0).standard_normal((N_NOISES, N_ROWS, 2)).astype(np.float32)
    return list(torch.from_numpy(drawn.astype(np.float64)))


def oracle(schedule) -> MixtureDenoiser:
    """The exact denoiser of the mixture."""
    return MixtureDenoiser(WEIGHTS, MEANS, VARIANCES, schedule)


def chain(n_timesteps: int, n: int) -> tuple[DiscreteCosineSchedule, torch.Tensor]:
    """The schedule of DDPM's cosine, and the times of a trailing grid."""
    schedule = DiscreteCosineSchedule(n_timesteps)
    return schedule, time_grid(schedule, n, "trailing")


def walk(scheduler, schedule, times, *, start, **step) -> torch.Tensor:
    """Run a scheduler of diffusers that wants estimates of the clean rows; `step` gives its noise at each step."""
    x = start
    for i, t in enumerate(times):
        x0 = oracle(schedule)(x, t)
        extra = {key: value(i) if callable(value) else value for key, value in step.items()}
        x = scheduler.step(x0, scheduler.timesteps[i], x, **extra).prev_sample.double()
    return x


def of_diffusers() -> dict[str, torch.Tensor]:
    """Samples of diffusers on the discrete cosine schedule, from sigma(1) times the first noise."""
    import diffusers
    from diffusers import schedulers

    every = noises()
    out = {}
    common = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "timestep_spacing": "trailing"}

    def made(kind, schedule, n, **options):
        scheduler = getattr(diffusers, kind)(num_train_timesteps=schedule.n_timesteps, **common, **options)
        # The published betas in double precision; what the class makes itself differs by 2e-8.
        scheduler.alphas_cumprod = torch.cumprod(1 - schedule.betas, 0)
        scheduler.set_timesteps(n)
        expected = [round(t * schedule.n_timesteps) - 1 for t in time_grid(schedule, n, "trailing").tolist()]
        assert [int(t) for t in scheduler.timesteps] == expected
        if hasattr(scheduler, "sigmas"):
            times = time_grid(schedule, n, "trailing")
            levels = schedule.sigma(times) / schedule.alpha(times)
            scheduler.sigmas = torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
        return scheduler

    # DDPM draws its noise itself; the whole chain, so that none is added in the last step.
    schedule, times = chain(20, 20)
    for variance in ("small", "large"):
        scheduler = made("DDPMScheduler", schedule, 20, clip_sample=False, variance_type=f"fixed_{variance}")
        drawn = iter(every[1:])
        schedulers.scheduling_ddpm.randn_tensor = lambda *args, drawn=drawn, **kwargs: next(drawn)
        out[f"ddpm_{variance}"] = walk(scheduler, schedule, times, start=schedule.sigma(1.0) * every[0])

    schedule, times = chain(1000, N_STEPS)
    start = schedule.sigma(1.0) * every[0]

    def noise(i):
        return every[1 + i]

    for eta in (0.0, 0.5, 1.0):
        scheduler = made("DDIMScheduler", schedule, N_STEPS, clip_sample=False)
        # After the last step there is nothing to draw; its variance is 0.
        step = {"eta": eta, "variance_noise": noise} if eta else {}
        out[f"ddim_{eta}"] = walk(scheduler, schedule, times, start=start, **step)
    for order in (1, 2, 3):
        options = {"solver_order": order, "lower_order_final": False, "final_sigmas_type": "zero"}
        scheduler = made("DPMSolverMultistepScheduler", schedule, N_STEPS, **options)
        out[f"dpmpp_{order}m"] = walk(scheduler, schedule, times, start=start)
        scheduler = made("UniPCMultistepScheduler", schedule, N_STEPS, solver_order=order, solver_type="bh2")
        out[f"unipc_{order}"] = walk(scheduler, schedule, times, start=start)
    options = {"solver_order": 2, "lower_order_final": False, "final_sigmas_type": "zero"}
    scheduler = made("DPMSolverMultistepScheduler", schedule, N_STEPS, algorithm_type="sde-dpmsolver++", **options)
    out["dpmpp_2m_sde"] = walk(scheduler, schedule, times, start=start, variance_noise=noise)

    # Euler and Heun, on x0 + sigma n.
    edm, levels = EDMSchedule(), karras()
    start = levels[0] * every[0]
    euler = diffusers.EulerDiscreteScheduler(prediction_type="sample")
    euler.set_timesteps(N_STEPS)
    euler.sigmas = levels
    euler.is_scale_input_called = True
    out["euler_diffusers"] = walk(euler, edm, levels[:-1], start=start)
    heun = diffusers.HeunDiscreteScheduler(prediction_type="sample")
    heun.set_timesteps(N_STEPS)
    heun.sigmas = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    asked = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2)])
    out["heun_diffusers"] = walk(heun, edm, asked, start=start)
    return out


def karras() -> torch.Tensor:
    """Noise levels of EDM's grid and the clean end."""
    return torch.cat([time_grid(EDMSchedule(), N_STEPS, "karras"), torch.zeros(1, dtype=torch.float64)])


def k_diffusion_sampling():
    """The module of k-diffusion's samplers, without the package around it, which needs vision libraries."""
    folder = Path(importlib.util.find_spec("k_diffusion").submodule_search_locations[0])
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__, package.utils = [str(folder)], utils
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    sys.modules["k_diffusion"], sys.modules["k_diffusion.utils"] = package, utils
    from k_diffusion import sampling

    return sampling


def of_k_diffusion() -> dict[str, torch.Tensor]:
    """Samples of k-diffusion on EDM's grid, from 80 times the first noise."""
    sampling = k_diffusion_sampling()
    every, levels = noises(), karras()
    start = levels[0] * every[0]

    def model(x, sigma):
        return oracle(EDMSchedule())(x, sigma)

    def run(name, **options):
        drawn = iter(every[1:])
        if name == "sample_heun":  # it draws in every step, and from s_tmin on leaves what it draws
            sampling.torch.randn_like = lambda x: next(drawn)
        elif "sde" in name or "ancestral" in name:
            options["noise_sampler"] = lambda *_: next(drawn)
        return getattr(sampling, name)(model, start, levels, disable=True, **options)

    original = torch.randn_like
    try:
        out = {
            "euler": run("sample_euler"),
            "euler_ancestral": run("sample_euler_ancestral"),
            "heun": run("sample_heun"),
            "heun_churn": run("sample_heun", s_churn=6.0, s_noise=1.02, s_tmin=0.05),
            "heun_churn_everywhere": run("sample_heun", s_churn=400.0),
            "edm_dpmpp_2m": run("sample_dpmpp_2m"),
            "edm_dpmpp_2m_sde": run("sample_dpmpp_2m_sde"),
            "edm_dpmpp_3m_sde": run("sample_dpmpp_3m_sde"),
        }
    finally:
        torch.randn_like = original
    return out


def main() -> None:
    """Write the file."""
    cases = {**of_diffusers(), **of_k_diffusion()}
    made_with = {name: importlib.metadata.version(name) for name in ("diffusers", "k-diffusion", "numpy")}
    recorded = {"made_with": made_with, "cases": {name: rows.tolist() for name, rows in cases.items()}}
    (HERE / "recorded.json").write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
