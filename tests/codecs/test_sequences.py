import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator, DiffusionImputer, DiffusionOverSampler
from tabdiff.codecs.sequences import SequenceCodec, SequenceForm, read_sequences

DNA = ["ACGT", "AC", "GGT", "TTTT", "A"] * 8


def quick(**parameters):
    defaults = {"max_steps": 3, "hidden_size": 16, "n_blocks": 1, "batch_size": 32, "random_state": 0}
    return DiffusionGenerator(**{**defaults, **parameters})


# ------------------------------------------------------------------- codec


@pytest.mark.parametrize(
    ("sequences", "alphabet"),
    [
        (["ACGT", "A"], "ACGT"),
        (["ACGU", "A"], "ACGU"),
        (["MKV", "ACW"], "ACDEFGHIKLMNPQRSTVWY"),
        (["ACGN", "A"], "ACDEFGHIKLMNPQRSTVWY"),
        (["acgt", "a"], "acgt"),
        (["0110", "1001"], "01"),
    ],
)
def test_alphabets_are_found(sequences, alphabet):
    assert "".join(SequenceCodec().fit(pd.Series(sequences)).alphabet_) == alphabet


@pytest.mark.parametrize(
    "values",
    [
        DNA,
        ["ACG", "TTT"],
        ["", "A", "AC"],
        [np.array([5, 2, 9]), np.array([2]), np.array([], dtype=int)],
        [np.array([5, 2]), np.array([2, 2])],
    ],
    ids=["DNA", "one length", "with an empty one", "integers", "integers of one length"],
)
def test_encoding_and_decoding_are_inverse(values):
    series = pd.Series(values, dtype=object)
    codec = SequenceCodec().fit(series)
    data = codec.encode(series)
    assert data.shape == (len(values), codec.length_) and data.max() < codec.n_levels_[0]
    for a, b in zip(codec.decode(data), values, strict=True):
        assert a == b if isinstance(b, str) else np.array_equal(a, b)
    again = SequenceCodec.from_state(codec.state())
    assert torch.equal(again.encode(series), data) and again.n_levels_ == codec.n_levels_


def test_a_row_ends_where_padding_first_appears():
    codec = SequenceCodec().fit(pd.Series(["ACGT", "A"]))
    assert codec.decode(torch.tensor([[0.0, 4, 1, 4], [4, 0, 0, 0], [0, 1, 2, 3]])).to_list() == ["A", "", "ACGT"]


def test_sequences_of_one_length_have_no_padding():
    codec = SequenceCodec().fit(pd.Series(["ACG", "TTT"]))
    assert codec.n_levels_ == [4, 4, 4]
    with pytest.raises(ValueError, match="sequence 1 has 2 positions; 3, as all at fit"):
        codec.encode(pd.Series(["ACG", "AC"]))


@pytest.mark.parametrize(
    ("codec", "sequences", "message"),
    [
        (SequenceCodec(), ["", ""], "every sequence is empty"),
        (SequenceCodec("DNA"), ["ACGU", "A"], r"lacks: \['U'\]"),
        (SequenceCodec(), ["A" * 5000, "A"], "5000 positions"),
        (SequenceCodec(), ["".join(map(chr, range(100, 500))), "A"], "401 different letters"),
    ],
)
def test_what_cannot_be_modelled_is_refused(codec, sequences, message):
    with pytest.raises(ValueError, match=message):
        codec.fit(pd.Series(sequences))


def test_new_letters_and_lengths_are_named():
    codec = SequenceCodec().fit(pd.Series(DNA))
    with pytest.raises(ValueError, match="sequence 1 has the letter 'N'"):
        codec.encode(pd.Series(["A", "AN"]))
    with pytest.raises(ValueError, match="sequence 0 has 5 positions; up to 4"):
        codec.encode(pd.Series(["ACGTA"]))


@pytest.mark.parametrize(
    "X",
    [
        [[1, 2], [3, 4]],
        [1.0, 2.0],
        np.array([[1, 2], [3, 4]]),
        pd.Series([1.0, 2.0]),
        pd.Series([1, 2], dtype="category"),
        np.array([1, 2]),
        "ACGT",
        [],
        [None, None],
        pd.DataFrame({"s": ["A", "C"]}),
    ],
    ids=str,
)
def test_other_containers_are_no_sequences(X):
    assert read_sequences(X) is None


# --------------------------------------------------------------- estimator


@pytest.mark.parametrize(
    "X",
    [
        DNA,
        tuple(DNA),
        np.array(DNA),
        np.array(DNA, dtype=object),
        pd.Series(DNA, name="dna", index=range(5, 45)),
        pd.Series(DNA, dtype="string"),
        pd.Series([np.array([1, 2, 3])] * 4 + [np.array([3])] * 4),
        [[1, 2, 3], [4]] * 4,
    ],
    ids=["list", "tuple", "array", "objects", "series", "string series", "series of integers", "ragged list"],
)
def test_the_container_that_goes_in_comes_out(X, tmp_path):
    gen = quick().fit(X)
    assert gen.model_.config.network == "mlp" and gen.n_features_in_ == max(len(s) for s in X)
    gen.save(tmp_path / "model")
    for model in (gen, DiffusionGenerator.load(tmp_path / "model")):
        drawn = model.sample(6, random_state=0)
        assert type(drawn) is (list if isinstance(X, tuple) else type(X)) and len(drawn) == 6
        letters = set().union(*(set(s) for s in X))
        assert all(set(s) <= letters | set("ACGT") for s in drawn)
        assert model.schema_.loc[0, "kind"] == "sequence"
        if isinstance(X, pd.Series):
            assert drawn.dtype == X.dtype and drawn.name == X.name
        elif isinstance(X, np.ndarray):
            assert drawn.dtype.kind == X.dtype.kind


@pytest.mark.parametrize("denoiser", ["mlp", "dit"])
def test_labels_and_numbers_condition_sequences(denoiser):
    activity = np.linspace(0, 1, len(DNA))
    species = np.array(["fly", "worm"] * (len(DNA) // 2))
    gen = quick(denoiser=denoiser).fit(DNA, condition={"activity": activity, "species": species})
    drawn, labels = gen.sample(5, condition={"activity": 0.3, "species": "fly"}, return_condition=True)
    assert len(drawn) == 5 and (labels["species"] == "fly").all() and np.allclose(labels["activity"], 0.3)
    assert np.isfinite(gen.score_samples(DNA[:3])).all()
    assert gen.score(DNA[:4], sample_weight=[1, 1, 0, 1]) < 0
    gen.fit(DNA, species, sample_weight=np.arange(len(DNA)))
    assert gen.sample(condition=["fly", "worm"], guidance_scale=2.0) != []


def test_a_warm_fit_takes_shorter_sequences_and_refuses_other_letters():
    gen = quick(warm_start=True).fit(DNA)
    assert gen.fit(["AC", "GT"]).n_steps_ == 6
    with pytest.raises(ValueError, match="letter 'N'"):
        gen.fit(["NN", "AC"])
    with pytest.raises(ValueError, match="'sequences' and is 'array'"):
        gen.fit(np.ones((5, 4)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quick().fit(["ACGT"]), ValueError, "minimum of 2"),
        (lambda: quick().fit(DNA, condition="species"), ValueError, "sequences have not"),
        (lambda: quick().fit(DNA, np.zeros(3)), ValueError, r"\[40, 3\]"),
        (lambda: quick().fit(DNA).score_samples(np.ones((2, 4))), TypeError, "fitted on sequences"),
        (lambda: quick().fit(np.eye(4)).score_samples(DNA), TypeError, "fitted on a array, and X is sequences"),
        (lambda: quick().fit(DNA).impute(DNA), TypeError, "not available for sequences"),
        (lambda: DiffusionImputer(quick()).fit(DNA), TypeError, "DiffusionImputer takes arrays and DataFrames"),
        (lambda: DiffusionOverSampler(quick()).fit_resample(DNA, DNA), TypeError, "got sequences"),
        (lambda: quick(refine=True).fit(np.zeros((9, 4, 4), dtype=np.uint8)), TypeError, "refine=True needs"),
    ],
)
def test_what_sequences_do_not_have_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_forms_are_plain_in_files():
    form = SequenceForm("series", pd.StringDtype(), "x")
    again = SequenceForm.from_state(form.state())
    assert (again.kind, again.dtype, again.name) == ("series", form.dtype, "x")


# ----------------------------------------------------------------- learning


def grammar(n, seed):
    """Sequences of eight letters: own frequencies at each position, a pair that depends, a motif of one class."""
    rng = np.random.default_rng(seed)
    frequencies = np.random.default_rng(0).dirichlet(np.ones(4), size=8)
    codes = np.stack([rng.choice(4, size=n, p=p) for p in frequencies], axis=1)
    codes[:, 7] = np.where(rng.random(n) < 0.9, 3 - codes[:, 0], codes[:, 7])
    on = rng.random(n) < 0.5
    codes[on, 3:6] = [0, 1, 2]
    lengths = np.where(rng.random(n) < 0.25, 9, 8)  # a quarter of them ends in one more T
    letters = np.array(list("ACGT"))[np.column_stack([codes, np.full(n, 3)])]
    return ["".join(row[:k]) for row, k in zip(letters, lengths, strict=True)], np.where(on, "on", "off")


def as_codes(sequences):
    return np.array([["ACGT-".index(c) for c in s.ljust(9, "-")] for s in sequences])


def mutual_information(codes, i, j):
    joint = np.histogram2d(codes[:, i], codes[:, j], bins=[np.arange(6) - 0.5] * 2)[0] / len(codes)
    product = joint.sum(1)[:, None] * joint.sum(0)
    return float((joint[joint > 0] * np.log(joint[joint > 0] / product[joint > 0])).sum())


@pytest.mark.slow
def test_frequencies_pairs_motifs_and_lengths_of_a_grammar_are_kept():
    real, labels = grammar(3000, 1)
    gen = quick(
        denoiser="dit",
        max_steps=700,
        hidden_size=48,
        n_blocks=2,
        batch_size=128,
        learning_rate=3e-3,
        precision="float32",
        refine=False,
    )
    drawn, drawn_labels = gen.fit(real, labels).sample(3000, random_state=0, return_condition=True)
    a, b = as_codes(real), as_codes(drawn)
    for k in range(5):
        share = (a == k).mean(0)
        # Two samples of 3,000 differ by as much; a short fit adds a little.
        error = 3 * np.sqrt(2 * share * (1 - share) / 3000) + 0.01
        assert (np.abs((b == k).mean(0) - share) <= error).all()
    assert mutual_information(b, 0, 7) > 0.8 * mutual_information(a, 0, 7)
    assert mutual_information(b, 1, 6) < 0.02
    motif = (b[:, 3:6] == [0, 1, 2]).all(1)
    rare = (a[labels == "off", 3:6] == [0, 1, 2]).all(1).mean()
    assert motif[drawn_labels == "on"].mean() > 0.97
    assert abs(motif[drawn_labels == "off"].mean() - rare) < 0.03
    assert abs((b[:, 8] != 4).mean() - (a[:, 8] != 4).mean()) < 0.04
    assert set(b[b[:, 8] != 4, 8]) == {3}


@pytest.mark.slow
def test_refined_sequences_have_the_frequencies_and_pairs_of_the_data():
    real, labels = grammar(6000, seed=0)
    gen = quick(denoiser="mlp", max_steps=800, hidden_size=96, batch_size=256, learning_rate=2e-3).fit(real, labels)
    refined = as_codes(gen.sample(3000, random_state=0))
    raw = as_codes(gen.set_params(refine=False).sample(3000, random_state=0))
    codes = as_codes(real)

    def frequency_error(drawn):
        return max(np.abs((drawn == k).mean(0) - (codes == k).mean(0)).max() for k in range(5))

    assert frequency_error(refined) < min(0.03, frequency_error(raw))
    assert abs(mutual_information(refined, 0, 7) / mutual_information(codes, 0, 7) - 1) < 0.1
