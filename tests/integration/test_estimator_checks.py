import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tabdiff import DiffusionGenerator, DiffusionImputer, DiffusionOutlierDetector, DiffusionOverSampler

GENERATOR = DiffusionGenerator(max_steps=5, hidden_size=16, n_blocks=1, random_state=0)
DIT = DiffusionGenerator(denoiser="dit", max_steps=3, hidden_size=8, n_blocks=1, random_state=0)


# No expected failures: every check of scikit-learn passes as it stands.
@parametrize_with_checks(
    [
        GENERATOR,
        DiffusionImputer(GENERATOR),
        DiffusionOverSampler(GENERATOR),
    ]
)
def test_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([DIT, DiffusionOutlierDetector(GENERATOR)])
def test_scikit_learns_contract_of_the_others(estimator, check):
    check(estimator)
