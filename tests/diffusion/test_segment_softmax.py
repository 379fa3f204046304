import pytest
import torch

from tabdiff.diffusion.segment_softmax import LARGE, ColumnBlocks

LEVELS = {
    "mixed": [3, LARGE + 40, 2, 1, 17, LARGE, LARGE + 40, 5, 2],
    "equal": [6] * 5,  # one slice
    "one": [4],
    "single level": [1, 1],
}


@pytest.mark.parametrize("n_levels", LEVELS.values(), ids=LEVELS)
def test_blocks_do_what_columns_one_by_one_do(n_levels):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn((7, sum(n_levels)), generator=rng, dtype=torch.float64).mul_(5).requires_grad_()
    table = torch.randn((sum(n_levels), 3), generator=rng, dtype=torch.float64)
    codes = torch.stack([torch.randint(k, (7,), generator=rng) for k in n_levels], dim=1)
    columns = [part.log_softmax(1) for part in logits.split(n_levels, dim=1)]
    blocks = ColumnBlocks(n_levels)

    torch.testing.assert_close(blocks.log_probabilities(logits), torch.cat(columns, dim=1))
    means = [p.exp() @ rows for p, rows in zip(columns, table.split(n_levels), strict=True)]
    torch.testing.assert_close(blocks.expected(logits, table), torch.stack(means, dim=1))
    chosen = torch.stack([p[torch.arange(7), codes[:, j]] for j, p in enumerate(columns)], dim=1)
    found = blocks.log_likelihood(logits, codes)
    torch.testing.assert_close(found, chosen)
    for a, b in ((found, chosen), (blocks.expected(logits, table), torch.stack(means, dim=1))):
        slopes = [torch.autograd.grad(x.square().sum(), logits, retain_graph=True)[0] for x in (a, b)]
        torch.testing.assert_close(*slopes)


def test_one_product_gives_the_means_that_blocks_give(monkeypatch):
    n_levels = [3, 40, 2, 1, 17]
    rng = torch.Generator().manual_seed(0)
    # As far apart as logits of a denoiser can be, and levels that are excluded.
    logits = torch.rand((50, sum(n_levels)), generator=rng) * 74 - 44
    logits[:, [1, 45]] -= 1e4
    table = torch.randn((sum(n_levels), 8), generator=rng)
    blocks = ColumnBlocks(n_levels)
    dense = blocks.expected(logits, table)
    monkeypatch.setattr("tabdiff.diffusion.segment_softmax.DENSE_PRODUCT", 0)
    torch.testing.assert_close(dense, blocks.expected(logits, table))


def test_columns_of_equal_size_side_by_side_are_not_gathered():
    assert ColumnBlocks([6] * 5)._slices == [slice(0, 30)]
    assert ColumnBlocks([2, LARGE + 1, 2])._slices == [None, slice(2, LARGE + 3)]
    assert ColumnBlocks([LARGE + 1, LARGE])._slices == [slice(LARGE + 1, 2 * LARGE + 1), slice(0, LARGE + 1)]


def test_no_columns_at_all():
    blocks = ColumnBlocks([])
    logits = torch.zeros(4, 0)
    assert blocks.log_probabilities(logits).shape == (4, 0)
    assert blocks.log_likelihood(logits, torch.zeros(4, 0, dtype=torch.long)).shape == (4, 0)
    assert blocks.expected(logits, torch.zeros(0, 8)).shape == (4, 0, 8)
