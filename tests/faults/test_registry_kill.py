"""T10: a publisher that is killed again and again at random moments; readers only ever see whole versions."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from learner.registry import Registry, sequence, trust, verify
from tests import adapters
from tests.adapters import Publisher

KILLS = 20
ROOT = Path(__file__).resolve().parents[2]

_CHILD = """
import sys
from pathlib import Path
from learner.registry import WEIGHTS_FILE, file_sha256
from tests import adapters
publisher = adapters.Publisher(Path(sys.argv[1]))
weights = adapters.safetensors(adapters.random_tensors(int(sys.argv[2])))
files = adapters.write_files(publisher.folder / "child", weights)
facts = adapters.facts(file_sha256(files[WEIGHTS_FILE]))
while True:
    print(publisher.registry.publish(files, facts), flush=True)
"""


def test_registry_survives_random_kills(tmp_path: Path) -> None:
    """Every id that was told is readable and whole, ids never repeat, and leftovers are swept."""
    publisher = Publisher(tmp_path)
    trusted = trust(publisher.signer.public)
    draw, told = random.Random(10), list[str]()
    for kill in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path), str(kill)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        told.append(child.stdout.readline().strip())
        threading.Event().wait(draw.uniform(0, 0.05))
        child.kill()
        rest, _ = child.communicate(timeout=30)
        assert child.returncode == -signal.SIGKILL
        told += [line for line in rest.split("\n")[:-1] if line]
    registry = Registry(tmp_path / "store", trusted, lambda: publisher.now)
    history = list(registry.history("a"))
    assert set(told) <= set(history)
    assert len(set(history)) == len(history) == len({sequence(version) for version in history})
    assert history == sorted(history, reverse=True)
    for version in history:
        verify(registry.fetch(version, tmp_path / "node"), trusted, adapters.FOUNDATION)
    publisher.now = (tmp_path / "store" / "lines" / "a").stat().st_mtime + 48 * 3600
    registry.collect(keep=(), newest=len(history))
    assert not list((tmp_path / "store").rglob(".new-*"))
    assert registry.fetch(publisher.publish(999), tmp_path / "node").is_dir()
