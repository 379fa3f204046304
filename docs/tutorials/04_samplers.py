"""
Samplers compared
=================

How far are drawn points from the truth, after so many evaluations of the network? For a mixture of Gaussians the best
denoiser is known in closed form, so what is left is the error of the sampler alone.
"""

# %%
# A mixture of five in the plane; `MixtureDenoiser` is its exact denoiser.
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from tabdiff.diffusion import CosineSchedule, MixtureDenoiser, sample

angles = torch.arange(5) * (2 * math.pi / 5)
means = 1.2 * torch.stack([angles.cos(), angles.sin()], dim=1)
covariances = 0.02 * torch.eye(2).repeat(5, 1, 1)
denoiser = MixtureDenoiser(torch.full((5,), 0.2), means, covariances, CosineSchedule())
noise = torch.randn((600, 2), generator=torch.Generator().manual_seed(0))

# %%
# From the same noise, solvers of the probability-flow ODE end at the same points, if they take steps enough.
exact = sample(denoiser, noise, method="rk4", steps=200, denoise_last=False)
evaluations = (8, 16, 32, 64)
cost = {"ddim": 1, "euler": 1, "heun": 2, "rk4": 4, "dpmpp_2m": 1, "dpmpp_3m": 1, "unipc": 1}
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for method, per_step in cost.items():
    errors = []
    for n in evaluations:
        drawn = sample(denoiser, noise, method=method, steps=n // per_step, denoise_last=False)
        errors.append((drawn - exact).square().sum(dim=1).sqrt().median())
    ax.plot(evaluations, errors, "o-", label=method)
ax.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="median distance from the exact path")
ax.set_xticks(evaluations, evaluations)
ax.legend(frameon=False, ncols=2)

# %%
# Samplers with fresh noise in each step have no one path; they are judged by the cloud that they draw.
fig, axes = plt.subplots(2, 4, figsize=(10, 5), sharex=True, sharey=True, layout="constrained")
for row, method in zip(axes, ("ddpm", "dpmpp_2m")):
    for ax, steps in zip(row, (4, 8, 16, 50)):
        generator = torch.Generator().manual_seed(1)
        points = np.asarray(sample(denoiser, noise, method=method, steps=steps, generator=generator))
        ax.scatter(*points.T, s=3, color="#0072B2")
        ax.set(title=f"{method}, {steps} steps", aspect="equal", xlim=(-2, 2), ylim=(-2, 2))

# %%
# On a trained model the same names go into ``gen.sample(100, method="unipc", steps=15)``. What that does to real tables
# and digits is measured in :doc:`/benchmarks/samplers`.
