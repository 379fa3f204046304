import pytest
import torch

from tabdiff.nn import ConditionEmbedding, Dropout, FourierEmbedding, SinusoidalEmbedding, VectorColumns
from tabdiff.nn.embeddings import make_time_embedding


def test_sinusoidal_features_match_the_formula():
    features = SinusoidalEmbedding(6, scale=10.0, max_period=1000.0)(torch.tensor([0.3]))
    frequencies = torch.tensor([1.0, 0.1, 0.01])
    expected = torch.cat([torch.cos(3 * frequencies), torch.sin(3 * frequencies)])
    torch.testing.assert_close(features[0], expected)


def test_null_condition_is_the_same_as_no_condition():
    embedding = ConditionEmbedding([3, 0], 8)
    null = embedding(torch.full((2, 2), float("nan")))
    torch.testing.assert_close(embedding(None, 2), null)


def test_every_level_value_and_null_has_an_embedding_of_its_own():
    embedding = ConditionEmbedding([2, 0], 8)
    nan = float("nan")
    rows = torch.tensor([[0.0, 0.5], [1.0, 0.5], [nan, 0.5], [0.0, 0.7], [0.0, nan], [0.0, 0.0]])
    embedded = embedding(rows)
    distances = torch.cdist(embedded, embedded) + torch.eye(len(rows))
    assert distances.min() > 1e-4


def test_null_tokens_learn():
    embedding = ConditionEmbedding([2, 0], 8)
    embedding(None, 4).square().sum().backward()
    assert embedding.null_values[0].grad.abs().sum() > 0
    assert embedding.classes[0].weight.grad[2].abs().sum() > 0
    assert embedding.classes[0].weight.grad[:2].abs().sum() == 0


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 2\)"):
        ConditionEmbedding([2, 0], 8)(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="size"):
        SinusoidalEmbedding(3)


def test_dropout_repeats_with_its_generator_and_rests_in_evaluation():
    dropout, x = Dropout(0.4), torch.ones(1000)
    draws = []
    for _ in range(2):
        dropout.generator = torch.Generator().manual_seed(1)
        draws.append(dropout(x))
    assert torch.equal(*draws)
    assert abs(float(draws[0].mean()) - 1) < 0.1
    assert dropout.eval()(x) is x


def test_learned_frequencies_start_spread_out_and_learn():
    embedding = FourierEmbedding(8, max_frequency=100.0)
    times = torch.linspace(0, 1, 50)
    assert torch.cdist(embedding(times), embedding(times)).add(torch.eye(50) * 9).min() > 0.05
    embedding(times).square().sum().backward()
    assert all(p.grad.abs().min() > 0 for p in embedding.parameters())
    with pytest.raises(ValueError, match="'clock'"):
        make_time_embedding("clock", 8)


# A class, a vector of 3, a number, and up to two tokens of 2 behind a column that is not looked at.
MIXED = ([4, 0, 0, 0, 0, 0, 0, 0, 0, 0], [VectorColumns(1, 0, 1, 3), VectorColumns(5, 1, 2, 2)])


def mixed_rows(n=4):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n, 10, generator=generator)
    rows[:, 0] = torch.arange(n) % 4
    return rows


def test_vectors_and_tokens_are_embedded_beside_scalars():
    torch.manual_seed(0)
    embedding = ConditionEmbedding(MIXED[0], 8, vectors=MIXED[1], tokens=True)
    rows = mixed_rows()
    context = embedding(rows)
    assert context.pooled.shape == (4, 8) and context.tokens.shape == (4, 5, 8) and context.mask.all()
    for j in range(10):
        changed = rows.clone()
        changed[:, j] = 1.0 - changed[:, j] if j else (changed[:, j] + 1) % 4
        moved = (embedding(changed).pooled - context.pooled).abs().max() > 1e-6
        assert moved == (j != 5), j
    embedding.tokens = False
    torch.testing.assert_close(embedding(rows), context.pooled)


def test_absent_tokens_and_vectors_are_masked_or_null():
    embedding = ConditionEmbedding(MIXED[0], 8, vectors=MIXED[1], tokens=True)
    rows = mixed_rows()
    rows[1, 8:] = float("nan")  # the second token
    rows[2, 6:] = float("nan")  # both
    rows[3, 1:4] = float("nan")  # the vector
    context = embedding(rows)
    # Scalars first, then the vector, then the tokens; the null token stands in for none.
    assert context.mask.tolist() == [[True] * 5, [True] * 4 + [False], [True] * 4 + [False], [True] * 5]
    torch.testing.assert_close(context.tokens[2, 3], embedding.null_vectors[1])
    torch.testing.assert_close(context.tokens[3, 2], embedding.null_vectors[0])
    null = embedding(None, 2)
    torch.testing.assert_close(null.pooled, embedding(torch.full((2, 10), float("nan"))).pooled)
    assert context.pooled.isfinite().all()
    context.pooled.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in embedding.parameters())
