"""Publish and verify a 21 MB adapter beside model-signing, scan its numbers beside torch: `driftline bench verify`.

model-signing lives in an environment of its own (`pip install model-signing pyopenssl`), named by --peer-python;
without it those rows are missing. Ours and peers take turns in every round. Figures are CPU milliseconds of one core,
so that a busy machine changes little; publish waits for the disk and is wall time. "Command" is a fresh interpreter.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open

from learner.registry import WEIGHTS_FILE, Foundation, Lora, Registry, adapter_config, file_sha256, trust, verify
from learner.registry.tensors import open_weights, scan
from tests import adapters
from tests.bench._heading import heading, table

CONFIG = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 33,
    "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 64,
}  # fmt: skip
LORA = Lora(
    r=16, alpha=32, target_modules=("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
)

_PEER = """
import sys, time, json, pathlib
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import signing, verifying
folder, signature = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
key = ec.generate_private_key(ec.SECP256R1())
private, public = signature.with_suffix(".key"), signature.with_suffix(".pub")
pem = serialization.Encoding.PEM
private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
start = time.process_time()
signing.Config().use_elliptic_key_signer(private_key=private).sign(folder, signature)
signed = time.process_time() - start
start = time.process_time()
verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, signature)
print(json.dumps({"sign": signed, "verify": time.process_time() - start}))
"""

_PEER_COMMAND = """
import sys
from model_signing import verifying
verifying.Config().use_elliptic_key_verifier(public_key=sys.argv[2]).verify(sys.argv[1], sys.argv[3])
"""

_OUR_COMMAND = """
import json, sys
from pathlib import Path
from learner.registry import Foundation, trust, verify
from tests import adapters
verify(Path(sys.argv[1]), trust(bytes.fromhex(sys.argv[2])), Foundation(adapters.IDENTITY, json.loads(sys.argv[3])))
"""


def main(argv: list[str]) -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="driftline bench verify")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peer-python", help="interpreter of an environment with model-signing")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found = _measure(Path(folder), args.rounds, args.peer_python)
    size = found.pop("bytes")[0] / 2**20
    rows = [["step", "median CPU ms", "p95"]]
    for name, seconds in found.items():
        rows.append([name, f"{1e3 * statistics.median(seconds):.1f}", f"{1e3 * _p95(seconds):.1f}"])
    sys.stdout.write(
        f"{heading('verify', argv)}\n\nan adapter of {size:.1f} MiB, {args.rounds} rounds\n{table(rows)}\n\n"
    )
    bars = _bars(found)
    for name, held in bars.items():
        sys.stdout.write(f"{'held' if held else 'MISSED'}: {name}\n")
    return 0 if all(bars.values()) else 1


def _bars(found: dict[str, list[float]]) -> dict[str, bool]:
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    bars = {
        "verify <= 50 ms": middle["verify, all checks"] <= 0.05,
        "publish p95 <= 100 ms plus signature": _p95(found["publish (wall)"]) <= 0.1,
        "scan >= 20 x faster than tensor by tensor in torch": middle["scan, torch"] >= 20 * middle["scan, ours"],
    }
    for ours, peer in (
        ("verify, all checks", "verify, model-signing"),
        ("verify command", "verify command, model-signing"),
    ):
        if peer in found:
            ratio = middle[peer] / middle[ours]
            bars[f"{ours} >= 20 x faster than model-signing's (here {ratio:.1f} x)"] = ratio >= 20
    return bars


def _p95(seconds: list[float]) -> float:
    return sorted(seconds)[min(int(0.95 * len(seconds)), len(seconds) - 1)]


def _measure(folder: Path, rounds: int, peer: str | None) -> dict[str, list[float]]:
    publisher = adapters.Publisher(folder)
    weights = adapters.safetensors(adapters.random_tensors(1, LORA, CONFIG))
    files = adapters.write_files(folder / "out", weights, adapter_config(adapters.IDENTITY, LORA))
    signer, trusted = publisher.signer, trust(publisher.signer.public)
    registry = Registry(folder / "store", trusted, lambda: 0.0, signer=signer)
    facts = replace(adapters.facts(file_sha256(files[WEIGHTS_FILE])), lora=LORA, base_config=CONFIG)
    foundation = Foundation(adapters.IDENTITY, CONFIG)
    directory = registry.fetch(registry.publish(files, facts), folder / "node")
    path = directory / WEIGHTS_FILE
    ours = ["-c", _OUR_COMMAND, str(directory), signer.public.hex(), json.dumps(CONFIG)]
    steps: dict[str, Callable[[], object]] = {
        "verify, all checks": lambda: verify(directory, trusted, foundation),
        "scan, ours": lambda: scan(open_weights(path)),
        "scan, torch": lambda: _torch_scan(path),
        "sha256": lambda: file_sha256(path),
    }
    found: dict[str, list[float]] = {"bytes": [float(len(weights))], "publish (wall)": []}
    for _ in range(rounds):
        start = time.perf_counter()
        registry.publish(files, facts)
        found["publish (wall)"].append(time.perf_counter() - start)
        for name, step in steps.items():
            start = time.process_time()
            step()
            found.setdefault(name, []).append(time.process_time() - start)
        found.setdefault("verify command", []).append(_command([sys.executable, *ours])[0])
        if peer:
            _measure_peer(peer, directory, folder / "peer.sig", found)
    return found


def _measure_peer(peer: str, directory: Path, signature: Path, found: dict[str, list[float]]) -> None:
    _, out = _command([peer, "-c", _PEER, str(directory), str(signature)])
    for name, seconds in json.loads(out).items():
        found.setdefault(f"{name}, model-signing", []).append(seconds)
    public = str(signature.with_suffix(".pub"))
    cost, _ = _command([peer, "-c", _PEER_COMMAND, str(directory), public, str(signature)])
    found.setdefault("verify command, model-signing", []).append(cost)


def _command(command: list[str]) -> tuple[float, str]:
    """CPU seconds of a child from its start to its end, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, out


def _torch_scan(path: Path) -> float:
    squares = 0.0
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            tensor = file.get_tensor(name)
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(name)
            squares += float(tensor.double().square().sum())
    return squares
