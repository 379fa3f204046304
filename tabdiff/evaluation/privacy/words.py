"""What an audit found, in plain language."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

__all__ = ["findings", "meaning_of"]


def meaning_of(name: str) -> tuple[str, str]:
    """Return which way a figure of the audit is better, and what it means."""
    kind = name.partition(" (")[0]
    if name.endswith("risk %"):
        return "lower", "What an attacker gains on training rows over unseen ones, of what there is to gain."
    return {
        "AUC": ("near 0.5", "Does the attack put training rows above unseen ones? .5: no better than a coin."),
        "TPR at 1 %": (
            "near 0.01",
            "Share of training rows that are recognised where 1 % of unseen rows are taken for such.",
        ),
        "TPR at 10 %": ("near 0.1", "The same where 10 % of unseen rows are taken for training rows."),
        "exact copies %": (
            "lower",
            "Synthetic rows that equal a training row; tables of few values have some by chance.",
        ),
        "near copies %": ("near 1", "Synthetic rows as near to a training row as only 1 % of unseen rows are."),
        "epsilon, at least": ("lower", "What the attacks prove of epsilon in differential privacy; 0: nothing."),
    }[kind]


def findings(
    scores: pd.DataFrame, details: Mapping[str, pd.DataFrame], *, leaked: Mapping[str, float], white: bool
) -> list[str]:
    """Return what was found, the most important first."""
    by = scores.set_index("metric")
    failed = by[by["verdict"] == "fails"]
    out = []
    aucs = by[by.index.str.startswith("AUC")]
    black = aucs[~aucs.index.str.contains("loss")]
    best = black["synthetic"].idxmax()
    who = best.removeprefix("AUC (").rstrip(")")
    sharp = by[by.index.str.startswith("TPR at 1 %")]
    sharpest = sharp.loc[[i for i in sharp.index if "loss" not in i], "synthetic"].max()
    if failed.empty:
        out.append(
            "No attack tells training rows from unseen ones better than chance: the synthetic data pass this audit. It "
            "shows what these attacks find, and proves nothing about others."
        )
    else:
        out.append(
            f"The synthetic data fail this audit in {len(failed)} of {len(by)} figures: they tell about the rows that "
            "trained the model."
        )
    out.append(
        f"Who sees the synthetic rows alone tells training from unseen rows with an AUC of at most "
        f"{black.loc[best, 'synthetic']:.3f} "
        f"({who}; .5 is chance), and recognises {100 * sharpest:.1f} % of them at 1 % false alarms."
    )
    if white:
        inside = aucs[aucs.index.str.contains("loss")]["synthetic"].max()
        out.append(f"Who has the model itself tells them with an AUC of {inside:.3f} by its losses.")
    for name, share in leaked.items():
        if share > 0:
            out.append(f"{share:.1f} % of the rows have a {name!r} of a training row.")
    copies = by.loc["exact copies %"]
    if copies["verdict"] == "fails":
        out.append(f"{copies['synthetic']:.1f} % of the rows equal a training row, more than chance gives.")
    risky = failed[failed.index.str.endswith("risk %")]
    for name in risky.index[:3]:
        out.append(
            f"{name.removesuffix(', risk %').capitalize()} gains {risky.loc[name, 'synthetic']:.1f} % over chance."
        )
    if by.loc["epsilon, at least", "synthetic"] > 0:
        out.append(
            f"Were the generator differentially private, its epsilon would be at least "
            f"{by.loc['epsilon, at least', 'synthetic']:.2f} (95 % confidence)."
        )
    controls = details["controls"].set_index("data")["verdict"]
    odd = [
        name
        for name, right in (("fresh real", "passes"), ("bootstrap", "fails"), ("SMOTE", "fails"))
        if controls[name] != right
    ]
    if odd:
        out.append(
            f"The audit is weak here: the control {', '.join(odd)} came out wrong. There are too few rows, or rows "
            "repeat by nature; do not rely on it."
        )
    else:
        out.append("The controls came out right: fresh real rows pass, a bootstrap and SMOTE fail.")
    return out
