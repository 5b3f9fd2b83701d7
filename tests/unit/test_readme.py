"""The README: every test, file and command that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from services.bench import names
from services.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_readme_every_named_test_exists() -> None:
    """A guarantee without its test would be a claim."""
    source = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in set(re.findall(r"`(test_\w+)`", README)):
        assert f"def {name}(" in source, name


def test_readme_every_named_command_exists() -> None:
    """Commands and benchmarks that a reader would type are real."""
    for name in set(re.findall(r"driftline ([a-z]+)(?= |`|\n)", README)):
        assert name in COMMANDS, name
    for name in set(re.findall(r"driftline bench ([a-z_]+)", README)):
        assert name in names(), name


def test_readme_every_place_of_the_tree_exists() -> None:
    """The tree shows folders and modules that are there."""
    tree = README[README.index("## Where things are") :].split("```")[1]
    folder = ""
    for line in tree.strip().splitlines():
        if not line.startswith(" "):
            folder = line.split()[0].rstrip("/")
            assert (ROOT / folder).is_dir()
            continue
        for name in re.split(r",\s*", re.split(r"\s{2,}", line.strip())[0]):
            path = ROOT / folder / name.rstrip("/")
            assert path.exists() or path.with_suffix(".py").exists() or list(path.parent.glob(f"{path.name}.py")), name
