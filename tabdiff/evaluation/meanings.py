"""What each figure means: its title, which way is better, and a line for people who do not know it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MEANINGS", "Meaning", "distance_from_best", "meaning"]


@dataclass(frozen=True)
class Meaning:
    """What a figure means.

    Attributes
    ----------
    title : str
    better : str
        "lower", "higher", or the best value, as in "near 1".
    text : str
        One line.
    low, high : float
        Where an interval is cut off.
    """

    title: str
    better: str
    text: str
    low: float = 0.0
    high: float = float("inf")


MEANINGS = {
    # tables
    "shape_error": Meaning("column shapes, error %", "lower", "Is the distribution of each column right?", 0, 100),
    "trend_error": Meaning("pairs, error %", "lower", "Is the dependence within each pair of columns right?", 0, 100),
    "trivariate_error": Meaning(
        "triples, error %", "lower", "Is the joint distribution of three columns at a time right?", 0, 100
    ),
    "wnmis": Meaning(
        "mutual information (wNMIS)",
        "higher",
        "Are the strong dependences between columns as strong as they were?",
        0,
        1,
    ),
    "missingness_error": Meaning(
        "missing values, error %", "lower", "Are values missing as often, alone and in pairs of columns?", 0, 100
    ),
    "pattern_error": Meaning(
        "missing patterns, error %", "lower", "Are the same columns missing together in a row as often?", 0, 100
    ),
    "c2st": Meaning(
        "C2ST", "higher", "How seldom gradient boosting tells synthetic from real rows: 1 never, 0 always.", 0, 1
    ),
    "published_c2st": Meaning(
        "C2ST, published form",
        "higher",
        "The same behind the transform of SDMetrics, as in published tables; it sees less.",
        0,
        1,
    ),
    "lr_c2st": Meaning(
        "LR-C2ST", "higher", "The same by logistic regression, which sees means and frequencies only.", 0, 1
    ),
    "alpha_precision": Meaning(
        "α-precision", "higher", "Do synthetic rows lie where real rows are typical?", float("-inf"), 1
    ),
    "beta_recall": Meaning(
        "β-recall", "higher", "Do synthetic rows cover the variety of real ones? Fresh real rows score about .5.", 0, 1
    ),
    "global_utility": Meaning(
        "global utility", "higher", "How well each column is predicted from the others, learned on these rows.", 0, 1
    ),
    "rules_broken": Meaning(
        "rules broken, % of rows", "lower", "Rows that break a rule which all real rows keep.", 0, 100
    ),
    "copied_keys": Meaning("keys copied, % of rows", "lower", "Rows whose identifier is that of a real row.", 0, 100),
    "nearest_neighbour_ratio": Meaning(
        "nearest-neighbour ratio",
        "near 1",
        "Distance to the nearest training row, over that of fresh real rows; under .9 rows are copied.",
    ),
    "dcr_share": Meaning(
        "nearer to training rows, %",
        "near 50",
        "Rows nearer to training than to unseen rows; above 52 they follow the training rows.",
        0,
        100,
    ),
    "downstream_auc": Meaning(
        "downstream AUC", "higher", "A classifier of the target, learned on these rows, on unseen real rows.", 0, 1
    ),
    "downstream_calibration": Meaning(
        "downstream calibration error",
        "lower",
        "How far that classifier's probabilities are from what happens, on average.",
        0,
        1,
    ),
    "downstream_r2": Meaning(
        "downstream R²",
        "higher",
        "A regression of the target, learned on these rows, on unseen real rows.",
        float("-inf"),
        1,
    ),
    "downstream_rmse": Meaning("downstream RMSE", "lower", "Its root mean square error, in units of the target."),
    # cells
    "rf_auc": Meaning(
        "RF-AUC", "near 0.5", "Can a random forest tell the cells from real ones? .5 no, 1 always.", 0, 1
    ),
    "rbf_mmd": Meaning("RBF-MMD", "lower", "How far apart are the clouds of cells?"),
    "wasserstein2": Meaning("Wasserstein-2 per type", "lower", "How far must cells of a type be moved to become real?"),
    "within_type_correlation": Meaning(
        "within-type correlation", "higher", "Do genes that vary together inside a type do so here?", -1, 1
    ),
    "modality_agreement": Meaning(
        "between modalities, correlation",
        "higher",
        "Do features of two modalities that vary together inside a type do so here?",
        -1,
        1,
    ),
    "gene_correlation_agreement": Meaning(
        "gene-gene correlation", "higher", "Do genes that vary together over all cells do so here?", -1, 1
    ),
    "gene_mean_correlation": Meaning("gene-mean correlation", "higher", "Are the means of genes right?", -1, 1),
    "zero_fraction_gap": Meaning(
        "zero-fraction gap, points", "near 0", "Share of zeros, synthetic less real.", float("-inf")
    ),
    "log_fold_change_error": Meaning(
        "log2 fold-change error", "lower", "Are differences between the two largest types right?"
    ),
    "mean_variance_error": Meaning(
        "mean-variance curve, error", "lower", "Is the spread of each gene right, on a log10 scale?"
    ),
    "dropout_error": Meaning(
        "dropout curve, error points", "lower", "Is the share of zeros of each gene right?", 0, 100
    ),
    "marker_precision": Meaning(
        "markers kept", "higher", "Share of each type's 20 top markers (Wilcoxon) that are among its top 20 here.", 0, 1
    ),
    "marker_direction": Meaning(
        "direction of markers", "higher", "Share of each type's 50 strongest genes that go the same way here.", 0, 1
    ),
    "fold_change_correlation": Meaning(
        "fold changes", "higher", "Do fold changes of each type against the others agree?", -1, 1
    ),
    "type_recall": Meaning(
        "recall of types",
        "higher",
        "Share of real cells whose type a classifier finds that learned on these cells.",
        0,
        1,
    ),
    "mixing": Meaning("mixing", "near 1", "Real cells among the neighbours of synthetic ones, over what chance gives."),
    # images
    "frechet_distance": Meaning("Fréchet distance", "lower", "How far apart are the features of the images?"),
    "kernel_distance": Meaning(
        "kernel distance", "lower", "The same by a kernel; it does not depend on the number of images.", float("-inf")
    ),
    "precision": Meaning("precision", "higher", "Share of images that lie where real ones do.", 0, 1),
    "recall": Meaning("recall", "higher", "Share of real images that lie where drawn ones do.", 0, 1),
    "density": Meaning("density", "higher", "How densely real images lie about the drawn ones; real ones score 1."),
    "coverage": Meaning("coverage", "higher", "Share of real images with a drawn one among their neighbours.", 0, 1),
    "class_accuracy": Meaning("class accuracy", "higher", "Are images taken for the class that was asked for?", 0, 1),
    "memorisation_ratio": Meaning(
        "distance to the nearest training image", "near 1", "Over that of unseen real images; under .9 they are copied."
    ),
    # sequences
    "length_error": Meaning("lengths, error %", "lower", "Are sequences as long as real ones?", 0, 100),
    "position_error": Meaning("letters by place, error %", "lower", "Are the letters at each place right?", 0, 100),
    "kmer_error": Meaning("3-mers, error %", "lower", "Are runs of three letters as frequent?", 0, 100),
    "pair_error": Meaning(
        "pairs of places, error %", "lower", "Do letters at two places depend on each other as they did?", 0, 100
    ),
    "duplicate_gap": Meaning(
        "duplicates, points", "near 0", "Share of sequences that repeat, less that of real ones.", -100, 100
    ),
    "copied_sequences": Meaning(
        "also in training, %", "near floor", "Sequences that equal a training one; unseen real ones do too.", 0, 100
    ),
}


def meaning(metric: str) -> Meaning:
    """Return what a figure means; the name may go on in brackets, as of a second network of features."""
    if metric in MEANINGS:
        return MEANINGS[metric]
    base, _, rest = metric.partition(" (")
    found = MEANINGS[base]
    return Meaning(f"{found.title} ({rest}", found.better, found.text, found.low, found.high)


def distance_from_best(value: float, better: str, floor: float) -> float:
    """How far a figure is from the best: 0 is best, larger is worse, of whatever unit the figure has.

    What is better than the floor of real rows is as good as the floor: copies beat real rows in many figures.
    """
    if better.startswith("near "):
        target = better.removeprefix("near ")
        best = floor if target == "floor" else float(target)
        return max(abs(value - best) - abs(floor - best), 0.0)
    return max((floor - value) if better == "higher" else (value - floor), 0.0)
