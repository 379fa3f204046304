import pytest
import torch

from tabdiff.nn import ConditionEmbedding, Dropout, SinusoidalEmbedding


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
