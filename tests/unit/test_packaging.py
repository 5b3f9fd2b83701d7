"""The wheel that users install: it holds every file that the code reads beside itself."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("streams", "learner", "services")
CHECK = """
import sys
from pathlib import Path
from streams.replay import scripts
from streams.replay.codec import DICTIONARY

assert Path(scripts.__file__).is_relative_to(sys.argv[1]), scripts.__file__
assert DICTIONARY
for name in sorted(scripts.PARTS):
    print(name, hash(scripts.text(name)))
"""


def test_packaging_wheel_holds_what_its_code_reads(tmp_path: Path) -> None:
    """The built wheel has every file of the packages, and the replay buffer's Lua loads from it, byte for byte."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    packed = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packed)
        names = set(archive.namelist())
    wanted = {
        str(path.relative_to(ROOT)) for folder in PACKAGES for path in (ROOT / folder).rglob("*") if path.is_file()
    }
    assert {name for name in wanted if "__pycache__" not in name} <= names
    loaded = [
        subprocess.run(
            [sys.executable, "-c", CHECK, str(folder)], cwd=tmp_path, check=True, capture_output=True, text=True,
            env={"PYTHONPATH": str(folder), "PYTHONHASHSEED": "0"},
        ).stdout
        for folder in (packed, ROOT)
    ]  # fmt: skip
    assert loaded[0] == loaded[1]
    assert "insert" in loaded[0]
