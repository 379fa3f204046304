"""
Imputation, and how sure it is
==============================

One filling is a guess; several show how far apart the guesses are.
"""

# %%
# A curve of which a third of the values is hidden, so that the truth is known.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer

from tabdiff import DiffusionGenerator

rng = np.random.default_rng(0)
angle = rng.uniform(0, 2 * np.pi, 1500)
whole = pd.DataFrame({"x": np.cos(angle), "y": np.sin(angle)}) + 0.05 * rng.normal(size=(1500, 2))
incomplete = whole.copy()
incomplete.loc[rng.random(1500) < 1 / 3, "y"] = np.nan

# %%
# Fit on the table with its missing values; ``n_draws`` fills it several times, each from the distribution given the
# rest of the row. (Without ``n_draws`` a number is filled by its mean, which is nearest to the truth and varies too
# little.)
gen = DiffusionGenerator(target="x0", max_steps=800, hidden_size=96, learning_rate=3e-3, random_state=0).fit(incomplete)
draws = gen.impute(incomplete, n_draws=5, random_state=0)
missing = incomplete["y"].isna()
mean = pd.DataFrame(SimpleImputer().fit_transform(incomplete), columns=["x", "y"])

fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True, layout="constrained")
for ax, (title, table) in zip(axes, {"truth": whole, "filled by the mean": mean, "drawn": draws[0]}.items()):
    ax.scatter(table["x"][~missing], table["y"][~missing], s=3, color="#BBBBBB")
    ax.scatter(table["x"][missing], table["y"][missing], s=5, color="#EE7733")
    ax.set(title=title, aspect="equal")

# %%
# At x = 0 the missing value is near 1 or near -1, and nothing between: five guesses for each of some rows say so.
rows = incomplete.index[missing][np.argsort(incomplete["x"][missing].to_numpy())][::12]
fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
ax.scatter(whole["x"], whole["y"], s=2, color="#CCCCCC", label="truth")
for table in draws:
    ax.scatter(table["x"][rows], table["y"][rows], s=12, color="#0072B2", alpha=0.7)
ax.set(xlabel="x, given", ylabel="y, five guesses a row")

# %%
# For an estimate from such data, compute it on each table and combine the results by Rubin's rules:
estimates = [table["y"].abs().mean() for table in draws]
pd.Series(
    {"truth": whole["y"].abs().mean(), "mean of five": np.mean(estimates), "filled by the mean": mean["y"].abs().mean()}
).round(3)
