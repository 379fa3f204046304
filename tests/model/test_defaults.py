"""What "auto" stands for."""

from types import SimpleNamespace

import pytest

from tabdiff.model.defaults import (
    CPU_LONG_TIME,
    LARGE_ROWS,
    PATIENT_ROWS,
    PATIENT_SECONDS,
    is_patient,
    resolve_learning_rate,
    resolve_steps,
    sizes_of,
)

TABLE = SimpleNamespace(columns_known_=True)
CELLS = SimpleNamespace(columns_known_=False)


@pytest.mark.parametrize(
    ("codec", "n_rows", "settings", "size"),
    [
        (TABLE, LARGE_ROWS - 1, {}, (256, 3)),
        (TABLE, LARGE_ROWS, {}, (128, 3)),
        (TABLE, LARGE_ROWS, {"width": 1500}, (256, 3)),
        (TABLE, PATIENT_ROWS - 1, {}, (128, 3)),
        (TABLE, PATIENT_ROWS, {}, (256, 3)),
        (TABLE, 10**6, {"max_time": CPU_LONG_TIME - 1}, (128, 3)),
        (TABLE, 10**6, {"max_time": CPU_LONG_TIME}, (256, 3)),
        (CELLS, 10**6, {}, (256, 3)),
    ],
)
def test_without_a_gpu_networks_are_small_and_grow_with_what_there_is_to_learn(codec, n_rows, settings, size):
    assert sizes_of("mlp", codec, n_rows, **settings) == size


@pytest.mark.parametrize(
    ("n_rows", "max_time", "patient"),
    [
        (PATIENT_ROWS, None, True),
        (PATIENT_ROWS - 1, None, False),
        (PATIENT_ROWS, PATIENT_SECONDS, True),
        (PATIENT_ROWS, PATIENT_SECONDS - 1, False),
    ],
)
def test_many_rows_and_much_time_are_for_the_best_rows(n_rows, max_time, patient):
    assert is_patient(n_rows, max_time) is patient


def test_a_gpu_has_large_ones(monkeypatch):
    monkeypatch.setattr("tabdiff.model.defaults.resolve_device", lambda device: SimpleNamespace(type=device))
    assert sizes_of("mlp", TABLE, LARGE_ROWS, device="cuda", max_time=60) == (512, 4)
    assert sizes_of("dit", TABLE, LARGE_ROWS, device="cpu") == (128, 4)


def test_small_networks_of_large_tables_take_large_steps():
    assert resolve_learning_rate("auto", small_table_network=True) > resolve_learning_rate("auto")
    assert resolve_learning_rate(1e-4, small_table_network=True) == 1e-4


def test_small_tables_get_fewer_steps_and_grow_without_a_jump():
    sizes = (20, 172, 400, 649, 669, 1299, 1300, 2000, 5000, 5999, 6001, 9000, 11_999, 12_000, 50_000, 10**6)
    steps = {n: resolve_steps("auto", n, None, "cpu", True) for n in sizes}
    plain = {n: resolve_steps("auto", n) for n in sizes}
    assert steps[20] == steps[172] == 200
    assert list(steps.values()) == sorted(steps.values())
    # Half of the steps from 650 to 6,000 rows, and from there on more, up to all of them for 12,000 and more.
    assert all(abs(steps[n] - plain[n] / 2) <= 1 for n in (669, 1299, 1300, 2000, 5000, 5999))
    assert steps[9000] == pytest.approx(0.75 * plain[9000], abs=1)
    assert steps[11_999] >= plain[11_999] - 1
    assert all(steps[n] == plain[n] for n in (12_000, 50_000, 10**6))
    # Below a table has fewer for each row, too.
    assert steps[400] == 200 and steps[649] == pytest.approx(plain[649] / 2, abs=1)
    # Sequences are as they were, and so are some thousand cells; of many more there are fewer steps.
    assert plain[669] == 712
    cells = {n: resolve_steps("auto", n, is_latent=True) for n in sizes}
    assert list(cells.values()) == sorted(cells.values())
    assert all(cells[n] == plain[n] for n in sizes if n <= 2000)
    assert all(cells[n] < 0.9 * plain[n] for n in (5000, 9000)) and cells[10**6] == plain[10**6]
    assert resolve_steps(7, 669, None, "cpu", True) == 7
