"""Each promise in docs/promises.md names tests that exist."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")


def test_every_promise_names_its_tests() -> None:
    promises = re.split(r"^- ", re.sub(r"^(?!- |  ).*$", "", PAGE, flags=re.MULTILINE), flags=re.MULTILINE)[1:]
    assert len(promises) > 20
    assert [promise for promise in promises if "`tests/" not in promise] == []


def test_the_tests_that_promises_name_are_there() -> None:
    named = set(re.findall(r"`(tests/[^`]*)`", PAGE))
    assert [name for name in sorted(named) if not exists(*name.split("::"))] == []


def exists(path: str, function: str | None = None) -> bool:
    """Return whether a test file exists and defines the function."""
    if not (ROOT / path).is_file():
        return False
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return function is None or function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
