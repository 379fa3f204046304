"""The list of deliberate bugs keeps up with the code; `benchmarks/mutants.py` tries them."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("mutants", ROOT / "benchmarks" / "mutants.py")
mutants = importlib.util.module_from_spec(spec)
sys.modules["mutants"] = mutants
spec.loader.exec_module(mutants)


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.name)
def test_a_bug_can_be_put_in_and_its_tests_are_there(mutant):
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.original) == 1
    changed = text.replace(mutant.original, mutant.mutated)
    assert changed != text
    ast.parse(changed)  # a bug that does not compile is caught by anything
    for test in mutant.tests:
        path, name = test.split("[")[0].split("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def test_names_are_the_bugs_own():
    assert len({m.name for m in mutants.MUTANTS}) == len(mutants.MUTANTS)
