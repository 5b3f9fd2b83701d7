"""Makes .venv and installs driftline into it with pinned versions; `make demo` and `make test` call it once.

    python3 deploy/install.py

Without a GPU it takes a CPU build of torch where pip finds one, and says so before it downloads gigabytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv/bin/python"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = "learner,demo,dev"


def main() -> int:
    """Install everything; returns pip's exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - make finds whatever python3 is
        sys.stderr.write(f"driftline needs Python 3.11 or newer, this is {sys.version.split()[0]}; set PYTHON=\n")
        return 2
    if not PYTHON.exists():
        say("making .venv")
        venv.create(ROOT / ".venv", with_pip=True)
    constraints = ROOT / "constraints.txt"
    if not has_torch():
        install_torch(torch_pin(constraints), constraints)
    say("installing driftline and its pinned dependencies")
    pip("install", "--quiet", "--editable", f"{ROOT}[{EXTRAS}]", "--constraint", str(constraints))
    (ROOT / ".venv/.ready").touch()
    return 0


def install_torch(pin: str, constraints: Path) -> None:
    """Install torch: the default build with a GPU, else a CPU build from the default index or PyTorch's own."""
    options: list[str] = []
    if shutil.which("nvidia-smi") is None and not is_cpu_build(pin, []):
        if is_cpu_build(pin, ["--index-url", CPU_INDEX]):
            options = ["--index-url", CPU_INDEX]
        else:
            say("no CPU build of torch in reach: pip downloads the CUDA build, about 3 GB. Ctrl-C stops it")
    say(f"installing {pin}" + (" (CPU build)" if options else ""))
    if options:
        pip("install", "--quiet", "--no-deps", pin, *options)
    pip("install", "--quiet", pin, "--constraint", str(constraints))


def is_cpu_build(pin: str, options: list[str]) -> bool:
    """Whether pip with these options would take a build of torch that needs no CUDA packages."""
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--retries", "0", "--timeout", "10", *options]
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", *options, "--report", "-", pin]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return False
    metadata = json.loads(done.stdout)["install"][0]["metadata"]
    needs = metadata.get("requires_dist", [])
    linux = sys.platform == "linux"
    return "+cpu" in metadata["version"] or not any(n.startswith(("nvidia", "cuda", "triton")) and linux for n in needs)


def has_torch() -> bool:
    """Whether .venv has a torch already."""
    return subprocess.run([str(PYTHON), "-c", "import torch"], capture_output=True, check=False).returncode == 0


def torch_pin(constraints: Path) -> str:
    """The pinned torch requirement."""
    return next(line.strip() for line in constraints.read_text().splitlines() if line.startswith("torch=="))


def pip(*arguments: str) -> None:
    """Run the environment's pip; ends the program when pip fails."""
    done = subprocess.run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments], check=False)
    if done.returncode:
        say("installation failed; see the lines above")
        raise SystemExit(done.returncode)


def say(line: str) -> None:
    """One line to the person who waits."""
    sys.stderr.write(f"driftline: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
