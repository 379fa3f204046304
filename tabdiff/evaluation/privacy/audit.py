"""The privacy audit: every attack on the synthetic data, beside the same on data of which the answer is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.distances import gower_nearest
from tabdiff.evaluation.frames import draw_rows, encode
from tabdiff.evaluation.intervals import clopper_pearson
from tabdiff.evaluation.privacy import figures, words
from tabdiff.evaluation.privacy.controls import bootstrap_rows, smote_rows
from tabdiff.evaluation.privacy.disclosure import Risk, attribute_inference, linkability, singling_out
from tabdiff.evaluation.privacy.epsilon import epsilon_lower_bound
from tabdiff.evaluation.privacy.frames import as_frames
from tabdiff.evaluation.privacy.membership import Attack, Candidates, loss_attacks, membership_attacks
from tabdiff.evaluation.report import Drawing, Report
from tabdiff.evaluation.rules import key_columns
from tabdiff.utils.fingerprint import frame_digest

__all__ = ["audit"]

MIN_HOLDOUT = 60
# Rows of the synthetic data and of the reference that are searched, rows from which copies are looked for, and columns
# that are guessed.
MAX_POINTS, MAX_COPIES, MAX_SECRETS = 20_000, 2_000, 5
NEAR = 0.01
FPRS = (0.01, 0.1)
CONTROLS = ("fresh real", "bootstrap", "SMOTE")


@dataclass
class _Side:
    """What was found of one synthetic data set."""

    attacks: list[Attack]
    copies: pd.DataFrame
    risks: list[Risk]
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    alarms: dict[str, bool]


@dataclass(frozen=True)
class _Setting:
    """What is the same for the synthetic data and for the controls."""

    train: pd.DataFrame
    unseen: pd.DataFrame
    candidates: Candidates
    secrets: list[Any]
    near: float
    n_attacks: int
    seed: int


def audit(
    synthetic: Any,
    train: Any,
    holdout: Any,
    *,
    losses: Callable[[Any], np.ndarray] | None = None,
    secrets: Sequence[Any] | None = None,
    max_rows: int = 2_000,
    random_state: int | None = 0,
) -> Report:
    """Audit synthetic data; see `tabdiff.privacy_report`, which takes a model where this takes its losses.

    Parameters
    ----------
    synthetic, train, holdout, secrets, max_rows, random_state
        As in `tabdiff.privacy_report`.
    losses : callable, optional
        Takes rows and returns their losses (n, k) under the model.

    Returns
    -------
    report : Report
    """
    frames, kind = as_frames(synthetic, train, holdout)
    rows, ours, unseen = frames
    if len(unseen) < MIN_HOLDOUT:
        raise ValueError(f"holdout must have at least {MIN_HOLDOUT} rows for an audit; got {len(unseen)}.")
    if len(rows) < MIN_HOLDOUT:
        raise ValueError(f"train must have at least {MIN_HOLDOUT} rows for an audit; got {len(rows)}.")
    if secrets is not None and (unknown := [name for name in secrets if name not in rows.columns]):
        raise ValueError(f"secrets must be columns; got {unknown[0]!r}. There are {list(rows.columns)}.")
    digest = frame_digest(rows)
    # A key is new in every row of honest data, and tells copies by itself: it is looked at alone.
    keys = key_columns(rows) if kind == "table" else []
    keys = keys if len(keys) < rows.shape[1] else []
    leaked = [_shared(ours[name], rows[name]) for name in keys]
    rows, ours, unseen = (frame.drop(columns=keys) for frame in (rows, ours, unseen))
    rng = np.random.default_rng(random_state)
    order = rng.permutation(len(unseen))
    third = len(order) // 3
    parts = [unseen.iloc[np.sort(order[i * third : (i + 1) * third])] for i in range(3)]
    n = min(max_rows, third, len(rows))
    members = np.sort(rng.choice(len(rows), n, replace=False))
    others = parts[0].iloc[draw_rows(third, n, rng)]
    known = parts[1].iloc[draw_rows(third, MAX_POINTS, rng)]
    candidates = Candidates(rows.iloc[members], others, known, members)
    seed = int(rng.integers(2**31))
    guessed = (
        [c for c in rows.columns if rows[c].nunique() > 1] if secrets is None else [c for c in secrets if c not in keys]
    )
    guessed = [guessed[i] for i in draw_rows(len(guessed), MAX_SECRETS, rng)] if secrets is None else guessed
    control = pd.concat(parts[:2])
    setting = _Setting(
        rows, control, candidates, guessed if kind == "table" else [], _near(rows, control, rng), min(500, n), seed
    )
    size = min(len(ours), MAX_POINTS)
    data = {
        "synthetic": ours.iloc[draw_rows(len(ours), MAX_POINTS, rng)],
        "fresh real": parts[2],
        "bootstrap": bootstrap_rows(rows, size, rng),
        "SMOTE": smote_rows(rows, size, random_state=seed),
    }
    white = None
    if losses is not None:
        original = {"members": members, "others": others.index.to_numpy()}
        white = _white_box(losses, train, holdout, original, seed)
    sides = {name: _look(frame, setting, white if name == "synthetic" else None) for name, frame in data.items()}
    scores = _scores(sides)
    details = _details(sides, setting, data["synthetic"])
    drawings = {
        "roc": Drawing(
            figures.draw_roc,
            {"attacks": {a.name: (a.members, a.others) for a in sides["synthetic"].attacks}},
            "True against false positives of each attack on a logarithmic scale; the dashed line is chance.",
            (5.0, 4.0),
        ),
        "controls": Drawing(
            figures.draw_controls,
            {"sides": {name: max(a.auc for a in side.attacks) for name, side in sides.items()}},
            "The best attack's AUC on the synthetic data and on each control; .5 is chance.",
            (6.0, 2.2),
        ),
    }
    findings = words.findings(scores, details, leaked=dict(zip(keys, leaked, strict=True)), white=losses is not None)
    sizes = {
        "rows": f"{len(rows):,} training, {len(ours):,} synthetic, {len(unseen):,} unseen",
        "membership": f"{n:,} training rows, as many unseen ones, {len(known):,} unseen ones that the attacker has",
        "synthetic rows that attacks search": f"{size:,}",
    }
    if keys:
        sizes["identifiers"] = f"{', '.join(map(str, keys))}: left out of all attacks"
    return Report("privacy", scores, details, findings, sizes, drawings, fingerprint=digest)


def _shared(ours: pd.Series, theirs: pd.Series) -> float:
    return 100 * float((ours.isin(set(theirs.dropna())) & ours.notna()).mean())


def _near(train: pd.DataFrame, unseen: pd.DataFrame, rng: np.random.Generator) -> float:
    """How near one unseen row in a hundred comes to a training row."""
    some = unseen.iloc[draw_rows(len(unseen), MAX_COPIES, rng)]
    pool = train.iloc[draw_rows(len(train), MAX_POINTS, rng)]
    encoded = encode(train, some, pool)
    return float(np.quantile(gower_nearest(*encoded), NEAR))


def _white_box(
    losses: Callable[[Any], np.ndarray], train: Any, holdout: Any, rows: dict[str, np.ndarray], seed: int
) -> list[Attack]:
    """The attacks on the model itself; it sees rows as they came, keys and all."""

    def take(data: Any, places: np.ndarray) -> Any:
        return data.iloc[places] if hasattr(data, "iloc") else data[places]

    asked = Candidates(take(train, rows["members"]), take(holdout, rows["others"]), pd.DataFrame(), rows["members"])
    return loss_attacks(losses, asked, random_state=seed)


def _look(synthetic: pd.DataFrame, setting: _Setting, white: list[Attack] | None) -> _Side:
    rng = np.random.default_rng(setting.seed)
    attacks = membership_attacks(synthetic, setting.candidates, random_state=setting.seed) + (white or [])
    copies, values, intervals, alarms = _copies(synthetic, setting, rng)
    for attack in attacks:
        auc, ends = attack.auc, attack.auc_interval()
        name = f"AUC ({attack.name})"
        values[name], intervals[name] = auc, ends
        # By three standard errors: there are many attacks.
        alarms[name] = auc > 0.52 and attack.auc_interval(3.0)[0] > 0.5
        for fpr in FPRS:
            name = f"TPR at {100 * fpr:.0f} % ({attack.name})"
            values[name], intervals[name] = attack.tpr(fpr), attack.tpr_interval(fpr, rng, 100)
            alarms[name] = values[name] > (0.05 if fpr == 0.01 else 0.15) and _surely_above(attack, fpr)
    confidence = 1 - 0.05 / len(attacks)
    bounds = [
        epsilon_lower_bound(a.members, a.others, confidence=confidence, random_state=setting.seed) for a in attacks
    ]
    values["epsilon, at least"] = max(bounds)
    surest = [epsilon_lower_bound(a.members, a.others, confidence=0.999, random_state=setting.seed) for a in attacks]
    alarms["epsilon, at least"] = max(surest) > 0
    risks = _risks(synthetic, setting)
    for risk in risks:
        name = f"{risk.name}, risk %"
        values[name] = 100 * risk.risk
        low, high = risk.interval()
        intervals[name] = (100 * low, 100 * high)
        alarms[name] = risk.risk > 0.01 and risk.z > 3
    return _Side(attacks, copies, risks, values, intervals, alarms)


def _surely_above(attack: Attack, fpr: float) -> bool:
    """Whether more members are found than chance gives, where the threshold lets a few more others pass than asked."""
    n, m = len(attack.members), len(attack.others)
    low = clopper_pearson(round(attack.tpr(fpr) * n), n, 0.999)[0]
    high = clopper_pearson(int(np.floor(fpr * m)), m, 0.99)[1]
    return bool(low > high)


def _copies(
    synthetic: pd.DataFrame, setting: _Setting, rng: np.random.Generator
) -> tuple[pd.DataFrame, dict[str, float], dict[str, tuple[float, float]], dict[str, bool]]:
    """Rows that equal a training row, or come as near to one as one unseen row in a hundred does."""
    train, unseen = setting.train, setting.unseen
    some = synthetic.iloc[draw_rows(len(synthetic), MAX_COPIES, rng)]
    pool = train.iloc[draw_rows(len(train), MAX_POINTS, rng)]
    # Beside as many unseen rows as there are training rows, or as many of these as there are unseen ones.
    n = min(len(pool), len(unseen))
    same = [frame.iloc[draw_rows(len(frame), n, rng)] for frame in (train, unseen)]
    encoded = encode(train, some, pool, *same)
    to_all, to_train, to_unseen = (gower_nearest(encoded[0], encoded[1], encoded[k]) for k in (2, 3, 4))
    exact = [100 * float((d <= 1e-9).mean()) for d in (to_train, to_unseen)]
    near = 100 * float((to_all <= setting.near).mean())
    size = len(some)
    values = {"exact copies %": 100 * float((to_all <= 1e-9).mean()), "near copies %": near}
    intervals = {}
    for name, value in values.items():
        low, high = clopper_pearson(round(value * size / 100), size)
        intervals[name] = (100 * low, 100 * high)
    surely = clopper_pearson(round(exact[0] * size / 100), size, 0.999)[0] * 100
    alarms = {
        "exact copies %": exact[0] > exact[1] + 0.5 and surely > exact[1],
        "near copies %": near > 3
        and 100 * clopper_pearson(round(near * size / 100), size, 0.999)[0] > 100 * NEAR
        and setting.near > 0,
    }
    table = pd.DataFrame(
        {
            "rows that": ["equal a training row", "equal one of as many unseen rows", "come near to a training row"],
            "percent": [exact[0], exact[1], near],
            "by chance": [exact[1], exact[1], 100 * NEAR],
        }
    )
    return table, values, intervals, alarms


def _risks(synthetic: pd.DataFrame, setting: _Setting) -> list[Risk]:
    given = (synthetic, setting.train, setting.unseen)
    n, seed = setting.n_attacks, setting.seed
    risks = [singling_out(*given, n_attacks=n, random_state=seed)]
    if setting.train.shape[1] > 1:
        risks.append(linkability(*given, n_attacks=n, random_state=seed))
        risks += [attribute_inference(*given, secret, n_attacks=n, random_state=seed) for secret in setting.secrets]
    return [risk for risk in risks if risk.train[1] > 0]


def _scores(sides: dict[str, _Side]) -> pd.DataFrame:
    ours = sides["synthetic"]
    rows = []
    for name, value in ours.values.items():
        low, high = ours.intervals.get(name, (np.nan, np.nan))
        row: dict[str, Any] = {"metric": name, "synthetic": value, "low": low, "high": high}
        row |= {control: sides[control].values.get(name, np.nan) for control in CONTROLS}
        better, text = words.meaning_of(name)
        row |= {"better": better, "verdict": "fails" if ours.alarms[name] else "passes", "meaning": text}
        rows.append(row)
    return pd.DataFrame(rows)


def _details(sides: dict[str, _Side], setting: _Setting, synthetic: pd.DataFrame) -> dict[str, pd.DataFrame]:
    ours = sides["synthetic"]
    controls = []
    for name, side in sides.items():
        best = max(side.attacks, key=lambda a: a.auc)
        sharpest = max(side.attacks, key=lambda a: a.tpr(FPRS[0]))
        controls.append(
            {
                "data": name,
                "best attack": best.name,
                "AUC": best.auc,
                "TPR at 1 %": sharpest.tpr(FPRS[0]),
                "epsilon, at least": side.values["epsilon, at least"],
                "alarms": sum(side.alarms.values()),
                "verdict": "fails" if any(side.alarms.values()) else "passes",
            }
        )
    return {
        "controls": pd.DataFrame(controls),
        "copies": ours.copies,
        "disclosure": pd.DataFrame([risk.row() for risk in ours.risks]),
        "exposed": _exposed(ours.attacks, setting, synthetic),
    }


def _exposed(attacks: list[Attack], setting: _Setting, synthetic: pd.DataFrame, n: int = 25) -> pd.DataFrame:
    """Training rows that attacks recognise most surely: of how many unseen rows they are as sure."""
    shares = []
    for attack in attacks:
        ordered = np.sort(attack.others)
        shares.append(1 - np.searchsorted(ordered, attack.members, side="left") / len(ordered))
    table = np.stack(shares, axis=1)
    # A row counts by its surest attack, and by all of them where several are as sure.
    rank = np.lexsort((table.mean(axis=1), table.min(axis=1)))[:n]
    members = setting.candidates.members.iloc[rank]
    distance = gower_nearest(*encode(setting.train, members, synthetic))
    names = [attack.name for attack in attacks]
    return pd.DataFrame(
        {
            "row": setting.candidates.member_rows[rank],
            "attack": [names[k] for k in table[rank].argmin(axis=1)],
            "unseen rows as sure %": 100 * table[rank].min(axis=1),
            "distance to a synthetic row": distance,
        }
    )
