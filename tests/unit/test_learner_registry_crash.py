"""Publishers that die midway and publishers that race: readers see the old or the new version, never a half."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from learner.registry import BASE, WEIGHTS_FILE, Registry, file_sha256, sequence, trust, verify
from tests import adapters
from tests.adapters import Publisher

ROOT = Path(__file__).resolve().parents[2]

STEPS = ("write", "fsync", "rename", "blobs", "claim", "sign", "named", "commit", "pointer")
"""The failpoints of a publish, in order."""

_CHILD = """
import os, signal, sys
from pathlib import Path
from learner.registry import WEIGHTS_FILE, Registry, file_sha256, trust
from tests import adapters
folder, seed, step = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
publisher = adapters.Publisher(folder)
def hit(name):
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)
signer = publisher.signer
registry = Registry(folder / "store", trust(signer.public), lambda: 0.0, signer=signer, failpoint=hit)
files = adapters.write_files(folder / f"child{seed}", adapters.safetensors(adapters.random_tensors(seed)))
for _ in range(int(sys.argv[4])):
    print(registry.publish(files, adapters.facts(file_sha256(files[WEIGHTS_FILE]))), flush=True)
"""


def _child(folder: Path, seed: int, step: str = "", times: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), str(seed), step, str(times)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_registry_publish_crash(tmp_path: Path, step: str) -> None:
    """Killed at any step: every version that readers find is whole, and the next publish works."""
    publisher = Publisher(tmp_path)
    old = publisher.publish(1)
    with _child(tmp_path, 2, step) as child:
        assert child.wait(60) == -signal.SIGKILL
    registry = Registry(tmp_path / "store", trust(publisher.signer.public), lambda: publisher.now)
    newest = registry.newest("a")
    assert newest is not None
    assert (newest == old) == (step not in {"commit", "pointer"})
    directory = registry.fetch(newest, tmp_path / "node")
    verify(directory, trust(publisher.signer.public), adapters.FOUNDATION)
    after = publisher.publish(3)
    assert sequence(after) > sequence(newest)
    assert list(registry.history("a")) == [after, *([newest] if newest != old else []), old]
    publisher.now = (tmp_path / "store" / "lines" / "a").stat().st_mtime + 48 * 3600
    registry.collect(keep=(), newest=9)
    named = {file.sha256 for version in registry.history("a") for file in registry.manifest(version).files}
    blobs = {path.name for path in (tmp_path / "store" / "blobs" / "sha256").iterdir()}
    assert blobs == named


def test_registry_publishers_never_share_a_sequence(tmp_path: Path) -> None:
    """Two processes that publish at once take different numbers, and all versions are readable."""
    publisher = Publisher(tmp_path)
    assert publisher.signer
    children = [_child(tmp_path, seed, times=12) for seed in (1, 2)]
    ids = []
    for child in children:
        out, _ = child.communicate(timeout=90)
        assert child.returncode == 0
        ids += out.split()
    assert sorted(sequence(version) for version in ids) == list(range(1, 25))
    assert set(publisher.registry.history("a")) == set(ids)


def test_registry_disk_full_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full a publish fails whole, the old version stays, and the next publish works."""
    publisher = Publisher(tmp_path)
    old = publisher.publish(1)
    files = adapters.write_files(tmp_path / "out", adapters.safetensors(adapters.random_tensors(2)))

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("learner.registry.store.shutil.copyfile", full)
        with pytest.raises(OSError, match="No space"):
            publisher.registry.publish(files, adapters.facts(file_sha256(files[WEIGHTS_FILE]), BASE))
    assert publisher.registry.newest("a") == old
    assert not list((tmp_path / "store").rglob(".new-*"))
    assert sequence(publisher.publish(2)) == 2
