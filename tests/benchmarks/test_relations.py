"""The benchmark of exact rules: its rows keep them, and what breaks one is counted."""

import importlib
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def relations(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("relations")


def test_every_training_row_keeps_every_rule(relations):
    train = relations.make_table(3000, 0)
    assert set(relations.measure(train, train).values()) == {100.0}
    again = relations.make_table(3000, 0)
    assert train.equals(again) and not train.equals(relations.make_table(3000, 1))
    assert train.isna().any().sum() == 4


@pytest.mark.parametrize(
    ("rule", "column", "value"),
    [
        ("city → country", "country", "country 99"),
        ("country → currency", "currency", "XXX"),
        ("product → category", "category", "category 99"),
        ("product → price", "list_price", -1.0),
        ("total = goods + delivery", "total", 0.5),
        ("boxes = small + large", "boxes", 99),
        ("ordered ≤ shipped", "shipped", -1.0),
        ("one way of paying", "card_fee", np.nan),
        ("open ⇔ not shipped", "shipped", np.nan),
        ("no member, no points", "points", 7),
    ],
)
def test_a_row_that_breaks_a_rule_is_counted_there(relations, rule, column, value):
    train = relations.make_table(500, 0)
    rows = train.copy()
    fits = (train["status"] == "shipped") & (train["member"] == "no") & train["card_fee"].notna()
    broken = rows.index[fits][:5]
    rows.loc[broken, column] = value
    found = relations.measure(rows, train)
    assert found[rule] == 99.0 and found["all"] == 99.0
    kind = next(kind for kind, rules in relations.RULES.items() if rule in rules)
    assert found[kind] == 99.0


def test_what_is_declared_is_understood(relations):
    from tabdiff import DiffusionGenerator

    train = relations.make_table(300, 0)
    gen = DiffusionGenerator(constraints=list(relations.DECLARED), max_steps=2, hidden_size=8, n_blocks=1, refine=False)
    found = relations.measure(gen.set_params(random_state=0).fit(train).sample(200, random_state=0), train)
    assert found["dependencies"] == found["sums and order"] == 100.0
