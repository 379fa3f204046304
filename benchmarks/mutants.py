"""Deliberate bugs, and whether the tests next to them notice.

    python benchmarks/mutants.py                     # all of them, a table, exit code 1 if one survives
    python benchmarks/mutants.py --only accumulation

Each entry of ``MUTANTS`` is one bug: a name, a file, the text that stands there once, what the bug makes of it, and the
tests that have to fail. The tree is copied to a temporary folder, where the tests must pass first; then each bug is put
in, its tests run, and it is taken out again. A new bug is a new entry. `tests/benchmarks/test_mutants.py` checks that
every text still stands in its file and that every test is there, so that the list cannot rot.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What the tests need of the tree.
PARTS = ("tabdiff", "tests", "benchmarks", "pyproject.toml")
PASSED, FAILED = 0, 1  # exit codes of pytest; others mean that no test was run


@dataclass(frozen=True)
class Mutant:
    """A deliberate bug.

    Attributes
    ----------
    name : str
        What is wrong.
    file : str
        Where.
    original, mutated : str
        What stands there, once, and what the bug makes of it.
    tests : tuple of str
        Node ids of pytest, at least one of which must fail.
    """

    name: str
    file: str
    original: str
    mutated: str
    tests: tuple[str, ...]

    def mutate(self, root: Path) -> None:
        """Put the bug into a tree."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.original) != 1:
            raise ValueError(f"{self.name}: {self.original!r} stands {text.count(self.original)} times in {self.file}")
        path.write_text(text.replace(self.original, self.mutated), encoding="utf-8")


STEP_FILE, STEP = "tabdiff/training/step.py", "tests/training/test_training.py::"
KNOWN, SINGLE = "tests/diffusion/test_posterior.py::", "tests/diffusion/samplers/test_single_steps.py::"
GUIDED = "tests/generation/test_sampling.py::"
FLOW, BOUND = "tests/diffusion/test_likelihood.py::", "tests/diffusion/test_bound.py::"
POSTERIOR, ANCESTRAL = "tabdiff/diffusion/posterior.py", "tabdiff/diffusion/samplers/ancestral.py"
RUNGE_KUTTA = "tabdiff/diffusion/samplers/runge_kutta.py"
MUTANTS = (
    Mutant(
        "importance weights are not applied in the loop",
        STEP_FILE,
        "losses = importance * losses",
        "losses = losses",
        (STEP + "test_learned_times_leave_the_loss_and_its_gradient_those_of_uniform_times",),
    ),
    Mutant(
        "learned times are told weighted losses",
        STEP_FILE,
        "self.times.update(t, self.world.whole(losses, n), schedule)",
        "self.times.update(t, self.world.whole(importance * losses, n), schedule)",
        (STEP + "test_learned_times_are_told_the_losses_without_their_weights",),
    ),
    Mutant(
        "accumulation does not divide",
        STEP_FILE,
        "part = self.batch_loss(self.chosen[i]) / self.accumulation_steps",
        "part = self.batch_loss(self.chosen[i])",
        (STEP + "test_accumulated_batches_make_the_mean_of_their_gradients",),
    ),
    Mutant(
        "validation looks at the raw weights",
        "tabdiff/training/state.py",
        "self.validation.watch(self.ema.model)",
        "self.validation.watch(self.denoiser)",
        (STEP + "test_held_out_rows_are_seen_by_the_average_of_the_weights",),
    ),
    Mutant(
        "gradients are clipped before they are scaled back",
        STEP_FILE,
        "        self.scaler.unscale_(self.optimizer)\n",
        "",
        (STEP + "test_gradients_are_clipped_at_their_own_size_not_the_scaled_one",),
    ),
    Mutant(
        "the scale of gradients is not taken from a checkpoint",
        "tabdiff/training/state.py",
        'self.scaler.load_state_dict(state["scaler"])',
        "pass",
        (STEP + "test_the_scale_goes_into_checkpoints_and_back",),
    ),
    Mutant(
        "the second beta is the default whatever was asked for",
        "tabdiff/training/options.py",
        "betas=(first, second)",
        "betas=(first, 0.99)",
        ("tests/training/test_options.py::test_betas_and_weight_decay_reach_the_optimiser",),
    ),
    Mutant(
        "an epoch counts rows as often as they were encoded",
        "tabdiff/model/fit.py",
        "epoch_rows=len(rows.data) // start.n_draws",
        "epoch_rows=len(rows.data)",
        ("tests/training/test_checkpoint.py::test_epochs_are_of_the_rows_that_training_has",),
    ),
    Mutant(
        "inverse_snr is clipped, and weighs the clean row",
        "tabdiff/diffusion/losses.py",
        "return torch.ones_like(snr)",
        "return (1 / snr).clamp(max=self.gamma)",
        ("tests/diffusion/test_denoiser.py::test_inverse_snr_is_the_error_of_the_noise_over_the_snr",),
    ),
    Mutant(
        "the last categorical step is conditional at scale 0",
        "tabdiff/generation/sampling.py",
        "condition_last=self.options.guidance_scale != 0",
        "condition_last=True",
        (GUIDED + "test_scale_0_is_unconditional_in_numbers_and_categories",),
    ),
    Mutant(
        "guidance goes by scale - 1 in the estimator",
        "tabdiff/generation/sampling.py",
        "guide(self.model.denoiser, self.options.guidance_scale, self.guidance)",
        "guide(self.model.denoiser, self.options.guidance_scale - 1, self.guidance)",
        (GUIDED + "test_the_scale_reaches_guidance_as_it_is",),
    ),
    Mutant(
        "the autoencoder draws without the spread of its posterior",
        "tabdiff/nn/count_autoencoder.py",
        "z = mean + torch.linalg.solve_triangular(cholesky.mT, eps[:, :, None], upper=True)[:, :, 0]",
        "z = mean",
        ("tests/nn/test_count_autoencoder.py::test_posterior_draws_have_the_covariance_of_the_posterior",),
    ),
    Mutant(
        "the autoencoder draws by the root of the precision",
        "tabdiff/nn/count_autoencoder.py",
        "z = mean + torch.linalg.solve_triangular(cholesky.mT, eps[:, :, None], upper=True)[:, :, 0]",
        "z = mean + (cholesky @ eps[:, :, None])[:, :, 0]",
        ("tests/nn/test_count_autoencoder.py::test_posterior_draws_have_the_covariance_of_the_posterior",),
    ),
    Mutant(
        "the density ratio learns from unbalanced classes",
        "tabdiff/model/refinement/density_ratio.py",
        "own * (len(shown) / len(real))",
        "own",
        (
            "tests/model/refinement/test_refinement.py::test_density_ratio_does_not_depend_on_how_many_rows_each_side_has",
        ),
    ),
    Mutant(
        "RePaint noises known entries at the old level",
        POSTERIOR,
        "at_then = then.alpha * known + (then.sigma * model.noise(known) if then.sigma > 0 else 0.0)",
        "at_then = now.alpha * known + (now.sigma * model.noise(known) if then.sigma > 0 else 0.0)",
        (KNOWN + "test_known_entries_have_the_noise_of_the_time_reached",),
    ),
    Mutant(
        "posterior guidance ignores its scale",
        POSTERIOR,
        "return x0.detach() - self.scale * sigma**2 / alpha * gradient",
        "return x0.detach() - sigma**2 / alpha * gradient",
        (KNOWN + "test_the_scale_of_posterior_guidance_multiplies_its_gradient",),
    ),
    Mutant(
        "churn_noise is ignored",
        RUNGE_KUTTA,
        "added = math.sqrt(max(raised.sigma**2 - (keep * now.sigma) ** 2, 0.0)) * self.churn_noise",
        "added = math.sqrt(max(raised.sigma**2 - (keep * now.sigma) ** 2, 0.0))",
        (SINGLE + "test_churn_is_algorithm_2_of_edm",),
    ),
    Mutant(
        "churn_range is in the wrong unit",
        RUNGE_KUTTA,
        "self.churn_range[0] <= math.exp(-now.lam) <= self.churn_range[1]",
        "self.churn_range[0] <= now.sigma <= self.churn_range[1]",
        (SINGLE + "test_churn_range_is_in_noise_to_signal_on_a_schedule_that_preserves_variance",),
    ),
    Mutant(
        "a Langevin step goes by snr squared times sigma",
        ANCESTRAL,
        "length = 2 * (self.snr * then.sigma) ** 2",
        "length = 2 * self.snr**2 * then.sigma",
        (SINGLE + "test_a_correction_is_the_langevin_step_of_algorithm_5",),
    ),
    Mutant(
        "the corrector asks at the wrong time",
        ANCESTRAL,
        "                x0, eps = model.x0_and_eps(x, then)",
        "                x0, eps = model.x0_and_eps(x, now)",
        (SINGLE + "test_a_correction_is_the_langevin_step_of_algorithm_5",),
    ),
    Mutant(
        "DDIM has eta squared",
        ANCESTRAL,
        "tau = self.eta * math.sqrt(",
        "tau = self.eta**2 * math.sqrt(",
        (SINGLE + "test_ddim_draws_the_noise_of_its_equation_16",),
    ),
    Mutant(
        "DDPM interpolates variances and not their logarithms",
        ANCESTRAL,
        "small ** (1 - share) * large**share",
        "small * (1 - share) + large * share",
        (SINGLE + "test_ddpm_interpolates_the_logarithms_of_its_variances",),
    ),
    Mutant(
        "Euler-Maruyama has the noise of the next sigma",
        RUNGE_KUTTA,
        "now.sigma * math.sqrt(2 * speed * dt) * model.noise(x)",
        "then.sigma * math.sqrt(2 * speed * dt) * model.noise(x)",
        (SINGLE + "test_euler_maruyama_is_the_reverse_sde_at_the_time_it_starts_from",),
    ),
    Mutant(
        "FiLM without 1 +",
        "tabdiff/nn/unet.py",
        "h = torch.addcmul(shift, h, 1 + scale)",
        "h = torch.addcmul(shift, h, scale)",
        ("tests/nn/test_unet.py::test_without_modulation_film_leaves_the_normalised_maps_as_they_are",),
    ),
    Mutant(
        "the embedding of time has another period",
        "tabdiff/nn/embeddings.py",
        "def __init__(self, size: int, *, scale: float = 1000.0, max_period: float = 10_000.0) -> None:",
        "def __init__(self, size: int, *, scale: float = 1000.0, max_period: float = 100.0) -> None:",
        (
            "tests/nn/test_embeddings.py::test_by_default_time_runs_to_1000_and_the_longest_period_is_that_of_the_papers",
        ),
    ),
    Mutant(
        "the flow likelihood forgets the volume at the clean end",
        "tabdiff/diffusion/likelihood.py",
        "d * math.log(path[0].alpha)",
        "0.0",
        (FLOW + "test_flow_log_likelihood_counts_both_ends_of_the_schedule",),
    ),
    Mutant(
        "the prior of the flow has no part of the data",
        "tabdiff/diffusion/likelihood.py",
        "variance = node.alpha**2 + node.sigma**2",
        "variance = node.sigma**2",
        (FLOW + "test_flow_log_likelihood_counts_both_ends_of_the_schedule",),
    ),
    Mutant(
        "dequantise ignores its bin width",
        "tabdiff/diffusion/likelihood.py",
        "values + bin_width * drawn",
        "values + drawn",
        (FLOW + "test_bits_per_dim_of_quantised_data",),
    ),
    Mutant(
        "the prior's part of the bound is left out",
        "tabdiff/diffusion/bound.py",
        "noisiest.alpha**2 / prior * x.square()",
        "0.0 * x.square()",
        (BOUND + "test_the_ends_of_a_schedule_are_paid_for",),
    ),
    Mutant(
        "a chain does not pay for its variance",
        "tabdiff/diffusion/bound_terms.py",
        "0.5 * ratio * (snr - now)",
        "0.5 * (snr - now)",
        (BOUND + "test_a_chain_pays_for_its_variance",),
    ),
)


def run_tests(root: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Run tests in a tree; return pytest's exit code and what it said."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


def copy_tree(to: Path) -> None:
    """Copy what the tests need."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(ROOT / part, to / part)


def main(mutants: tuple[Mutant, ...] = MUTANTS) -> int:
    """Try the bugs, print a table, and return 1 if one survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="bugs whose names hold this text")
    args = parser.parse_args()
    chosen = [m for m in mutants if args.only in m.name]
    if not chosen:
        print(f"no bug's name holds {args.only!r}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary)
        copy_tree(tree)
        code, said = run_tests(tree, tuple(dict.fromkeys(test for m in chosen for test in m.tests)))
        if code != PASSED:
            print(f"the tests must pass without a bug first:\n{said}", file=sys.stderr)
            return 2
        survivors = 0
        print("| deliberate bug | file | caught | seconds |\n|---|---|---|---|", flush=True)
        for mutant in chosen:
            path, began = tree / mutant.file, time.perf_counter()
            kept = path.read_text(encoding="utf-8")
            mutant.mutate(tree)
            code, said = run_tests(tree, mutant.tests)
            path.write_text(kept, encoding="utf-8")
            verdict = {PASSED: "**survived**", FAILED: "yes"}.get(code, f"pytest ended with {code}")
            survivors += code != FAILED
            print(f"| {mutant.name} | {mutant.file} | {verdict} | {time.perf_counter() - began:.1f} |", flush=True)
        print(f"\n{len(chosen) - survivors} of {len(chosen)} caught")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
