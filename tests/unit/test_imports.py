"""Imports: who may load torch, and that nothing happens when a module is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "peft")
HOLDS_A_MODEL = (
    "services/learn",
    "services/base.py",
    "services/engines",
    "services/demo",
    "services/evaluate",
    "services/evaluation",
    "services/tune",
    "services/tuning",
)
TORCH_FREE_LEARNER = (
    "account", "config", "evalues", "gate", "heldout", "measures", "probes", "registry", "shape", "records", "search",
    "select",
)  # fmt: skip

PROBE = """
import sys
opened = []
def watch(event, args):
    if event in {"socket.connect", "socket.bind", "_thread.start_new_thread"}:
        opened.append((event, str(args)[:80]))
sys.addaudithook(watch)
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = [name for name in ("torch", "transformers", "peft") if name in sys.modules]
print(heavy, opened)
sys.exit(1 if heavy or opened else 0)
"""


def modules(folder: str) -> list[str]:
    """Dotted names of every module below a folder."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def probe(names: list[str]) -> subprocess.CompletedProcess[str]:
    """Import in a fresh interpreter that watches for sockets, threads and heavy libraries."""
    return subprocess.run([sys.executable, "-c", PROBE, *names], cwd=ROOT, capture_output=True, text=True, check=False)


def is_torch_free(name: str) -> bool:
    """Whether the design keeps torch out of a module."""
    parts = name.split(".")
    if parts[0] == "learner":
        return len(parts) > 1 and parts[1] in TORCH_FREE_LEARNER
    return not any(name.replace(".", "/").startswith(path.removesuffix(".py")) for path in HOLDS_A_MODEL)


@pytest.mark.parametrize("folder", ["streams", "learner", "services"])
def test_imports_of_all_that_does_not_train_are_torch_free(folder: str) -> None:
    """A fresh interpreter that imports every such module has loaded no torch, opened no socket, started no thread."""
    done = probe([name for name in modules(folder) if is_torch_free(name)])
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_of_the_event_schema_load_almost_nothing() -> None:
    """streams.events needs the standard library and msgspec only."""
    code = "import sys, streams.events; print(*{m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {
        "__main__",
        "msgspec",
        "streams",
        "__mp_main__",
        "typing_extensions",
        "sitecustomize",
        "_distutils_hack",
    }


def test_imports_of_faust_stay_in_the_stream_application() -> None:
    """No module but those of the Faust worker names faust, mode or aiokafka."""
    allowed = {"streams/app.py", "streams/lean.py", "streams/security.py"}
    found = {
        str(path.relative_to(ROOT))
        for folder in ("streams", "learner", "services")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith(
            ("import faust", "from faust", "import mode", "from mode", "import aiokafka", "from aiokafka")
        )
    }
    assert found <= allowed
