"""Identifiers: recognised, and drawn new in the same form."""

import uuid
import warnings

import numpy as np
import pandas as pd
import pytest

from tabdiff import DiffusionGenerator
from tabdiff.codecs.columns import LevelColumn
from tabdiff.codecs.columns.keys import CHECKS, KeyForm, is_key_name


def seeds(n, start=0):
    return np.random.default_rng(start).integers(2**62, size=n).astype(np.uint64)


def luhn(digits):
    """Luhn's check of a number, digit by digit from the right."""
    total = 0
    for k, digit in enumerate(reversed([int(c) for c in digits])):
        twice = 2 * digit if k % 2 else digit
        total += twice - 9 if twice > 9 else twice
    return total % 10 == 0


def with_luhn(stem):
    return next(stem + d for d in "0123456789" if luhn(stem + d))


def test_new_values_have_the_pattern_of_the_old_and_are_none_of_them():
    rng = np.random.default_rng(0)
    old = [f"AB-{rng.choice(list('XYZ'))}{v:05d}" for v in rng.choice(10**5, 800, replace=False)]
    form = KeyForm(old)
    new = form.draw(seeds(2000), set(old))
    assert len(set(new)) == 2000 and not set(new) & set(old)
    assert all(len(v) == 9 and v[:3] == "AB-" and v[3] in "XYZ" and v[4:].isdigit() for v in new)
    assert form.describe() == "AB-A00000" and form.check is None


def test_shapes_come_as_often_as_they_did_and_hexadecimal_stays_so():
    rng = np.random.default_rng(0)
    short = [f"{v:04x}" for v in rng.choice(16**4, 600, replace=False)]
    old = [str(uuid.UUID(int=int(rng.integers(2**62)) << 64, version=4)) for _ in range(600)]
    new = KeyForm(old).draw(seeds(300), set(old))
    assert all(len(str(uuid.UUID(v))) == 36 for v in new)
    mixed = KeyForm([f"{v:06d}" for v in range(0, 10**6, 3337)] + [f"T{v:06d}" for v in range(0, 10**6, 10_007)])
    share = np.mean([v.startswith("T") for v in mixed.draw(seeds(3000), set())])
    assert share == pytest.approx(0.25, abs=0.03)
    assert set("".join(KeyForm(short).draw(seeds(200), set(short)))) <= set("0123456789abcdef")


def test_check_digits_are_found_and_kept():
    rng = np.random.default_rng(0)
    old = sorted({with_luhn("4" + "".join(rng.choice(list("0123456789"), 9))) for _ in range(300)})
    form = KeyForm(old)
    assert form.check == "luhn"
    new = form.draw(seeds(500), set(old))
    assert all(luhn(v) and len(v) == 11 and v[0] == "4" for v in new) and not set(new) & set(old)
    assert KeyForm([v[:-1] + str((int(v[-1]) + (i == 5)) % 10) for i, v in enumerate(old)]).check is None
    # An ISBN-13 and an ISBN-10 that are printed on books.
    assert CHECKS["ean"](np.array([[int(c) for c in "9783161484100"]]))[0] == 0
    assert CHECKS["mod 11"](np.array([[int(c) for c in "0306406152"]]))[0] == 0


def test_a_value_follows_from_its_own_number():
    form = KeyForm([f"K{v:08d}" for v in range(100, 9000, 7)])
    numbers = seeds(50)
    assert form.draw(numbers, set())[10:20] == form.draw(numbers[10:20], set())


def test_too_few_new_ones_are_refused():
    form = KeyForm([f"{v:02d}" for v in range(60)])
    with pytest.raises(ValueError, match="too few new identifiers of the form '00' for 200 rows"):
        form.draw(seeds(200), set())


def test_names_of_identifiers():
    assert all(map(is_key_name, ("id", "ID", "userId", "order_no", "patient-number", "IBAN", "row key")))
    assert not any(map(is_key_name, ("grid", "paid", "amount", "monkey", "year", 3, "idle", "piano")))


def test_levels_without_room_are_drawn_as_before():
    column = LevelColumn(pd.Series([f"{v:02d}" for v in range(90)]), "k", max_codes=20)
    assert column.is_identifier_ and column.form_ is None
    drawn = column.decode(np.zeros(40), np.random.default_rng(0))
    assert drawn.isin(column.levels_).all()


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    n = 150
    return pd.DataFrame(
        {
            "customer_id": pd.array(rng.choice(10**6, n, replace=False) + 10**6, dtype="Int64"),
            "code": [f"AC-{v:06d}" for v in rng.choice(10**6, n, replace=False)],
            "amount": rng.choice(10**6, n, replace=False),
            "v": rng.normal(size=n),
            "kind": rng.choice(["a", "b"], n),
        }
    )


@pytest.mark.slow
def test_a_model_draws_new_keys_and_says_so(frame, tmp_path):
    with pytest.warns(UserWarning, match="New rows have new ones of the same form"):
        gen = DiffusionGenerator(max_steps=5, refine=False, random_state=0).fit(frame)
    rows = gen.sample(300, random_state=0)
    assert rows.dtypes.equals(frame.dtypes)
    for name in ("customer_id", "code"):
        assert rows[name].is_unique and not rows[name].isin(set(frame[name])).any()
    assert rows["code"].str.fullmatch(r"AC-\d{6}").all()
    assert rows["customer_id"].between(10**6, 2 * 10**6 - 1).all()
    schema = gen.schema_.set_index("column")
    assert schema["kind"].to_dict() == {
        "customer_id": "identifier",
        "code": "identifier",
        "amount": "numeric",
        "v": "numeric",
        "kind": "categorical",
    }
    assert schema.loc["code", "grid"] == "new identifiers of the form AC-000000"
    gen.save(tmp_path / "m")
    pd.testing.assert_frame_equal(DiffusionGenerator.load(tmp_path / "m").sample(300, random_state=0), rows)
    assert np.isfinite(gen.score_samples(rows)).all()


def test_serial_numbers_go_on_where_there_is_room_beyond(frame):
    serial = frame.assign(customer_id=np.arange(1, len(frame) + 1), code="x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gen = DiffusionGenerator(max_steps=3, refine=False, random_state=0).fit(serial)
    drawn = gen.sample(100, random_state=0)["customer_id"]
    assert drawn.dtype == serial["customer_id"].dtype
    assert drawn.is_unique and not drawn.isin(serial["customer_id"]).any()


def test_missing_identifiers_stay_missing(frame):
    holes = frame.assign(code=frame["code"].astype("string").mask(frame.index % 3 == 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gen = DiffusionGenerator(max_steps=5, refine=False, random_state=0).fit(holes)
    rows = gen.sample(200, random_state=0)
    assert rows["code"].dtype == holes["code"].dtype
    known = rows["code"].dropna()
    assert 0 < len(known) < 200 and known.is_unique and not known.isin(set(holes["code"].dropna())).any()
