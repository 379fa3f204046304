"""The form of identifiers, by which new ones are drawn that nobody had.

A form is a pattern for each length and place: a character that never changes stays, others are digits, capitals or
small letters, or one of the few characters that were seen there. Where all values keep a check digit, new ones do too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

__all__ = ["CHECKS", "KeyForm", "is_key_name", "new_keys"]

DIGITS, UPPER, LOWER, HEX = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "abcdef"
# Characters of a place that keeps to so few in so many values are all that are drawn there.
FEW, MANY = 3, 50
# Shapes that hold a smaller share of the values are not drawn.
MIN_SHARE = 0.005
# A form must have room for so many more values than were seen.
MIN_ROOM = 20
MAX_ROUNDS = 200
# Shapes must cover so many of the values together.
MIN_COVERED = 0.8
_NAME = re.compile(
    r"(?:^|[^a-z])(?:id|ids|key|uid|uuid|guid|nr|no|num|number|serial|isbn|ean|iban|ssn|account)$", re.IGNORECASE
)


def is_key_name(name: Any) -> bool:
    """Tell whether the name of a column says that it is an identifier.

    Examples
    --------
    >>> [is_key_name(name) for name in ("customer_id", "customerId", "Account No", "paid", "year")]
    [True, True, True, False, False]
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name))
    return _NAME.search(text) is not None


def _luhn(digits: np.ndarray) -> np.ndarray:
    doubled = digits.copy()
    doubled[:, -2::-2] *= 2
    return (doubled - 9 * (doubled > 9)).sum(axis=1) % 10


def _ean(digits: np.ndarray) -> np.ndarray:
    weights = np.where(np.arange(digits.shape[1])[::-1] % 2 == 0, 1, 3)
    return (digits * weights).sum(axis=1) % 10


def _isbn(digits: np.ndarray) -> np.ndarray:
    return (digits * np.arange(digits.shape[1], 0, -1)).sum(axis=1) % 11


# Functions of digits (n, k) that are 0 for a valid number, the last digit being the check.
CHECKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"luhn": _luhn, "ean": _ean, "mod 11": _isbn}


class KeyForm:
    """How identifiers look.

    Parameters
    ----------
    values : sequence of str
        The identifiers that were seen, all different.

    Attributes
    ----------
    shapes : list of list of str
        For each shape the characters that may stand at each place.
    counts : list of int
        How many of the values have each shape.
    check : str or None
        The check digit that all digits of a value keep, one of `CHECKS`.

    Examples
    --------
    >>> form = KeyForm([f"AC-{v:04d}" for v in range(0, 3000, 7)])
    >>> form.describe()
    'AC-0000'
    >>> new = form.draw(np.arange(3, dtype=np.uint64), {"AC-0000"})
    >>> [text.startswith("AC-") and len(text) == 7 for text in new]
    [True, True, True]
    """

    def __init__(self, values: Sequence[str]) -> None:
        least = max(MIN_SHARE * len(values), 2)
        kept: dict[str, list[str]] = {}
        # Where letters and digits take turns anywhere, as in hexadecimal numbers, they are one kind of character.
        for kind in (_class, _joint_class):
            groups: dict[str, list[str]] = {}
            for value in values:
                groups.setdefault("".join(kind(c) for c in value), []).append(value)
            kept = {k: v for k, v in groups.items() if len(v) >= least}
            if sum(map(len, kept.values())) >= MIN_COVERED * len(values):
                break
        kept = kept or groups
        letters = _letters(values)
        self.shapes = [_alphabets(key, group, letters) for key, group in kept.items()]
        self.counts = [len(group) for group in kept.values()]
        self.check = _find_check(values)

    @property
    def room(self) -> float:
        """How many different values the form has."""
        total = sum(float(np.prod([float(len(a)) for a in shape])) for shape in self.shapes)
        return total / (10 if self.check else 1)

    def longer(self) -> KeyForm:
        """Return the form of whole numbers with one digit more, for where those of their length are used up."""
        form = KeyForm.from_state(self.state())
        widest = max(range(len(form.shapes)), key=lambda k: len(form.shapes[k]))
        form.shapes = [[DIGITS[1:], *([DIGITS] * len(form.shapes[widest]))]]
        form.counts = [sum(self.counts)]
        return form

    def describe(self) -> str:
        """Return the commonest shape: 0 for a digit, A and a for letters, characters that stay as they are."""
        shape = self.shapes[int(np.argmax(self.counts))]
        text = "".join(a if len(a) == 1 else "0" if a in (DIGITS,) or a.isdigit() else _class(a[-1]) for a in shape)
        return text if self.check is None else f"{text} ({self.check} check digit)"

    def draw(self, seeds: np.ndarray, taken: Collection[str]) -> list[str]:
        """Draw new values, all different and none of `taken`.

        Parameters
        ----------
        seeds : ndarray of uint64, shape (n,)
            A number for each, from which it follows alone, unless it is taken.
        taken : collection of str

        Raises
        ------
        ValueError
            If the form has too few.
        """
        found: list[str | None] = [None] * len(seeds)
        used = set(taken)
        waiting = np.arange(len(seeds))
        for attempt in range(MAX_ROUNDS):
            texts = self._draw(seeds[waiting], attempt)
            left = []
            for i, text in zip(waiting, texts, strict=True):
                if text is None or text in used:
                    left.append(int(i))
                else:
                    used.add(text)
                    found[int(i)] = text
            waiting = np.array(left, dtype=np.int64)
            if not left:
                return [text for text in found if text is not None]
        raise ValueError(
            f"there are too few new identifiers of the form {self.describe()!r} for {len(seeds)} rows; drop the "
            "column, and number the rows yourself."
        )

    def _draw(self, seeds: np.ndarray, attempt: int) -> list[str | None]:
        edges = np.cumsum(self.counts) / sum(self.counts)
        places = max(len(shape) for shape in self.shapes)
        chosen = np.searchsorted(edges[:-1], _uniform(seeds, attempt * (places + 1)), side="right")
        out: list[str | None] = [None] * len(seeds)
        for k, shape in enumerate(self.shapes):
            rows = np.flatnonzero(chosen == k)
            columns = []
            for j, alphabet in enumerate(shape):
                u = _uniform(seeds[rows], attempt * (places + 1) + j + 1)
                columns.append(np.array(list(alphabet))[(u * len(alphabet)).astype(np.int64)])
            texts = ["".join(row) for row in zip(*columns, strict=True)] if columns else [""] * len(rows)
            for i, text in zip(rows, texts, strict=True):
                out[int(i)] = text if self.check is None else _with_check(text, self.check)
        return out

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        return {"shapes": self.shapes, "counts": self.counts, "check": self.check}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> KeyForm:
        """Inverse of :meth:`state`."""
        form = cls.__new__(cls)
        form.shapes = [[str(a) for a in shape] for shape in state["shapes"]]
        form.counts = [int(c) for c in state["counts"]]
        form.check = state["check"]
        return form


def _class(character: str) -> str:
    if character in DIGITS:
        return "0"
    if character in UPPER:
        return "A"
    return "a" if character in LOWER else character


def _joint_class(character: str) -> str:
    return "x" if _class(character) in "0Aa" else character


def _alphabets(key: str, group: list[str], letters: dict[str, str]) -> list[str]:
    """What may stand at each place of a shape."""
    out = []
    for j, kind in enumerate(key):
        seen = sorted({text[j] for text in group})
        if len(seen) == 1 and (len(group) > 1 or kind not in "0Aax"):
            out.append(seen[0])
        elif len(seen) <= FEW and len(group) >= MANY:
            out.append("".join(seen))
        else:
            out.append(letters.get(kind, "".join(seen)))
    return out


def _letters(values: Sequence[str]) -> dict[str, str]:
    """What may stand for each kind of character: of letters those of hexadecimal numbers, where there are no others."""
    seen = set().union(*values) if len(values) >= MANY else set()
    out = {"0": DIGITS, "A": UPPER, "a": LOWER}
    for kind, few, case in (("a", HEX, LOWER), ("A", HEX.upper(), UPPER)):
        own = seen & set(case)
        out[kind] = few if own and own <= set(few) else case
    out["x"] = DIGITS + "".join(out[k] for k, case in (("a", LOWER), ("A", UPPER)) if not seen or seen & set(case))
    return out


def _digits(values: Sequence[str]) -> list[np.ndarray]:
    """Digits of the values by how many there are, (n, k) each."""
    by_length: dict[int, list[list[int]]] = {}
    for text in values:
        own = [int(c) for c in text if c in DIGITS]
        by_length.setdefault(len(own), []).append(own)
    return [np.array(rows).reshape(len(rows), k) for k, rows in by_length.items()]


def _find_check(values: Sequence[str]) -> str | None:
    """Return the check that every value keeps, if there are enough of them that chance would not."""
    if len(values) < MANY or any(sum(c in DIGITS for c in text) < 4 for text in values):
        return None
    groups = _digits(values)
    return next((name for name, f in CHECKS.items() if all((f(d) == 0).all() for d in groups)), None)


def _with_check(text: str, check: str) -> str | None:
    """Put the last digit right; None where no digit does."""
    place = max(i for i, c in enumerate(text) if c in DIGITS)
    for digit in DIGITS:
        trial = text[:place] + digit + text[place + 1 :]
        if CHECKS[check](_digits([trial])[0])[0] == 0:
            return trial
    return None


def _uniform(seeds: np.ndarray, k: int) -> np.ndarray:
    """The k-th number in [0, 1) of each seed (n,): SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        z = seeds + np.uint64(k + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53


def new_keys(form: KeyForm, taken: Collection[str], uniform: np.ndarray) -> list[str]:
    """Draw new identifiers for rows from a number (n,) in [0, 1) of each, which no other row has."""
    return form.draw((uniform * 2.0**53).astype(np.uint64), taken)
