"""
Conditions and guidance
=======================

Ask for rows of a kind, and see what ``guidance_scale`` does to them.
"""

# %%
# Classes and numbers are conditions alike. Here two moons have a class, and a number along each.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import make_moons

from tabdiff import DiffusionGenerator, TrainingOptions

points, moon = make_moons(1000, noise=0.08, random_state=0)
moons = pd.DataFrame(points, columns=["x", "y"]).assign(moon=np.where(moon == 0, "upper", "lower"))
gen = DiffusionGenerator(max_steps=400, hidden_size=128, refine=False, random_state=0).fit(moons, condition="moon")
gen.sample(condition={"moon": {"upper": 3, "lower": 2}}, random_state=0)

# %%
# Guidance
# --------
# 1 is none. Above 1 rows follow the condition more closely and vary less; 0 ignores it.
scales = (0, 1, 2, 5)
fig, axes = plt.subplots(1, len(scales), figsize=(11, 3), sharex=True, sharey=True, layout="constrained")
for ax, scale in zip(axes, scales):
    drawn = gen.sample(300, condition="upper", guidance_scale=scale, random_state=0)
    ax.scatter(moons["x"], moons["y"], s=2, color="#CCCCCC")
    ax.scatter(drawn["x"], drawn["y"], s=4, color="#EE7733")
    ax.set(title=f"upper, guidance_scale={scale}", aspect="equal")

# %%
# Any columns given any others
# ----------------------------
# A table that was fitted without ``condition=`` takes any of its columns as given, numbers too. Here training shows the
# network more rows with a column given than it does by default.
shown = TrainingOptions(observed_masks=0.9)
joint = DiffusionGenerator(max_steps=600, training=shown, random_state=0).fit(moons[["x", "y"]])
given = {x: joint.sample(300, condition={"x": x}, random_state=0) for x in (-0.5, 0.5, 1.5)}
fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.scatter(moons["x"], moons["y"], s=2, color="#CCCCCC")
for color, (x, rows) in zip(("#CC6677", "#332288", "#44AA99"), given.items()):
    ax.scatter(rows["x"], rows["y"], s=4, color=color, label=f"given x = {x}")
ax.legend(frameon=False)
