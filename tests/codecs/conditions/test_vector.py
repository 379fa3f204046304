"""Conditions that are vectors, tokens or text."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

from tabdiff import MLP, DiffusionGenerator, DiT
from tabdiff.codecs.conditions.vector import stack_vectors

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
VECTORS = RNG.normal(size=(N, 4)) * [5, 1, 1, 0.1] + 7
TOKENS = RNG.normal(size=(N, 3, 2))
SENTENCES = ["a small cat", "a large dog", "the bird sings", "two fish swim"]
TEXTS = np.array(SENTENCES * (N // 4), dtype=object)


def quick(**parameters):
    defaults = {"max_steps": 3, "hidden_size": 16, "n_blocks": 1, "batch_size": 32, "random_state": 0}
    return DiffusionGenerator(**{**defaults, **parameters})


def letters(texts):
    """Counts of the letters from a to h: an encoder that needs no fit."""
    return np.array([[text.count(c) for c in "abcdefgh"] for text in texts], dtype=float)


def words(texts):
    """A token for each word, as many as there are."""
    return [letters(text.split()) for text in texts]


# --------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    "condition",
    [
        {"e": VECTORS},
        {"e": list(VECTORS)},
        {"e": torch.from_numpy(VECTORS)},
        {"e": sparse.csr_matrix(VECTORS)},
        pd.Series(list(VECTORS), name="e"),
        pd.Series(VECTORS.tolist(), name="e"),
        pd.DataFrame({"e": list(VECTORS)}),
    ],
    ids=["dict", "dict of list", "dict of tensor", "dict of sparse", "series", "series of lists", "frame"],
)
def test_vectors_are_read_in_any_form(condition):
    gen = quick(max_steps=1).fit(X, condition=condition)
    (attribute,) = gen.conditions_.attributes
    assert (attribute.name, attribute.kind, attribute.width) == ("e", "vector", 4)
    np.testing.assert_allclose(np.stack(attribute.decode(gen.conditions_.codes)), VECTORS, atol=1e-5)


@pytest.mark.parametrize("denoiser", ["mlp", "dit"])
def test_vectors_go_in_and_come_out(denoiser):
    gen = quick(denoiser=denoiser).fit(X, condition={"e": VECTORS})
    rows, drawn = gen.sample(7, return_condition=True)
    assert rows.shape == (7, 3) and np.abs(drawn[:, None] - VECTORS).max(2).min(1).max() < 1e-5
    asked = np.arange(8.0).reshape(2, 4)
    for value in (asked, {"e": asked}, list(asked), {"e": list(asked)}, torch.from_numpy(asked)):
        rows, given = gen.sample(condition=value, return_condition=True)
        np.testing.assert_array_equal(given, asked)
    assert gen.sample(5, condition=asked[0]).shape == gen.sample(5, condition={"e": asked[0]}).shape == (5, 3)
    assert np.isnan(gen.sample(2, condition="unconditional", return_condition=True)[1]).all()
    assert gen.sample(4, condition=asked[0], guidance_scale=2.0).shape == (4, 3)
    assert np.isfinite(gen.score_samples(X[:2], condition=asked)).all()


def test_an_array_of_two_dimensions_stays_one_attribute_a_column():
    gen = quick().fit(X, condition=VECTORS)
    assert [a.kind for a in gen.conditions_.attributes] == ["continuous"] * 4


def ragged(tokens, lengths):
    return pd.Series([t[:k] for t, k in zip(tokens, lengths, strict=True)], name="e")


@pytest.mark.parametrize("denoiser", ["mlp", "dit"])
def test_tokens_go_in_and_come_out_padded_or_not(denoiser):
    lengths = RNG.integers(1, 4, size=N)
    padded = np.where(np.arange(3)[:, None] < lengths[:, None, None], TOKENS, np.nan)
    gens = [quick(denoiser=denoiser).fit(X, condition=c) for c in ({"e": padded}, ragged(TOKENS, lengths))]
    for gen in gens:
        (attribute,) = gen.conditions_.attributes
        assert (attribute.kind, attribute.n_tokens, attribute.width) == ("tokens", 3, 2)
        assert gen.model_.config.conditioning == ("adaln" if denoiser == "mlp" else "cross_attention")
    np.testing.assert_array_equal(*(gen.sample(4, random_state=0) for gen in gens))
    gen = gens[0]
    asked = [TOKENS[0], TOKENS[1][:1]]
    dense = np.stack([TOKENS[0], np.vstack([TOKENS[1][:1], np.full((2, 2), np.nan)])])
    rows, given = gen.sample(condition={"e": asked}, random_state=0, return_condition=True)
    np.testing.assert_array_equal(given, dense)
    np.testing.assert_array_equal(gen.sample(condition=dense, random_state=0), rows)
    assert gen.sample(5, condition={"e": TOKENS[0]}).shape == (5, 3)
    assert quick(denoiser=denoiser).fit(X, condition=TOKENS).conditions_.attributes[0].kind == "tokens"


@pytest.mark.slow
def test_keys_of_obsm_are_vectors_and_come_back_there():
    counts = RNG.poisson(3.0, size=(N, 8))
    obs = pd.DataFrame({"kind": ["a", "b"] * (N // 2)}, index=[f"c{i}" for i in range(N)])
    adata = AnnData(counts.astype("float32"), obs=obs, obsm={"X_emb": VECTORS, "X_sparse": sparse.csr_matrix(VECTORS)})
    gen = quick().fit(adata, condition=["kind", "X_emb"])
    assert [a.kind for a in gen.conditions_.attributes] == ["class", "vector"]
    drawn = gen.sample(5, condition={"kind": "a"})
    assert (drawn.obs["kind"] == "a").all() and drawn.obsm["X_emb"].shape == (5, 4) and "X_emb" not in drawn.obs
    assert np.abs(drawn.obsm["X_emb"][:, None] - VECTORS[::2]).max(2).min(1).max() < 1e-5
    like = gen.sample(like=adata[:6], random_state=0)
    np.testing.assert_allclose(like.obsm["X_emb"], VECTORS[:6])
    assert gen.latent(adata).shape[0] == N
    assert quick().fit(adata, condition="X_sparse").conditions_.attributes[0].width == 4
    with pytest.raises(ValueError, match=r"Did you mean 'X_emb'.*keys of obsm: \['X_emb'"):
        quick().fit(adata, condition="X_em")


def test_columns_of_vectors_are_put_back_into_the_frame():
    frame = pd.DataFrame({"a": X[:, 0], "e": list(VECTORS), "kind": ["u", "v"] * (N // 2), "b": X[:, 1]})
    gen = quick().fit(frame, condition=["e", "kind"])
    sample = gen.sample(6, condition={"kind": "v", "e": VECTORS[0]})
    assert list(sample.columns) == ["a", "e", "kind", "b"] and (sample["kind"] == "v").all()
    assert all(np.array_equal(v, VECTORS[0]) for v in sample["e"])
    # What is left open is drawn from the training rows nearest to the vector that is given.
    assert np.isfinite(gen.score_samples(frame[:3])).all()


def test_a_missing_vector_is_the_null_token():
    series = pd.Series(list(VECTORS), name="e")
    series[5] = None
    gen = quick().fit(X, condition=series)
    assert np.isnan(gen.conditions_.codes[5]).all() and np.isfinite(gen.conditions_.codes[4]).all()
    assert gen.sample(3, condition={"e": [VECTORS[0], None, VECTORS[1]]}).shape == (3, 3)


# ------------------------------------------------------------------ learning


@pytest.mark.parametrize("denoiser", ["mlp", "dit"])
@pytest.mark.slow
def test_samples_follow_a_vector_that_was_never_seen(denoiser):
    rng = np.random.default_rng(1)
    vectors, mix = rng.normal(size=(1500, 4)), np.array([[1.0, 0.5], [-1.0, 0.5], [0.5, 1.0], [0.0, -0.5]])
    rows = vectors @ mix + 0.3 * rng.normal(size=(1500, 2))
    gen = quick(denoiser=denoiser, max_steps=400, hidden_size=32, n_blocks=2, batch_size=128, learning_rate=3e-3)
    gen.fit(rows, condition={"e": vectors})
    asked = rng.normal(size=(20, 4))
    drawn = gen.sample(condition={"e": asked.repeat(30, axis=0)}, random_state=0, steps=20).reshape(20, 30, 2)
    error = drawn.mean(1) - asked @ mix
    assert np.sqrt((error**2).mean()) < 0.35 * np.sqrt(((asked @ mix) ** 2).mean())
    assert np.corrcoef(drawn.mean(1).ravel(), (asked @ mix).ravel())[0, 1] > 0.95
    free = gen.sample(400, condition="unconditional", random_state=0, steps=20)
    assert np.abs(free.std(0) / rows.std(0) - 1).max() < 0.3


@pytest.mark.slow
def test_attention_finds_the_token_that_matters():
    """A row follows the second number of that token whose first is positive: their mean does not say which."""
    rng = np.random.default_rng(2)
    n, m = 2000, 3
    tokens = np.stack([np.full((n, m), -2.0), rng.normal(size=(n, m))], axis=2)
    chosen = rng.integers(m, size=n)
    tokens[np.arange(n), chosen, 0] = 2.0
    rows = tokens[np.arange(n), chosen, 1][:, None] + 0.2 * rng.normal(size=(n, 1))
    gen = quick(denoiser="dit", max_steps=500, hidden_size=32, n_blocks=2, batch_size=128, learning_rate=3e-3)
    gen.fit(rows, condition={"e": tokens})
    drawn = gen.sample(condition={"e": tokens[:300]}, random_state=0, steps=20)
    truth = tokens[np.arange(300), chosen[:300], 1]
    assert np.corrcoef(drawn[:, 0], truth)[0, 1] > 0.9
    absent = tokens[:300].copy()
    absent[:, :, :] = np.where((tokens[:300, :, :1] > 0), tokens[:300], np.nan)  # only the one that matters
    assert np.corrcoef(gen.sample(condition={"e": absent}, random_state=0, steps=20)[:, 0], truth)[0, 1] > 0.8


# ---------------------------------------------------------------------- text


@pytest.mark.parametrize("encoder", [letters, words], ids=["vectors", "tokens"])
@pytest.mark.parametrize("denoiser", ["mlp", "dit"])
def test_texts_go_in_and_come_out(encoder, denoiser):
    frame = pd.DataFrame({"a": X[:, 0], "note": TEXTS, "b": X[:, 1]})
    gen = quick(denoiser=denoiser, text_encoder=encoder).fit(frame, condition="note")
    assert gen.conditions_.attributes[0].kind == "text"
    sample = gen.sample(40, random_state=0)
    assert list(sample.columns) == ["a", "note", "b"] and set(sample["note"]) == set(SENTENCES)
    assert gen.sample(3, condition="a new cat")["note"].to_list() == ["a new cat"] * 3
    assert gen.sample(condition={"note": {"a large dog": 2, "bee": 1}})["note"].to_list() == ["a large dog"] * 2 + [
        "bee"
    ]
    assert gen.sample(condition=["bee", "a large dog"])["note"].to_list() == ["bee", "a large dog"]
    assert gen.sample(2, condition="unconditional")["note"].isna().all()
    assert np.isfinite(gen.score_samples(frame[:3])).all()
    assert len(gen.sample(4, condition="a cat", guidance_scale=3.0)) == 4


def test_texts_that_an_encoder_does_not_tell_apart_keep_their_frequencies():
    notes = np.array(["cat", "CAT", "tac", "dog"] * (N // 4), dtype=object)
    gen = quick(text_encoder=lambda texts: letters([t.lower() for t in texts])).fit(X, condition=notes)
    drawn = pd.Series(gen.sample(400, return_condition=True)[1]).value_counts(normalize=True)
    assert drawn.between(0.15, 0.35).all() and len(drawn) == 4


def test_which_strings_are_text():
    frame = pd.DataFrame({"a": X[:, 0], "note": TEXTS, "kind": pd.Categorical(["u", "v"] * (N // 2))})
    for encoder, kinds in ((letters, ["text", "class"]), ({"kind": letters}, ["class", "text"])):
        gen = quick(text_encoder=encoder).fit(frame, condition=["note", "kind"])
        assert [a.kind for a in gen.conditions_.attributes] == kinds
    assert quick().fit(frame, condition="note").conditions_.attributes[0].kind == "class"


def test_an_encoder_of_scikit_learn_is_asked_once_for_each_text():
    asked = []
    pipeline = make_pipeline(TfidfVectorizer(), TruncatedSVD(3, random_state=0)).fit(TEXTS)

    def encode(texts):
        asked.extend(texts)
        return pipeline.transform(texts)

    gen = quick(text_encoder=encode).fit(X, condition=TEXTS)
    gen.sample(5, condition="a small cat")
    gen.sample(5, condition="a small dog")
    assert asked == [*SENTENCES, "a small dog"]
    assert pickle.loads(pickle.dumps(quick(text_encoder=pipeline.transform).fit(X, condition=TEXTS))).sample(2).shape
    assert quick(text_encoder=TfidfVectorizer().fit(TEXTS).transform).fit(X, condition=TEXTS).sample(2).shape == (2, 3)


@pytest.mark.slow
def test_samples_follow_texts_and_paraphrases_that_were_never_seen():
    rng = np.random.default_rng(4)
    numbers = ["one", "two", "three", "four"]
    forms = ["a {}", "the number {}", "handwritten {}"]
    value = rng.integers(4, size=1200)
    texts = np.array(
        [forms[f].format(numbers[v]) for f, v in zip(rng.integers(3, size=1200), value, strict=True)], object
    )
    rows = value[:, None] + 0.2 * rng.normal(size=(1200, 1))
    encode = make_pipeline(TfidfVectorizer(), TruncatedSVD(6, random_state=0)).fit(np.unique(texts)).transform
    gen = quick(text_encoder=encode, max_steps=300, hidden_size=32, batch_size=128, learning_rate=3e-3)
    gen.fit(rows, condition=texts)
    for form in (*forms, "please draw the digit {}"):
        asked = [form.format(number) for number in numbers for _ in range(30)]
        means = gen.sample(condition=asked, random_state=0, steps=15).reshape(4, 30).mean(1)
        # A quarter of the paraphrase's words is known.
        assert np.abs(means - np.arange(4)).max() < (0.3 if form in forms else 0.6)


def test_a_model_is_saved_without_its_encoder_and_takes_it_again(tmp_path):
    gen = quick(text_encoder=words, denoiser="dit").fit(X, condition=TEXTS)
    gen.save(tmp_path / "model")
    other = DiffusionGenerator.load(tmp_path / "model")
    np.testing.assert_array_equal(
        other.sample(4, condition="a large dog", random_state=0), gen.sample(4, condition="a large dog", random_state=0)
    )
    with pytest.raises(
        ValueError, match=r"'a large dogs' is no training text.*'a large dog'.*load\(path, text_encoder="
    ):
        other.sample(2, condition="a large dogs")
    whole = DiffusionGenerator.load(tmp_path / "model", text_encoder=words)
    np.testing.assert_array_equal(
        whole.sample(4, condition="a dog", random_state=0), gen.sample(4, condition="a dog", random_state=0)
    )
    with pytest.warns(UserWarning, match="other vectors"):
        DiffusionGenerator.load(tmp_path / "model", text_encoder=lambda texts: [2 * w for w in words(texts)])
    with pytest.raises(ValueError, match="length 8; got"):
        DiffusionGenerator.load(tmp_path / "model", text_encoder=lambda texts: np.ones((len(texts), 5)))
    quick().fit(X).save(tmp_path / "plain")
    with pytest.raises(ValueError, match="no condition that is text"):
        DiffusionGenerator.load(tmp_path / "plain", text_encoder=letters)


def test_a_warm_fit_knows_the_texts_of_both():
    gen = quick(text_encoder=letters, warm_start=True).fit(X, condition=TEXTS)
    gen.fit(X, condition=np.array(["bee", "cow"] * (N // 2), dtype=object))
    assert gen.n_steps_ == 6
    assert set(gen.sample(30, return_condition=True)[1]) == {"bee", "cow"}


# ---------------------------------------------------------------- mechanisms


@pytest.mark.parametrize(
    "network",
    [
        MLP(conditioning="addition"),
        MLP(conditioning="concatenation", time_embedding="learned"),
        DiT(conditioning="addition"),
        DiT(conditioning="concatenation"),
        DiT(conditioning="cross_attention", time_embedding="learned"),
        DiT(conditioning="adaln"),
    ],
    ids=lambda network: f"{network.network}-{network.conditioning}",
)
@pytest.mark.slow
def test_every_mechanism_learns_the_condition_and_is_saved(network, tmp_path):
    rng = np.random.default_rng(3)
    label = rng.choice(["low", "high"], size=800)
    rows = np.where(label == "high", 2.0, -2.0)[:, None] + 0.5 * rng.normal(size=(800, 2))
    gen = quick(denoiser=network, max_steps=200, hidden_size=32, batch_size=64, learning_rate=3e-3).fit(rows, label)
    drawn = gen.sample(100, condition="high", random_state=0, steps=15)
    assert abs(drawn.mean() - 2.0) < 0.4
    gen.save(tmp_path / "model")
    other = DiffusionGenerator.load(tmp_path / "model")
    np.testing.assert_array_equal(other.sample(100, condition="high", random_state=0, steps=15), drawn)


# -------------------------------------------------------------------- errors


def fitted_vectors():
    return quick().fit(X, condition={"e": VECTORS})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fitted_vectors().sample(condition={"e": np.ones((2, 5))}),
            "'e' was fitted with a vector of length 4.*5",
        ),
        (lambda: fitted_vectors().sample(3, condition=np.ones(3)), "length 4; got 1 of length 3"),
        (lambda: fitted_vectors().sample(3, condition={"f": np.ones(4)}), r"unknown condition name 'f'.*\['e'\]"),
        (lambda: fitted_vectors().sample(condition={"e": np.full((2, 4), np.inf)}), "'e' contains infinite"),
        (lambda: fitted_vectors().sample(2, condition={"e": "red"}), "'e' must be vectors of numbers"),
        (lambda: fitted_vectors().sample(3, condition=np.ones((2, 4))), "2 rows, but n_samples=3"),
        (lambda: quick().fit(X, condition={"e": VECTORS[:9]}), r"a row for each of 60 samples.*'e': 9"),
        (lambda: quick().fit(X, condition={"e": 3}), r"condition\['e'\] must be an array"),
        (lambda: quick().fit(X, condition={"e": np.full((N, 4), np.nan)}), "no value but missing"),
        (
            lambda: quick(denoiser=MLP(conditioning="cross_attention")).fit(X, condition={"e": VECTORS}),
            "which has attention",
        ),
        (lambda: quick(text_encoder=letters).fit(X, condition={"e": VECTORS}), "none of the conditions .* holds text"),
        (lambda: quick(text_encoder={"x": letters}).fit(X, TEXTS), r"text_encoder names \['x'\]"),
        (lambda: quick(text_encoder=lambda t: np.ones((2, 3))).fit(X, TEXTS), "each of 4 texts; got 2 rows"),
        (lambda: quick(text_encoder=lambda t: 3).fit(X, TEXTS), "array with a row per text; got int"),
        (lambda: quick(text_encoder=lambda t: np.full((len(t), 2), np.nan)).fit(X, TEXTS), "no value but missing"),
        (lambda: quick(text_encoder=lambda t: [np.ones(len(s)) for s in t]).fit(X, TEXTS), "vectors of one length"),
        (lambda: quick(text_encoder=letters).fit(X, TEXTS).sample(condition=["a", 3]), "holds text; got 3"),
        (lambda: quick(text_encoder="bert").fit(X, TEXTS), "text_encoder must be .*'bert'"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_vectors_of_many_containers_stack_alike():
    expected = stack_vectors(TOKENS, "x")
    for values in (list(TOKENS), TOKENS.tolist(), torch.from_numpy(TOKENS), pd.Series(list(TOKENS))):
        np.testing.assert_array_equal(stack_vectors(values, "x"), expected)
    with pytest.raises(ValueError, match="some numbers are NaN"):
        stack_vectors([[1.0, np.nan]], "x")
    with pytest.raises(ValueError, match="shape"):
        stack_vectors(np.ones((2, 2, 2, 2)), "x")
