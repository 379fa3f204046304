import numpy as np
import pytest
import torch
from scipy import sparse

from tabdiff.codecs.cells.classes import CellClasses
from tabdiff.codecs.cells.effects import INTERACTIONS, CombinationEffects
from tabdiff.codecs.cells.rates import ClassRates

GENES, CHANGED = 150, 20


def simulate(missing, seed=0, n=60):
    """Counts of six types, three alike and three others, with and without a stimulus to which these two kinds respond
    in other genes; and the true mean shares of each (type, stimulus) per ten thousand."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(rng.normal(0, 1.5, (2, GENES)), 3, axis=0) + rng.normal(0, 0.2, (6, GENES))
    effect = np.zeros((6, GENES))
    effect[:, :CHANGED] = 2.0
    effect[3:, CHANGED : 2 * CHANGED] = 2.5
    log_rate = np.stack([kind, kind + effect], axis=1)
    share = np.exp(log_rate) / np.exp(log_rate).sum(axis=2, keepdims=True)
    types, given = np.repeat(np.arange(6), 2 * n), np.tile(np.repeat([0, 1], n), 6)
    mean = share[types, given] * rng.lognormal(6.5, 0.3, (len(types), 1))
    x = rng.poisson(rng.gamma(4.0, mean / 4.0))
    keep = ~((types == missing) & (given == 1))
    codes = np.stack([types, given], axis=1)[keep]
    classes = CellClasses(torch.as_tensor(codes, dtype=torch.float32), [6, 2], len(codes))
    return sparse.csr_matrix(x[keep].astype(np.float32)), classes, 1e4 * share


def fit(matrix, classes):
    library = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    return CombinationEffects(matrix, classes, library), ClassRates(matrix, classes, library)


@pytest.mark.parametrize("missing", [0, 4])
def test_a_type_borrows_from_types_like_it_and_beats_the_mean_shift(missing):
    matrix, classes, truth = simulate(missing)
    effects, rates = fit(matrix, classes)
    codes = np.array([missing, 1])
    found = np.log1p(effects(codes, rates.additive(codes[None])[0].astype(np.float64)))
    seen = np.log1p(effects.share.astype(np.float64)).reshape(-1, GENES)
    place = {tuple(row): c for c, row in enumerate(classes.codes.tolist())}
    others = [t for t in range(6) if t != missing]
    shift = np.mean([seen[place[t, 1]] - seen[place[t, 0]] for t in others], axis=0)
    moved = seen[place[missing, 0]] + shift
    wanted = np.log1p(truth[missing, 1])
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.8 * np.sqrt(np.mean((moved - wanted) ** 2))
    # The genes in which only the one kind of types responds.
    own = slice(CHANGED, 2 * CHANGED)
    change = (found - seen[place[missing, 0]])[own].mean()
    true = (wanted - np.log1p(truth[missing, 0]))[own].mean()
    assert abs(change - true) < 0.5 * abs((shift[own]).mean() - true)


def test_only_missing_combinations_are_worth_it():
    full = CellClasses(torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), [2, 2], 4)
    one = CellClasses(torch.tensor([[0.0], [1]]), [2], 2)
    missing = CellClasses(torch.tensor([[0.0, 0], [0, 1], [1, 0]]), [2, 2], 3)
    assert [CombinationEffects.wanted(c) for c in (full, one, missing)] == [False, False, True]
    assert list(missing.unseen(torch.tensor([[1.0, 1], [0, 0], [1, 1], [float("nan"), 1]]))) == [(1, 1)]


def test_state_comes_back():
    matrix, classes, _ = simulate(0)
    effects, rates = fit(matrix, classes)
    codes = np.array([0, 1])
    additive = rates.additive(codes[None])[0].astype(np.float64)
    again = CombinationEffects.from_state(effects.state())
    np.testing.assert_array_equal(effects(codes, additive), again(codes, additive))


def test_a_level_seen_once_says_nothing_of_what_a_condition_changes():
    matrix, classes, _ = simulate(4)
    codes = np.array([4, 1])
    before, rates = fit(matrix, classes)
    additive = rates.additive(codes[None])[0].astype(np.float64)
    # A seventh type, of 30 cells that are all stimulated, with genes of its own.
    more = sparse.vstack([matrix, sparse.csr_matrix(np.random.default_rng(3).poisson(8.0, (30, GENES)))]).tocsr()
    labels = np.concatenate([classes.codes[classes.training], np.tile([6, 1], (30, 1))])
    known = CellClasses(torch.as_tensor(labels, dtype=torch.float32), [7, 2], len(labels))
    after, _ = fit(more.astype(np.float32), known)
    np.testing.assert_allclose(np.log1p(after(codes, additive)), np.log1p(before(codes, additive)), atol=0.25)


def test_a_type_in_a_batch_where_it_was_never_seen():
    rng = np.random.default_rng(1)
    types, batches = rng.integers(4, size=800), rng.integers(3, size=800)
    missing = (types == 2) & (batches == 1)
    effect = [rng.normal(0, 1.0, size=(4, 60)), rng.normal(0, 0.5, size=(3, 60))]
    share = [[np.exp(a + b) / np.exp(a + b).sum() for b in effect[1]] for a in effect[0]]
    x = rng.poisson(np.array(share)[types, batches] * 600)
    codes = np.stack([types, batches], axis=1)[~missing]
    classes = CellClasses(torch.as_tensor(codes, dtype=torch.float32), [4, 3], len(codes))
    effects, rates = fit(sparse.csr_matrix(x[~missing]).astype(np.float32), classes)
    target = np.array([2, 1])
    found = np.log1p(effects(target, rates.additive(target[None])[0].astype(np.float64)))
    wanted = np.log1p(1e4 * share[2][1])
    one_batch = np.log1p(1e4 * np.array(share[2][0]))
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.4 * np.sqrt(np.mean((one_batch - wanted) ** 2))


def test_deviations_from_the_mean_shift_have_to_be_earned():
    rng = np.random.default_rng(5)
    # Types that are far from one another and respond all the same: nearness says nothing of the response.
    spread = np.array([0.05, 0.05, 0.05, 1.0, 1.0, 1.0])[:, None]
    kind = 4.0 + rng.normal(0, 0.1, GENES) + spread * rng.normal(size=(6, GENES))
    effect = rng.choice([-1.0, 1.0], GENES)
    codes = np.array([[t, s] for t in range(6) for s in (0, 1)][:-1])
    level = kind[codes[:, 0]] + codes[:, 1:] * effect + rng.normal(0, 0.03, (11, GENES))
    state = {"codes": codes, "counts": np.full(11, 60), "share": np.expm1(level), "noise": np.full((11, GENES), 1e-3)}
    same = CombinationEffects.from_state(state)
    assert same.rule == len(INTERACTIONS)
    assert fit(*simulate(0)[:2])[0].rule < len(INTERACTIONS)
    found = np.log1p(same(np.array([5, 1]), np.zeros(GENES)))
    change = np.mean([level[2 * t + 1] - level[2 * t] for t in range(5)], axis=0)
    least = np.log1p(0.1 * 1e4 / GENES)  # a tenth of the additive rate
    np.testing.assert_allclose(found, np.maximum(level[10] + change, least), atol=1e-4)


def test_deviations_are_small_where_no_class_can_be_left_out():
    codes = torch.tensor([[0.0, 0], [0, 1], [1, 0]]).repeat_interleave(20, dim=0)
    x = np.random.default_rng(0).poisson(3.0, (60, 30)).astype(np.float32)
    effects, _ = fit(sparse.csr_matrix(x), CellClasses(codes, [2, 2], 60))
    assert effects.rule == 1
