import pytest
import torch

from tabdiff.nn import (
    ConditionEmbedding,
    Context,
    Dropout,
    FourierEmbedding,
    ImageCondition,
    SinusoidalEmbedding,
    TableEmbedding,
    VectorColumns,
)
from tabdiff.nn.embeddings import make_time_embedding


def test_sinusoidal_features_match_the_formula():
    features = SinusoidalEmbedding(6, scale=10.0, max_period=1000.0)(torch.tensor([0.3]))
    frequencies = torch.tensor([1.0, 0.1, 0.01])
    expected = torch.cat([torch.cos(3 * frequencies), torch.sin(3 * frequencies)])
    torch.testing.assert_close(features[0], expected)


def test_by_default_time_runs_to_1000_and_the_longest_period_is_that_of_the_papers():
    t = torch.tensor([0.0, 0.123, 1.0])
    angles = 1000 * t.double()[:, None] * 10_000.0 ** (-torch.arange(32) / 32)
    expected = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    torch.testing.assert_close(SinusoidalEmbedding(64)(t), expected, rtol=0, atol=2e-4)
    torch.testing.assert_close(make_time_embedding("sinusoidal", 64)(t), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("n", [2, 7, 1000, 4000])
def test_each_time_of_a_discrete_schedule_has_a_vector_of_its_own(n):
    embedding = make_time_embedding("table", 3, n)
    assert isinstance(embedding, TableEmbedding) and embedding.table.weight.shape == (n, 3)
    t = torch.arange(1, n + 1, dtype=torch.float64) / n
    for times in (t, t.float()):
        torch.testing.assert_close(embedding(times).to(embedding.table.weight), embedding.table.weight)
    embedding(t[[1]].float()).sum().backward()
    assert embedding.table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [1]
    between = embedding((t[:1] + t[1:2]) / 2)[0]
    torch.testing.assert_close(between.float(), embedding.table.weight[:2].mean(0))


def test_there_is_no_table_in_continuous_time():
    with pytest.raises(ValueError, match="n_timesteps=1000"):
        make_time_embedding("table", 8)


def test_pixels_stand_behind_the_pooled_vector_of_tokens():
    attributes = ConditionEmbedding([0] * 4, 8, vectors=[VectorColumns(0, 0, 2, 2)], tokens=True)
    rows = torch.randn(3, 4 + 16)
    embedded = ImageCondition((1, 4, 4), attributes)(rows)
    assert isinstance(embedded, Context)
    torch.testing.assert_close(embedded.tokens, attributes(rows[:, :4]).tokens)
    torch.testing.assert_close(embedded.pooled[:, 8:24], rows[:, 4:])


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
