"""The house style, as far as a program can see it: sizes, docstrings, silenced checks."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("services", "learner", "streams") for path in (ROOT / folder).rglob("*.py"))
OWN = ("services", "learner", "streams", "deploy", "tests", ".ci")
MOST_LINES = 400
MOST_MEDIAN_FUNCTION = 10
MOST_SILENCED = 3.5
SILENCED = re.compile(r"#\s*(noqa|type:\s*ignore)")


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method of the source."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its def to its end."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_style_modules_are_short_and_say_what_they_are(path: Path) -> None:
    """A module has at most 400 lines and opens with a docstring."""
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert ast.get_docstring(ast.parse(text))


def test_style_functions_are_short() -> None:
    """The median function has at most 10 lines and nine of ten at most 30."""
    lengths = sorted(length(node) for _, node in functions())
    assert statistics.median(lengths) <= MOST_MEDIAN_FUNCTION
    assert lengths[int(len(lengths) * 0.9)] <= 30


def test_style_few_checks_are_silenced() -> None:
    """At most 3.5 silenced checks per thousand lines, each with a code and a reason."""
    lines = [(path, line) for path in SOURCES for line in path.read_text().splitlines()]
    silenced = [(path, line) for path, line in lines if SILENCED.search(line)]
    for path, line in silenced:
        assert re.search(r"noqa: [A-Z]+\d+|type: ignore\[", line), f"{path.name}: no code: {line.strip()}"
    assert 1000 * len(silenced) / len(lines) <= MOST_SILENCED


def test_style_nobody_names_the_workplace() -> None:
    """No file names a path of the machine it was written on."""
    for path in (path for folder in OWN for path in (ROOT / folder).rglob("*.py")):
        if path != Path(__file__):
            assert "/work/" not in path.read_text(), path
