"""
How good are drawn rows?
========================

Three generators of the same table, by the same scores: this package, independent columns, and one that returns its
training rows. Each fails, or passes, another question.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from tabdiff import DiffusionGenerator
from tabdiff.evaluation import c2st, dcr_share, independent_columns, nearest_neighbour_ratio, shape_error, trend_error

rng = np.random.default_rng(0)


def table(n):
    """Two clusters, of which one is bent, and their label."""
    kind = rng.random(n) < 0.4
    x = rng.normal(np.where(kind, 1.5, -0.5), 0.7)
    y = np.where(kind, -x, 0.7 * x**2 - 1) + 0.25 * rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": y, "kind": np.where(kind, "a", "b")})


train, holdout = table(1000), table(1000)
gen = DiffusionGenerator(max_steps=400, hidden_size=128, random_state=0).fit(train)
generators = {
    "real holdout": holdout,
    "tabdiff": gen.sample(1000, random_state=0),
    "independent columns": independent_columns(train, random_state=0),
    "copies of training rows": train.sample(1000, replace=True, random_state=0).reset_index(drop=True),
}

# %%
fig, axes = plt.subplots(1, 4, figsize=(12, 3.2), sharex=True, sharey=True, layout="constrained")
for ax, (name, rows) in zip(axes, generators.items()):
    for kind, color in (("a", "#CC6677"), ("b", "#332288")):
        some = rows[rows["kind"] == kind]
        ax.scatter(some["x"], some["y"], s=4, color=color)
    ax.set(title=name)

# %%
# Independent columns are perfect in each column, and trees tell them at once. Copies cannot be told, and are no new
# rows: their distance to the nearest training row is 0.
other = table(1000)
pd.DataFrame(
    {
        name: {
            "shape error, % (each column)": shape_error(train, rows),
            "trend error, % (pairs)": trend_error(train, rows),
            "C2ST (1: cannot be told)": c2st(train, rows),
            "nearest-neighbour ratio (1: new)": nearest_neighbour_ratio(train, rows, holdout=other),
            "DCR share, % (50: new)": dcr_share(train, rows, other),
        }
        for name, rows in generators.items()
    }
).T.round(2)

# %%
# What each score means, and what it should be compared with: :doc:`/concepts/judging`.
