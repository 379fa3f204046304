"""The negative-binomial autoencoder: its density, its sampler, its posterior and its training."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tabdiff.nn.count_autoencoder import ConditionEmbedding, CountAutoencoder, train_autoencoder
from tabdiff.nn.negative_binomial import nb_log_prob, nb_row_log_prob, nb_sample


def rates(rows: int, genes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.log_softmax(torch.randn(rows, genes, generator=generator), dim=1)


def autoencoder(
    genes: int = 12, n_latent: int = 2, levels: tuple[int, ...] = (), theta: float = 20.0
) -> CountAutoencoder:
    return CountAutoencoder(
        rates(2, genes),
        torch.full((2, genes), math.log(theta)),
        levels,
        torch.arange(genes),
        n_latent=n_latent,
        generator=torch.Generator().manual_seed(0),
    )


def row_log_prob(counts: torch.Tensor, log_mean: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    """Log-probability of rows (B,) without the terms in counts alone, as `nb_row_log_prob` has it."""
    return (nb_log_prob(counts, log_mean.exp(), log_theta) + torch.lgamma(counts + 1)).sum(1)


def log_likelihood(
    model: CountAutoencoder,
    counts: torch.Tensor,
    classes: torch.Tensor,
    z: torch.Tensor,
    condition: torch.Tensor | None = None,
) -> torch.Tensor:
    """What the model's own gives, with gradients of any order."""
    totals = [own.sum(1, keepdim=True).clamp_min(0.5).log().expand_as(own) for own in counts.split(model.blocks, dim=1)]
    log_mean = model.log_rate(z, model.offset(classes), condition) + torch.cat(totals, dim=1)
    return row_log_prob(counts, log_mean, model.log_theta(classes))


@pytest.mark.parametrize("theta", [0.05, 1.0, 30.0])
def test_density_equals_scipy(theta: float) -> None:
    counts = torch.tensor([0.0, 1.0, 7.0, 250.0], dtype=torch.float64)
    for mean in (0.01, 2.0, 90.0):
        mu = torch.full_like(counts, mean)
        ours = nb_log_prob(counts, mu, torch.full_like(counts, math.log(theta)))
        expected = stats.nbinom.logpmf(counts.numpy(), theta, theta / (theta + mean))
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_large_theta_is_the_poisson() -> None:
    counts = torch.arange(20, dtype=torch.float64)
    ours = nb_log_prob(counts, torch.full_like(counts, 5.0), torch.full_like(counts, math.log(1e8)))
    np.testing.assert_allclose(ours.numpy(), stats.poisson.logpmf(counts.numpy(), 5.0), atol=1e-5)


@pytest.mark.parametrize("classes", [[0, 0, 1, 1, 1], [1, 0, 1, 2, 0]])
def test_rows_in_one_pass_have_the_values_and_gradients_of_the_density(classes: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    counts = torch.poisson(torch.full((5, 30), 1.5, dtype=torch.float64), generator=generator)
    counts[0, 3], counts[1, 4], counts[2, 5:] = 40.0, 5.0, 0.0  # beyond the small counts too
    logits = torch.randn(5, 30, generator=generator, dtype=torch.float64, requires_grad=True)
    offset, log_theta = torch.randn(2, 3, 30, generator=generator, dtype=torch.float64).requires_grad_()
    of = torch.tensor(classes)
    log_mean = torch.log_softmax(logits + offset[of], dim=1) + counts.sum(1, keepdim=True).log()
    expected = row_log_prob(counts, log_mean, log_theta[of])
    wanted = torch.autograd.grad(expected.mean(), (logits, offset, log_theta))
    value = nb_row_log_prob(logits, offset, counts, log_theta, of)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(nb_row_log_prob(logits, offset, counts, log_theta, of, gradient=False), expected)
    torch.testing.assert_close(torch.autograd.grad(value.mean(), (logits, offset, log_theta)), wanted)
    for weight in (torch.arange(5.0), torch.ones(5)):  # what would be wrong is refused
        value = nb_row_log_prob(logits, offset, counts, log_theta, of, gradient=weight[0] == 0)
        with pytest.raises(RuntimeError, match="gradient of nb_row_log_prob"):
            torch.autograd.grad(value @ weight.double(), logits)


def test_rows_in_pieces_are_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    counts = torch.poisson(torch.full((7, 11), 1.0), generator=generator)
    counts[3] = 0  # a row without any is as likely as it is
    logits, zeros = torch.randn(7, 11, generator=generator), torch.zeros(1, 11)
    arguments = logits, zeros, counts, zeros, torch.zeros(7, dtype=torch.int64)
    whole = nb_row_log_prob(*arguments)
    log_mean = torch.log_softmax(logits, dim=1) + counts.sum(1, keepdim=True).clamp_min(0.5).log()
    torch.testing.assert_close(whole, row_log_prob(counts, log_mean, zeros))
    monkeypatch.setattr("tabdiff.nn.negative_binomial.CACHE_VALUES", 25)
    torch.testing.assert_close(nb_row_log_prob(*arguments), whole)


@pytest.mark.parametrize(
    ("mean", "theta"), [(1e-9, 1.0), (0.003, 0.5), (0.2, 50.0), (2.0, 0.1), (4.0, 2.0), (9.0, 1e6), (60.0, 3.0)]
)
def test_draws_follow_the_distribution(mean: float, theta: float) -> None:
    n = 400_000
    draws = nb_sample(torch.full((n,), mean), torch.full((n,), math.log(theta)), torch.Generator().manual_seed(0))
    law = stats.nbinom(theta, theta / (theta + mean))
    for k in (0, 1, 2, 5, 20, 80):
        p = law.sf(k)
        assert abs((draws > k).double().mean().item() - p) <= 5 * math.sqrt(max(p * (1 - p), 1 / n) / n), k


def test_draws_of_what_is_rare_are_not_lost_on_the_grid_of_single_precision() -> None:
    generator, n, mean = torch.Generator().manual_seed(0), 5_000_000, 2e-7
    draws = sum(nb_sample(torch.full((n,), mean), torch.zeros(n), generator).sum().item() for _ in range(10))
    assert abs(draws - 10) < 15


def test_samples_have_the_mean_and_variance_of_the_distribution() -> None:
    n, mean, theta = 200_000, 3.0, 2.0
    draws = nb_sample(torch.full((n,), mean), torch.full((n,), math.log(theta)), torch.Generator().manual_seed(0))
    variance = mean + mean**2 / theta
    assert abs(draws.mean().item() - mean) < 4 * math.sqrt(variance / n)
    assert draws.var().item() == pytest.approx(variance, rel=0.03)


def test_without_loadings_the_decoder_is_the_class_rate() -> None:
    model = autoencoder()
    torch.nn.init.zeros_(model.loadings.weight)
    z = torch.randn(2, 2, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model.log_rate(z, model.class_log_rate, None), model.class_log_rate)


def test_posterior_mean_is_the_mode_of_the_joint_density() -> None:
    model = autoencoder().double()
    torch.nn.init.normal_(model.loadings.weight, std=0.5, generator=torch.Generator().manual_seed(2))
    counts = torch.poisson(torch.full((6, 12), 8.0, dtype=torch.float64), generator=torch.Generator().manual_seed(4))
    classes = torch.tensor([0, 1, 0, 1, 0, 1])
    model.start_log_theta.fill_(math.log(1e6))  # Poisson: Fisher scoring is exact for the softmax
    z = model.posterior(counts, classes, None, n_steps=30)[0].detach().requires_grad_()
    joint = log_likelihood(model, counts, classes, z).sum() - 0.5 * z.square().sum()
    (gradient,) = torch.autograd.grad(joint, z)
    assert gradient.abs().max() < 0.05


def test_posterior_precision_is_the_negative_hessian_at_the_mode() -> None:
    model = autoencoder().double()
    counts = torch.poisson(torch.full((1, 12), 8.0, dtype=torch.float64), generator=torch.Generator().manual_seed(4))
    classes = torch.tensor([0])
    model.start_log_theta.fill_(math.log(1e6))
    mean, cholesky = model.posterior(counts, classes, None, n_steps=30)

    def energy(z: torch.Tensor) -> torch.Tensor:
        return 0.5 * z.square().sum() - log_likelihood(model, counts, classes, z[None]).sum()

    hessian = torch.autograd.functional.hessian(energy, mean[0].detach())
    torch.testing.assert_close((cholesky @ cholesky.mT)[0], hessian, atol=2e-3, rtol=2e-3)


def test_blocks_have_rates_and_totals_of_their_own_and_one_latent() -> None:
    own = torch.cat([torch.log_softmax(rates(2, 12)[:, part], dim=1) for part in (slice(0, 8), slice(8, 12))], dim=1)
    theta, generator = torch.full((2, 12), math.log(20.0)), torch.Generator().manual_seed(0)
    model = CountAutoencoder(own, theta, (), torch.arange(12), n_latent=2, generator=generator, blocks=[8, 4]).double()
    classes, z = torch.tensor([0]), torch.randn(1, 2, generator=generator, dtype=torch.float64)
    rate = model.log_rate(z, model.offset(classes), None).exp()
    torch.testing.assert_close(torch.stack([rate[0, :8].sum(), rate[0, 8:].sum()]), torch.ones(2, dtype=torch.float64))
    counts = torch.poisson(torch.tensor([[8.0] * 8 + [300.0] * 4], dtype=torch.float64), generator=generator)
    model.start_log_theta.fill_(math.log(1e6))
    mean, cholesky = model.posterior(counts, classes, None, n_steps=30)

    def energy(z: torch.Tensor) -> torch.Tensor:
        return 0.5 * z.square().sum() - log_likelihood(model, counts, classes, z[None]).sum()

    # The mode of both blocks together, and its curvature.
    assert torch.autograd.functional.jacobian(energy, mean[0].detach()).abs().max() < 1e-3
    hessian = torch.autograd.functional.hessian(energy, mean[0].detach())
    torch.testing.assert_close((cholesky @ cholesky.mT)[0], hessian, atol=2e-3, rtol=2e-3)
    # Some features of one block alone: what the other says is left out.
    mean, _ = model.posterior(counts, classes, None, genes=torch.tensor([9, 10, 11]))
    other = counts.clone()
    other[:, :9] = 0
    torch.testing.assert_close(mean, model.posterior(other, classes, None, genes=torch.tensor([9, 10, 11]))[0])


@pytest.mark.parametrize("blocks", [[12], [8, 4]])
def test_training_sees_the_likelihood_and_its_gradient(blocks: list[int]) -> None:
    own = torch.cat([torch.log_softmax(part, dim=1) for part in rates(2, 12).split(blocks, dim=1)], dim=1)
    theta, generator = torch.full((2, 12), math.log(20.0)), torch.Generator().manual_seed(0)
    model = CountAutoencoder(own, theta, (2, 0), torch.arange(12), n_latent=2, generator=generator, blocks=blocks)
    model = model.double()
    for weight in (model.output.weight, model.output.bias, model.class_shift, model.class_theta_shift):
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    counts = torch.poisson(torch.full((6, 12), 2.0, dtype=torch.float64), generator=generator)
    condition = torch.tensor([[0, 0.3], [1, -1], [0, 2], [1, 0], [1, 1], [0, -0.5]], dtype=torch.float64)
    z = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    classes, gradients = torch.tensor([0, 1, 0, 1, 1, 0]), []
    values = [log_likelihood(model, counts, classes, z, condition), model.log_likelihood(counts, classes, condition, z)]
    for value in values:
        gradients.append(torch.autograd.grad(value.sum(), list(model.parameters()), allow_unused=True))
    torch.testing.assert_close(*values)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_kl_is_that_of_two_gaussians() -> None:
    model = autoencoder().double()
    counts = torch.poisson(torch.full((3, 12), 8.0, dtype=torch.float64), generator=torch.Generator().manual_seed(4))
    classes = torch.tensor([0, 1, 1])
    _, kl = model.sample_posterior(counts, classes, None, torch.zeros(3, 2, dtype=torch.float64))
    mean, cholesky = model.posterior(counts, classes, None)
    posterior = torch.distributions.MultivariateNormal(mean, precision_matrix=cholesky @ cholesky.mT)
    prior = torch.distributions.MultivariateNormal(torch.zeros_like(mean), torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(posterior, prior))


def test_posterior_draws_have_the_posterior_covariance() -> None:
    model = autoencoder().double()
    torch.nn.init.normal_(model.loadings.weight, std=2.0, generator=torch.Generator().manual_seed(2))
    counts = torch.poisson(torch.full((1, 12), 8.0, dtype=torch.float64), generator=torch.Generator().manual_seed(4))
    mean, cholesky = model.posterior(counts, torch.tensor([0]), None)
    # Draws are linear in their noise, so unit noises give the columns of a root of the covariance.
    twice, classes = counts.repeat(2, 1), torch.tensor([0, 0])
    draws, _ = model.sample_posterior(twice, classes, None, torch.eye(2, dtype=torch.float64))
    columns = draws - mean
    covariance = torch.linalg.inv((cholesky @ cholesky.mT)[0])
    assert covariance[0, 1].abs() > 0.05 * covariance.diagonal().min()  # else any root would do
    torch.testing.assert_close(columns.T @ columns, covariance)


def test_embedding_adds_over_attributes_and_knows_null() -> None:
    embedding = ConditionEmbedding((3, 2), 4)
    at = lambda a, b: embedding(torch.tensor([[a, b]]), torch.zeros(1))  # noqa: E731
    torch.testing.assert_close(at(0.0, 1.0) - at(0.0, 0.0), at(2.0, 1.0) - at(2.0, 0.0))
    null = at(math.nan, 0.0)
    assert null.isfinite().all() and not torch.equal(null, at(0.0, 0.0))


def test_embedding_is_continuous_in_a_continuous_attribute() -> None:
    embedding = ConditionEmbedding((0,), 4)
    near = embedding(torch.tensor([[0.5], [0.5001], [2.0], [math.nan]]), torch.zeros(4))
    assert (near[0] - near[1]).abs().max() < 1e-3 < (near[0] - near[2]).abs().max()
    assert near.isfinite().all()


def simulated(n: int = 400, genes: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts of one factor with loadings of ±0.8, and the factor."""
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(n, 1, generator=generator)
    loadings = torch.where(torch.arange(genes) % 2 == 0, 0.8, -0.8)
    rate = torch.softmax(rates(1, genes) + z * loadings, dim=1)
    return torch.poisson(200 * rate, generator=generator), z[:, 0]


def fit(counts: torch.Tensor, **kwargs: object) -> tuple[CountAutoencoder, object]:
    genes = counts.shape[1]
    model = CountAutoencoder(
        torch.log(counts.sum(0, keepdim=True) / counts.sum()),
        torch.full((1, genes), math.log(20.0)),
        (),
        torch.arange(genes),
        n_latent=1,
        generator=torch.Generator().manual_seed(0),
    )

    def load(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        return counts[rows], torch.zeros(len(rows), dtype=torch.int64), None

    settings: dict[str, object] = {
        "max_steps": 150,
        "batch_size": 64,
        "learning_rate": 1e-2,
        "generator": torch.Generator().manual_seed(0),
    }
    history = train_autoencoder(model, load, torch.arange(50, len(counts)), torch.arange(50), **(settings | kwargs))  # type: ignore[arg-type]
    return model, history


def test_training_finds_the_factor() -> None:
    counts, z = simulated()
    model, history = fit(counts)
    mean, _ = model.posterior(counts, torch.zeros(len(counts), dtype=torch.int64), None)
    assert abs(np.corrcoef(mean[:, 0].detach(), z)[0, 1]) > 0.95
    assert history.losses[-1][2] < history.start_loss - 5


def test_training_on_noise_keeps_no_more_than_the_start() -> None:
    counts = torch.poisson(torch.full((120, 12), 0.3), generator=torch.Generator().manual_seed(0))
    _, history = fit(counts)
    kept = [held for step, _, held in history.losses if step == history.best_step] or [history.start_loss]
    assert kept[0] <= history.start_loss


def test_training_repeats_by_seed_and_leaves_the_global_stream() -> None:
    counts, _ = simulated(150)
    before = torch.random.get_rng_state()
    one, two = fit(counts, max_steps=20)[0].state_dict(), fit(counts, max_steps=20)[0].state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(before, torch.random.get_rng_state())


def test_training_stops_in_time_and_reports() -> None:
    reports: list[dict[str, object]] = []
    _, history = fit(simulated(150)[0], max_steps=10_000, max_time=0.3, callback=reports.append)
    assert history.n_steps < 10_000
    assert reports[-1]["stage"] == "autoencoder" and reports[-1]["n_steps"] == 10_000


def test_posterior_draws_have_the_covariance_of_the_posterior() -> None:
    """Unit noises, one after another, give the columns of a root of the covariance, the inverse of the precision."""
    model = autoencoder(n_latent=3).double()
    # Loadings that are no two alike, so that the latents of a row depend on each other.
    torch.nn.init.normal_(model.loadings.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    counts = torch.poisson(torch.full((1, 12), 5.0, dtype=torch.float64), generator=torch.Generator().manual_seed(2))
    counts, classes = counts.repeat(3, 1), torch.zeros(3, dtype=torch.long)
    mean, cholesky = model.posterior(counts, classes, None)
    draws, _ = model.sample_posterior(counts, classes, None, torch.eye(3, dtype=torch.float64))
    root = (draws - mean).mT
    precision = cholesky[0] @ cholesky[0].mT
    assert (precision - torch.diag(torch.diagonal(precision))).abs().max() > 0.1
    torch.testing.assert_close(root @ root.mT, torch.linalg.inv(precision), rtol=1e-9, atol=1e-12)
