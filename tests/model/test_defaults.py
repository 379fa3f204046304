import pytest

from tabdiff.model.defaults import has_large_batches, resolve_batch_size, resolve_learning_rate


@pytest.mark.parametrize(
    ("network", "n_rows", "device", "large"),
    [
        ("mlp", 32_561, "cuda", True),
        ("mlp", 32_561, "cpu", False),
        ("mlp", 5_000, "cuda", False),
        ("dit", 32_561, "cuda", False),
        ("unet", 60_000, "cuda", False),
        ("custom", 60_000, "cuda", False),
    ],
)
def test_batches_are_large_for_an_mlp_on_many_rows_on_a_gpu(network, n_rows, device, large):
    assert has_large_batches(network, n_rows, device) == large


def test_the_rate_follows_the_default_batch_and_what_is_asked_for_stays():
    assert resolve_batch_size("auto", 32_561, large=True) == 4096
    assert resolve_batch_size("auto", 32_561) == 512 and resolve_batch_size("auto", 100) == 100
    assert resolve_learning_rate("auto", large=True) == 2 * resolve_learning_rate("auto")
    assert resolve_batch_size(64, 32_561, large=True) == 64
    assert resolve_learning_rate(5e-4, large=True) == 5e-4
