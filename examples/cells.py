"""Synthetic cells at work: beside the real ones, their markers, as extra training data, and at doses never measured.

Four pictures, each with the figures behind it printed:

1. a UMAP of real cells that the model has not seen and of as many drawn ones;
2. the marker genes of each type, in both;
3. a classifier of cell types, trained with rare types as they are, repeated, interpolated (SMOTE) or drawn;
4. genes along a dose: cells drawn at doses between those that were measured.

Run it: python examples/cells.py -o pictures   (under two minutes)
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData, concat
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tabdiff import DiffusionGenerator, evaluate
from tabdiff.datasets import load_pbmc68k_counts
from tabdiff.evaluation import log_normalize

SEED = 0
LABEL = "bulk_labels"
COLORS = (
    *("#CC6677", "#332288", "#44AA99", "#999933", "#88CCEE"),
    *("#882255", "#117733", "#DDCC77", "#AA4499", "#777777"),
)
MARKERS = {
    "CD14+ Monocyte": ["LYZ", "S100A9"],
    "Dendritic": ["FCER1A", "HLA-DPA1"],
    "CD19+ B": ["CD79A", "MS4A1"],
    "CD56+ NK": ["GNLY", "NKG7"],
    "CD8+ Cytotoxic T": ["CD8A", "GZMB"],
    "CD8+/CD45RA+ Naive Cytotoxic": ["CD8B", "CCR7"],
    "CD4+/CD45RO+ Memory": ["IL7R", "CD3D"],
    "CD34+": ["PRSS57", "SOX4"],
}
EVEN = 300  # cells that each type is brought to for the classifier
DOSES = (0.0, 0.1, 1.0, 10.0, 100.0)
ASKED = (0.03, 0.3, 3.0, 30.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("pictures"), help="folder of the pictures")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)

    cells = load_pbmc68k_counts()  # any AnnData with counts in X, raw or layers["counts"]
    train, unseen = split(cells)
    print(f"Fitting {train.n_obs} blood cells × {train.n_vars} genes ...", flush=True)
    gen = DiffusionGenerator(random_state=SEED).fit(train, condition=LABEL)
    drawn = gen.sample(like=unseen, random_state=SEED)  # as many cells of each type, as deeply sequenced
    print("\nThe drawn cells beside cells that the model has not seen:")
    print(evaluate(train, drawn, condition=LABEL, holdout=unseen))

    draw_umap(folder / "cells-1-umap.png", unseen, drawn)
    draw_markers(folder / "cells-2-markers.png", unseen, drawn)
    draw_rare_types(folder / "cells-3-rare-types.png", gen, train, unseen)
    draw_doses(folder / "cells-4-doses.png")


def split(cells: AnnData) -> tuple[AnnData, AnnData]:
    """Two random halves of each type."""
    from sklearn.model_selection import train_test_split

    first, second = train_test_split(
        np.arange(cells.n_obs), test_size=0.5, stratify=cells.obs[LABEL], random_state=SEED
    )
    return cells[first].copy(), cells[second].copy()


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)
    print(f"Picture: {path}", flush=True)


# ------------------------------------------------------------------------------------------------------ 1. UMAP


def draw_umap(path: Path, unseen: AnnData, drawn: AnnData) -> None:
    """Both sets on one map, so that neither decides where the other lies."""
    import scanpy as sc

    both = concat({"real, unseen half": unseen, "drawn": drawn}, label="source", index_unique="-")
    sc.pp.normalize_total(both, target_sum=1e4)
    sc.pp.log1p(both)
    sc.pp.pca(both, n_comps=30, random_state=SEED)
    sc.pp.neighbors(both, n_neighbors=15, random_state=SEED)
    sc.tl.umap(both, random_state=SEED)
    share = same_source_share(both)
    print(f"\nOf a cell's 15 neighbours, {share:.0%} come from its own source (50 % if the sources were one).")

    figure = Figure(figsize=(12.5, 5), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    order = list(unseen.obs[LABEL].value_counts().index)
    for ax, source in zip(axes, both.obs["source"].cat.categories):
        rows = both[both.obs["source"] == source]
        for color, name in zip(COLORS, order):
            points = rows.obsm["X_umap"][(rows.obs[LABEL] == name).to_numpy()]
            ax.scatter(*points.T, s=15, color=color, alpha=0.85, linewidths=0, label=name)
        ax.set(title=f"{source} ({rows.n_obs} cells)", xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, markerscale=1.8)
    save(figure, path)


def same_source_share(both: AnnData) -> float:
    graph = both.obsp["distances"].tocoo()
    source = both.obs["source"].cat.codes.to_numpy()
    return float((source[graph.row] == source[graph.col]).mean())


# --------------------------------------------------------------------------------------------------- 2. markers


def draw_markers(path: Path, unseen: AnnData, drawn: AnnData) -> None:
    """A dot plot of each set: size is the share of cells with a count, colour the mean log-normalised expression."""
    genes = [gene for some in MARKERS.values() for gene in some]
    tables = {name: marker_table(cells, genes) for name, cells in (("real, unseen half", unseen), ("drawn", drawn))}
    real, synthetic = (expression.to_numpy().ravel() for expression, _ in tables.values())
    agreement = np.corrcoef(real, synthetic)[0, 1]
    print(f"\nMean expression of {len(genes)} markers in {len(MARKERS)} types: correlation {agreement:.3f}.")
    where = [expression.idxmax() for expression, _ in tables.values()]
    same = where[0] == where[1]
    print(f"The type that has most of a marker is the same in both for {same.sum()} of {len(genes)}.")
    for gene in same.index[~same]:
        print(f"  {gene}: real {where[0][gene]}, drawn {where[1][gene]}")

    figure = Figure(figsize=(12.5, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    most = next(iter(tables.values()))[0].max()
    for ax, (title, (expression, share)) in zip(axes, tables.items()):
        y, x = np.indices(expression.shape)
        color = (expression / most).to_numpy()
        dots = ax.scatter(x, y, s=1.6 * share.to_numpy(), c=color, cmap="viridis_r", vmin=0, vmax=1, linewidths=0)
        ax.set_xticks(range(len(genes)), genes, rotation=90)
        ax.set_yticks(range(len(MARKERS)), list(MARKERS))
        ax.set_title(title)
        ax.set(xlim=(-0.7, len(genes) - 0.3), ylim=(len(MARKERS) - 0.4, -0.6))
        ax.spines[["top", "right"]].set_visible(False)
    figure.colorbar(dots, ax=axes, shrink=0.75, label="mean expression\nover the highest real type's")
    sizes = [axes[1].scatter([], [], s=1.6 * p, color="#777777", label=f"{p} %") for p in (20, 60, 100)]
    figure.legend(handles=sizes, loc="outside lower center", ncols=3, frameon=False, title="cells with a count")
    save(figure, path)


def marker_table(cells: AnnData, genes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """By type: mean log-normalised expression, and share of cells with a count in percent."""
    columns = cells.var_names.get_indexer(genes)
    frames = [pd.DataFrame(x[:, columns], columns=genes) for x in (log_normalize(cells), 100 * (cells.X.toarray() > 0))]
    types = cells.obs[LABEL].astype(str).to_numpy()
    expression, share = (frame.groupby(types).mean().reindex(MARKERS) for frame in frames)
    return expression, share


# ------------------------------------------------------------------------------------------------ 3. rare types


def draw_rare_types(path: Path, gen: DiffusionGenerator, train: AnnData, unseen: AnnData, n_draws: int = 3) -> None:
    """Balanced accuracy on unseen cells of forests trained on types as they are or evened out in three ways."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import balanced_accuracy_score

    x, y = log_normalize(train), train.obs[LABEL].astype(str).to_numpy()
    test, truth = log_normalize(unseen), unseen.obs[LABEL].astype(str).to_numpy()
    found: dict[str, list[float]] = {}
    for seed in range(n_draws):
        for name, (some, labels) in evened_out(gen, train, x, y, seed).items():
            forest = RandomForestClassifier(100, random_state=seed).fit(some, labels)
            found.setdefault(name, []).append(balanced_accuracy_score(truth, forest.predict(test)))
    counts = pd.Series(y).value_counts()
    print(f"\nTypes have {counts.min()} to {counts.max()} cells. Balanced accuracy of a random forest on unseen cells:")
    for name, scores in found.items():
        print(f"  {name:45s}{np.mean(scores):.3f}  ({min(scores):.3f} to {max(scores):.3f})")

    figure = Figure(figsize=(8.5, 3), layout="constrained")
    ax = figure.subplots()
    for place, (name, scores) in enumerate(found.items()):
        color = "#EE7733" if "tabdiff" in name else "#555555"
        ax.plot(scores, [place] * len(scores), "o", color=color, alpha=0.5, markersize=5, linewidth=0)
        ax.plot(np.mean(scores), place, "D", color=color, markersize=9)
    ax.set_yticks(range(len(found)), list(found))
    ax.set(ylim=(len(found) - 0.5, -0.5), xlabel="balanced accuracy on unseen cells")
    ax.grid(axis="x", color="#DDDDDD")
    ax.set_title(f"types of {counts.min()} to {counts.max()} cells brought to {EVEN} each (mean and {n_draws} draws)")
    ax.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def evened_out(
    gen: DiffusionGenerator, train: AnnData, x: np.ndarray, y: np.ndarray, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training sets in which every type has `EVEN` cells, and the set as it is."""
    try:
        from imblearn.over_sampling import SMOTE, RandomOverSampler
    except ImportError as error:
        raise ImportError("SMOTE is imbalanced-learn's: pip install 'tabdiff[imbalanced]'") from error

    counts = train.obs[LABEL].value_counts()
    even = dict.fromkeys(counts.index, EVEN)
    drawn = gen.sample(condition={LABEL: {name: EVEN - int(n) for name, n in counts.items()}}, random_state=seed)
    return {
        "as they are": (x, y),
        "repeated (plain oversampling)": RandomOverSampler(sampling_strategy=even, random_state=seed).fit_resample(
            x, y
        ),
        "interpolated (SMOTE)": SMOTE(sampling_strategy=even, k_neighbors=3, random_state=seed).fit_resample(x, y),
        "drawn (tabdiff)": (
            np.concatenate([x, log_normalize(drawn)]),
            np.concatenate([y, drawn.obs[LABEL].astype(str).to_numpy()]),
        ),
    }


# ----------------------------------------------------------------------------------------------------- 4. doses


def draw_doses(path: Path) -> None:
    """Simulated cells under a drug, whose true response is known also where it was not measured."""
    cells = simulate_doses()
    print(f"\nFitting {cells.n_obs} simulated cells at doses {DOSES} ...", flush=True)
    gen = DiffusionGenerator(random_state=SEED).fit(cells, condition="dose")
    drawn = {dose: gen.sample(400, condition={"dose": dose}, random_state=SEED) for dose in ASKED}
    grid = np.geomspace(0.02, 100, 100)
    shown = {"rises at a low dose": 0, "rises at a high dose": 1, "falls": 2, "unaffected (its share shrinks)": 3}

    figure = Figure(figsize=(12.5, 3.4), layout="constrained")
    for ax, (title, gene) in zip(figure.subplots(1, 4), shown.items()):
        ax.plot(grid, 1e4 * expected_share(grid)[:, gene], color="#555555", label="truth")
        measured = [mean_share(cells[cells.obs["dose"] == dose], gene) for dose in DOSES]
        # Zero has no place on a logarithmic axis: the untreated cells stand at its left end.
        ax.plot(np.maximum(DOSES, grid[0]), measured, "s", color="#332288", label="measured (leftmost: untreated)")
        ax.plot(ASKED, [mean_share(drawn[dose], gene) for dose in ASKED], "o", color="#EE7733", label="drawn")
        response(ax, title)
    handles, names = ax.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)

    print("Error of the mean expression of the drawn cells, beside that of the nearest measured dose:")
    for dose in ASKED:
        nearest = min(DOSES[1:], key=lambda other: abs(np.log(other / dose)))
        truth = expected_share(np.array([dose]))[0]
        errors = [
            float(np.abs(np.log1p(1e4 * profile(some)) - np.log1p(1e4 * truth)).mean())
            for some in (drawn[dose], cells[cells.obs["dose"] == nearest])
        ]
        print(f"  dose {dose:5g}: drawn {errors[0]:.3f}, nearest measured ({nearest:g}) {errors[1]:.3f}")


def response(ax: Axes, title: str) -> None:
    ax.set(xscale="log", xlabel="dose", title=title, ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_subplotspec().is_first_col():
        ax.set_ylabel("counts per 10,000")


def expected_share(dose: np.ndarray, n_genes: int = 60) -> np.ndarray:
    """Expected share of each gene of a cell's counts, shape (n_doses, n_genes): Hill curves of a third of the genes."""
    rng = np.random.default_rng(SEED)
    base = rng.lognormal(0.0, 0.8, n_genes)
    base[:4] = (1.0, 1.0, 3.0, 2.0)
    effect = np.where(np.arange(n_genes) < n_genes // 3, rng.normal(0, 1, n_genes), 0.0)
    half = rng.choice([0.3, 3.0, 20.0], n_genes)
    effect[:4], half[:4] = (1.5, 1.5, -1.5, 0.0), (0.3, 10.0, 2.0, 1.0)
    rate = base * np.exp(effect * dose[:, None] / (dose[:, None] + half))
    return rate / rate.sum(axis=1, keepdims=True)


def simulate_doses(n_cells: int = 120) -> AnnData:
    """Counts of `n_cells` cells at each dose, negative binomial, with a library size and a state of their own."""
    rng = np.random.default_rng(SEED)
    dose = np.repeat(DOSES, n_cells)
    library = rng.lognormal(np.log(600), 0.3, len(dose))
    strength = rng.normal(0, 0.3, 60)
    # Of mean 1, so that the expected share stays what it is.
    state = np.exp(rng.normal(size=(len(dose), 1)) * strength - strength**2 / 2)
    mean = library[:, None] * expected_share(dose) * state
    counts = rng.poisson(mean * rng.gamma(5.0, 1 / 5.0, mean.shape)).astype(np.float32)
    obs = pd.DataFrame({"dose": dose}, index=[f"cell{i}" for i in range(len(dose))])
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"gene{j}" for j in range(counts.shape[1])]))


def profile(cells: AnnData) -> np.ndarray:
    total = np.asarray(cells.X.sum(axis=0), dtype=np.float64).ravel()
    return total / total.sum()


def mean_share(cells: AnnData, gene: int) -> float:
    return 1e4 * float(profile(cells)[gene])


if __name__ == "__main__":
    main()
