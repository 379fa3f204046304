"""Categories that several columns together determine: found at fit, and true on output.

A patient takes medicine if one of twenty columns names a drug; the dose was changed if one says so, or if there are
two drugs. A network gets such rules wrong in some percent of its rows. A decision tree that is grown on half of the
training rows says whether there is one: if it is hardly ever wrong about the other half, the category of a drawn row is
what the tree of all training rows says of the row's other columns. The network models the category nevertheless, so
that the others can depend on it, and it can be held or observed.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from tabdiff.utils.trees import leaves

__all__ = ["JointRule", "JointRules"]

# Fewer rows cannot show that a tree is right in all but one of a thousand.
MIN_ROWS = 2000
MAX_ERROR = 0.001
# Levels of a target; each that the tree is to tell apart must be seen so often, and the commonest must leave a share.
MAX_LEVELS, MIN_COUNT, MIN_OTHERS = 20, 50, 0.02
# Most columns are ruled out by a tree of a few rows: it may miss what is rare, but not be wrong much more often.
FIRST_LOOK, FIRST_ERROR = 2000, 0.03
# More rows than this say no more.
MAX_ROWS = 400_000
# Wider tables are not searched: a tree for each column would take minutes.
MAX_INPUTS = 256
# Inputs that the rule is said to follow from: those with such a share of what the tree explains.
MIN_IMPORTANCE = 0.005


@dataclass
class JointRule:
    """A decision tree from encoded columns to the code of another one.

    Attributes
    ----------
    target : int
        Column of the encoded rows.
    inputs : list of int
        Columns that the tree looks at, the most important first.
    n_main : int
        How many of them matter in more than a few rows.
    feature : ndarray of int, shape (n_nodes,)
        Position in `inputs` of what a node looks at.
    threshold : ndarray of float, shape (n_nodes,)
        A row goes left where the value is not larger.
    children : ndarray of int, shape (n_nodes, 2)
        A leaf is its own child.
    missing_left : ndarray of bool, shape (n_nodes,)
    code : ndarray of int, shape (n_nodes,)
        What a leaf says.
    depth : int
    """

    target: int
    inputs: list[int]
    n_main: int
    feature: np.ndarray
    threshold: np.ndarray
    children: np.ndarray
    missing_left: np.ndarray
    code: np.ndarray
    depth: int

    @classmethod
    def of(cls, target: int, inputs: Sequence[int], model: DecisionTreeClassifier) -> Self:
        """Read a fitted tree, which saw the columns `inputs`."""
        tree, importance = model.tree_, model.feature_importances_
        leaf = tree.children_left < 0
        used = np.unique(tree.feature[~leaf])
        used = used[np.argsort(-importance[used], kind="stable")]
        place = np.zeros(len(inputs), dtype=np.int64)
        place[used] = np.arange(len(used))
        here = np.arange(tree.node_count)
        children = np.stack([tree.children_left, tree.children_right], axis=1)
        return cls(
            target=target,
            inputs=[int(inputs[i]) for i in used],
            n_main=int((importance[used] >= MIN_IMPORTANCE).sum()),
            feature=np.where(leaf, 0, place[np.where(leaf, 0, tree.feature)]),
            threshold=np.where(leaf, 0.0, tree.threshold),
            children=np.where(leaf[:, None], here[:, None], children),
            missing_left=np.asarray(tree.missing_go_to_left, dtype=bool),
            code=model.classes_[tree.value[:, 0, :].argmax(axis=1)].astype(np.int64),
            depth=int(tree.max_depth),
        )

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """Return the code (n,) that goes with encoded `inputs`, shape (n, n_inputs)."""
        X = columns.astype(np.float32)  # as the tree was grown on
        return self.code[leaves(X, self.feature, self.threshold, self.children, self.missing_left, self.depth)]


class JointRules:
    """The rules of a table, in the order in which they are applied.

    Attributes
    ----------
    rules_ : list of JointRule
        None looks at the target of one that comes after it.
    """

    def __init__(self) -> None:
        self.rules_: list[JointRule] = []

    @classmethod
    def find(cls, data: np.ndarray, n_levels: dict[int, int], *, never: Collection[int] = ()) -> Self:
        """Find the rules of encoded rows.

        Parameters
        ----------
        data : ndarray of shape (n, d)
            Numbers, NaN where missing, and codes; numbers at fixed places of their steps.
        n_levels : dict of int to int
            The columns that may be determined, and the number of their codes.
        never : collection of int
            Columns that no rule looks at.
        """
        self = cls()
        n, width = data.shape
        if n < MIN_ROWS or width > MAX_INPUTS:
            return self
        order = np.random.default_rng(0).permutation(n)
        few = order[:FIRST_LOOK]
        halves = np.array_split(order, 2)
        found: set[int] = set()
        for j, k in n_levels.items():
            counts = np.sort(np.bincount(data[:, j].astype(np.int64), minlength=k))[::-1]
            if not 2 <= k <= MAX_LEVELS or n - counts[0] < max(MIN_OTHERS * n, MIN_COUNT):
                continue
            inputs = [i for i in range(width) if i != j and i not in never and i not in found]
            if not inputs or _error(data, inputs, j, few[::2], few[1::2]) > FIRST_ERROR:
                continue
            if _error(data, inputs, j, halves[0], halves[1]) <= MAX_ERROR:
                self.rules_.append(JointRule.of(j, inputs, _grow(data, inputs, j, order)))
                found.add(j)
        # A rule may look at targets that were found after it, so these come first.
        self.rules_.reverse()
        return self

    def state(self) -> list[dict]:
        """Plain description, for persistence."""
        return [asdict(rule) for rule in self.rules_]

    @classmethod
    def from_state(cls, state: list[dict]) -> Self:
        """Inverse of :meth:`state`."""
        self = cls()
        for rule in state:
            arrays: dict[str, Any] = {k: np.asarray(v) for k, v in rule.items() if k not in ("target", "inputs")}
            arrays |= {"n_main": int(rule["n_main"]), "depth": int(rule["depth"])}
            self.rules_.append(JointRule(int(rule["target"]), [int(i) for i in rule["inputs"]], **arrays))
        return self


def _grow(data: np.ndarray, inputs: list[int], target: int, rows: np.ndarray) -> DecisionTreeClassifier:
    return DecisionTreeClassifier(random_state=0).fit(data[rows][:, inputs], data[rows, target].astype(np.int64))


def _error(data: np.ndarray, inputs: list[int], target: int, rows: np.ndarray, others: np.ndarray) -> float:
    """Return the share of other rows about which a tree of some is wrong."""
    tree = _grow(data, inputs, target, rows)
    return float(np.mean(tree.predict(data[others][:, inputs]) != data[others, target]))
