"""`driftline bench NAME`: run one benchmark of tests/bench, from a checkout."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from services.settings import Settings

FOLDER = Path(__file__).resolve().parent.parent / "tests/bench"


def names() -> list[str]:
    """The benchmarks of this checkout; none where the package was installed without its tests."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Name of the benchmark; the rest is its own."""
    parser.add_argument("name", nargs="?", help=f"one of: {', '.join(names()) or 'none here'}")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="arguments of the benchmark")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the benchmark; its table goes to stdout. Returns its exit code."""
    del settings
    if args.name not in names():
        found = ", ".join(names())
        hint = f"known: {found}" if found else "benchmarks need a checkout of driftline, and this is none"
        asked = f"no benchmark {args.name!r}" if args.name else "which benchmark?"
        sys.stderr.write(f"driftline bench: {asked}; {hint}\n")
        return 2
    sys.path.insert(0, str(FOLDER.parent.parent))
    spec = importlib.util.spec_from_file_location(f"tests.bench.{args.name}", FOLDER / f"{args.name}.py")
    if spec is None or spec.loader is None:
        return 2
    module = importlib.util.module_from_spec(spec)
    # dataclasses of the benchmark look their module up by name
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    code: int = module.main(args.rest)
    return code
