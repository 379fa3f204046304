"""How good are synthetic tables, cells and images, beside what real data score and what a trivial baseline scores."""

from tabdiff.evaluation.cell_summary import cell_scorecard, cell_scores
from tabdiff.evaluation.cells import (
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
from tabdiff.evaluation.classifiers import published_c2st
from tabdiff.evaluation.image_features import ClassifierFeatures
from tabdiff.evaluation.images import evaluate_images, frechet_distance, kernel_distance, precision_recall
from tabdiff.evaluation.joint import (
    column_utilities,
    global_utility,
    missing_patterns,
    pattern_error,
    triple_errors,
    trivariate_error,
    wnmis,
)
from tabdiff.evaluation.judging import evaluate
from tabdiff.evaluation.multimodal_report import modality_agreement
from tabdiff.evaluation.report import Report, compare
from tabdiff.evaluation.rules import copied_keys, rules_broken
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
    "Report",
    "compare",
    "evaluate",
    # tables
    "alpha_precision",
    "beta_recall",
    "c2st",
    "column_shape_errors",
    "column_utilities",
    "copied_keys",
    "dcr_share",
    "downstream_score",
    "global_utility",
    "independent_columns",
    "lr_c2st",
    "missing_patterns",
    "missingness_error",
    "nearest_neighbour_ratio",
    "pair_trend_errors",
    "pattern_error",
    "published_c2st",
    "rules_broken",
    "shape_error",
    "trend_error",
    "triple_errors",
    "trivariate_error",
    "wnmis",
    # cells
    "cell_scorecard",
    "cell_scores",
    "gene_correlation_agreement",
    "gene_mean_correlation",
    "log_fold_change_error",
    "log_normalize",
    "modality_agreement",
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
