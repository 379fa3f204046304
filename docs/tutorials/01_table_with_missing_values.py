"""
A table with missing values
===========================

Penguins: numbers, integers, categories, and missing values. A model of the table draws rows of the same columns and
dtypes, with as many missing values, and fills those that are there.
"""

# %%
# Fit and draw
# ------------
# The table goes in as it is. Nothing is encoded, scaled or filled by hand.
import matplotlib.pyplot as plt

from tabdiff import DiffusionGenerator, evaluate
from tabdiff.datasets import load_penguins

penguins = load_penguins()
gen = DiffusionGenerator(max_steps=300, random_state=0).fit(penguins)
drawn = gen.sample(len(penguins), random_state=0)
drawn.head()

# %%
# Beside the real ones
# --------------------
fig, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True, layout="constrained")
for ax, (title, rows) in zip(axes, {"real": penguins, "drawn": drawn}.items()):
    for color, (species, group) in zip(("#CC6677", "#332288", "#44AA99"), rows.groupby("species", observed=True)):
        ax.scatter(group["bill_length_mm"], group["bill_depth_mm"], s=14, color=color, label=species)
    ax.set(title=title, xlabel="bill length, mm", ylabel="bill depth, mm")
axes[0].legend(frameon=False)

# %%
# Values are missing as often as they were:
(100 * penguins.isna().mean()).round(1).to_frame("real, %").join(
    (100 * drawn.isna().mean()).round(1).rename("drawn, %")
)

# %%
# How good is it? Each score stands beside its floor and a baseline; see :doc:`/concepts/judging`.
evaluate(penguins, drawn)

# %%
# Fill what is missing
# --------------------
# From the same model. What is there stays as it is.
filled = gen.impute(penguins, random_state=0)
filled[penguins.isna().any(axis=1)].head()
