"""Which defects are put into a module, and that what is explained is one of them."""

from __future__ import annotations

import ast

import pytest

from tests.conftest import CHECKOUT
from tests.mutation.mutants import mutants
from tests.mutation.targets import TARGETS, Target

MODULE = '''"""Documentation."""
LIMIT = 3


def found(names: tuple[str, ...], *, prefix: str = "a") -> bool:
    """Documentation."""
    log.info("not a defect")
    if names and len(names) < LIMIT:
        raise KeyError(f"{prefix} is not there")
    return names[0].lower() not in (prefix, "b2")
'''


def test_every_small_defect_is_tried_once() -> None:
    condition = "found: names and len(names) < LIMIT -> "
    assert [mutant.name for mutant in mutants(MODULE)] == [
        "module: 3 -> 4",
        "found: \"a\" -> ''",
        'found: log.info("not a defect") -> pass',
        f"{condition}(not (names and len(names) < LIMIT))",
        f"{condition}(len(names) < LIMIT)",
        f"{condition}names",
        "found: len(names) < LIMIT -> (len(names) <= LIMIT)",
        "found: len(names) < LIMIT -> (len(names) >= LIMIT)",
        'found: raise KeyError(f"{prefix} is not there") -> pass',
        "found: f\"{prefix} is not there\" -> ''",
        'found: return names[0].lower() not in (prefix, "b2") -> return None',
        "found: names[0].lower() not in (prefix, \"b2\") -> (names[0].lower() in (prefix, 'b2'))",
        "found: names[0].lower() -> names[0]",
        "found: 0 -> 1",
        "found: (prefix, \"b2\") -> ('b2',)",
        'found: (prefix, "b2") -> (prefix,)',
        "found: \"b2\" -> ''",
        "found: \"b2\" -> 'b3'",
    ]


def test_a_mutant_is_the_module_with_its_one_defect() -> None:
    mutant = mutants(MODULE)[-1]
    assert mutant.source == MODULE.replace("b2", "b3").replace('"b3"', "'b3'")
    changed = mutant.diff(MODULE, "module.py").splitlines()[3:]
    assert [line[0] for line in changed] == [" ", "-", "+"]


def test_some_functions_alone_can_be_tried() -> None:
    assert mutants(MODULE, ["other"]) == []
    assert mutants(MODULE, ["found"]) == mutants(MODULE)[1:]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.shown)
def test_what_is_explained_is_a_mutant_of_a_module_that_is_tested(target: Target) -> None:
    made = mutants((CHECKOUT / target.path).read_text(encoding="utf-8"), target.functions)
    for mutant in made:
        ast.parse(mutant.source)
    assert len({mutant.name for mutant in made}) == len(made)
    assert set(target.equivalents) <= {mutant.name for mutant in made}
    assert all((CHECKOUT / path).is_file() for path in target.tests)
