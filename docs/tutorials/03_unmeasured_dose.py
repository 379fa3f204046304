"""
Cells at a dose that was never measured
=======================================

Cells were measured under a drug at four doses. What would they look like at a fifth? Here the cells are simulated, so
that the truth is known where nothing was measured.
"""

# %%
# Simulated counts of 40 genes. A third of them respond to the dose, along Hill curves.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData

from tabdiff import DiffusionGenerator

rng = np.random.default_rng(0)
n_genes, doses = 40, np.array([0.1, 1.0, 10.0, 100.0])
base = rng.lognormal(1.0, 0.6, n_genes)
effect = np.where(np.arange(n_genes) < 14, rng.normal(0, 1.3, n_genes), 0.0)
half = rng.choice([0.5, 5.0, 20.0], n_genes)


def expected(dose):
    rate = base * np.exp(effect * dose / (dose + half))
    return 300 * rate / rate.sum()


dose = np.repeat(doses, 100)
mean = np.stack([expected(d) for d in dose])
counts = rng.poisson(mean * rng.gamma(8, 1 / 8, mean.shape))
adata = AnnData(
    counts.astype(np.float32),
    obs=pd.DataFrame({"dose": dose}, index=[f"cell{i}" for i in range(len(dose))]),
    var=pd.DataFrame(index=[f"gene{j}" for j in range(n_genes)]),
)
adata

# %%
# The dose is a number, so it can be asked for between those that were measured.
gen = DiffusionGenerator(random_state=0, max_steps=400).fit(adata, condition="dose")
asked = (0.3, 3.0, 30.0)
drawn = {d: gen.sample(200, condition={"dose": d}, random_state=0) for d in asked}
drawn[3.0]

# %%
# The genes that respond most, beside the truth:
share = lambda cells: np.asarray(cells.X.mean(axis=0)).ravel() * 300 / np.asarray(cells.X.sum(axis=1)).mean()  # noqa: E731
grid = np.geomspace(0.08, 120, 80)
truth = np.stack([expected(d) for d in grid])
genes = np.argsort(-np.abs(np.log(truth[-1] / truth[0])))[:4]
fig, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
for ax, gene in zip(axes, genes):
    ax.plot(grid, truth[:, gene], color="#555555", label="truth")
    ax.plot(doses, [share(adata[adata.obs["dose"] == d])[gene] for d in doses], "s", color="#332288", label="measured")
    ax.plot(asked, [share(drawn[d])[gene] for d in asked], "o", color="#EE7733", label="drawn, never measured")
    ax.set(xscale="log", title=f"gene{gene}", xlabel="dose", ylim=(0, None))
axes[0].set_ylabel("counts per 300")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)

# %%
# Error of the mean profile, beside that of the nearest dose that was measured:
rows = []
for d in asked:
    nearest = doses[np.argmin(np.abs(np.log(doses / d)))]
    found = {"drawn": share(drawn[d]), "nearest measured dose": share(adata[adata.obs["dose"] == nearest])}
    rows.append({"dose": d, **{k: np.abs(np.log1p(v) - np.log1p(expected(d))).mean() for k, v in found.items()}})
pd.DataFrame(rows).set_index("dose").round(3)
