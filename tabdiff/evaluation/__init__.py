"""How good are synthetic tables, cells and images, beside what real data score and what a trivial baseline scores."""

from tabdiff.evaluation.cells import (
    cell_scorecard,
    cell_scores,
    gene_correlation_agreement,
    gene_mean_correlation,
    log_fold_change_error,
    log_normalize,
    nb_baseline,
    rbf_mmd,
    rf_auc,
    wasserstein2,
    within_type_correlation,
    zero_fraction_gap,
)
from tabdiff.evaluation.image_features import ClassifierFeatures
from tabdiff.evaluation.images import evaluate_images, frechet_distance, kernel_distance, precision_recall
from tabdiff.evaluation.report import evaluate
from tabdiff.evaluation.tables import (
    alpha_precision,
    beta_recall,
    c2st,
    column_shape_errors,
    dcr_share,
    downstream_score,
    independent_columns,
    lr_c2st,
    missingness_error,
    nearest_neighbour_ratio,
    pair_trend_errors,
    shape_error,
    trend_error,
)

__all__ = [
    "evaluate",
    # tables
    "alpha_precision",
    "beta_recall",
    "c2st",
    "column_shape_errors",
    "dcr_share",
    "downstream_score",
    "independent_columns",
    "lr_c2st",
    "missingness_error",
    "nearest_neighbour_ratio",
    "pair_trend_errors",
    "shape_error",
    "trend_error",
    # cells
    "cell_scorecard",
    "cell_scores",
    "gene_correlation_agreement",
    "gene_mean_correlation",
    "log_fold_change_error",
    "log_normalize",
    "nb_baseline",
    "rbf_mmd",
    "rf_auc",
    "wasserstein2",
    "within_type_correlation",
    "zero_fraction_gap",
    # images
    "ClassifierFeatures",
    "evaluate_images",
    "frechet_distance",
    "kernel_distance",
    "precision_recall",
]
