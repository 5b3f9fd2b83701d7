"""Experiment records and model cards: one JSON file per run and per version is the truth, the card is made from it.

Torch-free. An `Exporter` copies records elsewhere (MLflow is one); losing that copy loses nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Protocol

from learner.gate import Decision
from learner.registry import Manifest
from learner.registry.manifest import rounded, to_object

RUNS = "runs"
VERSIONS = "versions"
HEADS = "heads"
"""Folder of the blobs of auxiliary heads."""


class HeadResult(Protocol):
    """An auxiliary head beside a version; learner.head_check.HeadResult is one."""

    @property
    def blob(self) -> bytes:
        """Its safetensors file."""

    @property
    def digest(self) -> str:
        """sha256 of the blob."""

    def to_object(self) -> dict[str, Any]:
        """Digest, and its quality on held-out turns beside a head on the base."""


class Exporter(Protocol):
    """Somebody else's experiment tracker."""

    def export(self, name: str, record: Mapping[str, Any]) -> None:
        """Copy one record."""


class Records:
    """A folder of records: `runs/<name>.json`, `versions/<id>.json` and `versions/<id>.md`."""

    def __init__(self, folder: Path, exporter: Exporter | None = None) -> None:
        self._folder = folder
        self._exporter = exporter

    def run(self, name: str, record: Mapping[str, Any]) -> Path:
        """Write the record of a run: its parameters, data and results."""
        return self._write(RUNS, name, record)

    def version(
        self, manifest: Manifest, decision: Decision, parameters: Mapping[str, Any],
        heads: Mapping[str, HeadResult] = {},
    ) -> Path:  # fmt: skip
        """Write the record of a version, its model card beside it, and its heads as blobs under their digests."""
        for head in heads.values():
            path = self._folder / HEADS / f"{head.digest}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, head.blob)
        record = version_record(manifest, decision, parameters)
        record["heads"] = {name: head.to_object() for name, head in heads.items()}
        path = self._write(VERSIONS, manifest.id, record)
        _replace(path.with_suffix(".md"), card(record))
        return path

    def drop_heads(self, version: str) -> None:
        """Delete the blobs of a version's heads: it was withdrawn because they learned from an erased customer."""
        try:
            heads = self.read(VERSIONS, version).get("heads", {})
        except FileNotFoundError:
            return
        for head in heads.values():
            (self._folder / HEADS / f"{head['digest']}.safetensors").unlink(missing_ok=True)

    def read(self, kind: str, name: str) -> dict[str, Any]:
        """One record back. Raises FileNotFoundError."""
        found: dict[str, Any] = json.loads((self._folder / kind / f"{name}.json").read_text())
        return found

    def _write(self, kind: str, name: str, record: Mapping[str, Any]) -> Path:
        path = self._folder / kind / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, json.dumps(rounded(dict(record)), indent=1, sort_keys=True) + "\n")
        if self._exporter is not None:
            self._exporter.export(name, record)
        return path


class MlflowExporter:
    """Records as runs of an MLflow experiment; needs the package mlflow."""

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        self._tracking_uri = tracking_uri
        self._experiment = experiment

    def export(self, name: str, record: Mapping[str, Any]) -> None:
        """Numbers become metrics, everything else parameters, and the record itself an artifact."""
        mlflow = import_module("mlflow")
        mlflow.set_tracking_uri(self._tracking_uri)
        mlflow.set_experiment(self._experiment)
        flat = flattened(record)
        with mlflow.start_run(run_name=name):
            mlflow.log_metrics({key: value for key, value in flat.items() if isinstance(value, float)})
            mlflow.log_params({key: str(value)[:500] for key, value in flat.items() if not isinstance(value, float)})
            mlflow.log_dict(dict(record), f"{name}.json")


def version_record(manifest: Manifest, decision: Decision, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of a version: manifest without the probe's numbers, gate evidence, parameters."""
    facts = to_object(manifest)
    del facts["probe"], facts["signature"]
    return facts | {"digest": manifest.digest, "gate": decision.to_object(), "parameters": dict(parameters)}


def flattened(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; sequences stay whole."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def card(record: Mapping[str, Any]) -> str:
    """The model card of a version, in Markdown, from its record."""
    gate = record["gate"]
    rows = "\n".join(f"| {name} | {value} |" for name, value in _facts(record))
    guards = "\n".join(
        "| {guard} | {outcome} | {n} | {value:.4g} | {limit:.4g} | {detail} |".format_map(row)
        for row in gate["evidence"]
    )
    return f"""# {record["id"]}

LoRA adapter for customer-support chat on `{record["base"]["name"]}`, published {record["created_at"]}.

| | |
|---|---|
{rows}

## Gate: {gate["verdict"]}, against `{record["eval"]["gated_against"]}`

{gate["why"]}. Decision {gate["account"]["decisions"]} of this line; {_provable(gate)}.

| guard | outcome | n | value | limit | |
|---|---|---|---|---|---|
{guards}
{_heads(record.get("heads", {}))}
Trained on scrubbed chats: what has a form, or is known from the event, is masked; free names and addresses at a
measured rate. Gains on canned replies exaggerate what a customer sees.
"""


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    lora, measured, lineage = record["lora"], record["eval"], record["training"]
    losses = ", ".join(f"{name} {measured[f'{name}_nll_per_token']:.4f}" for name in ("parent", "base"))
    first, last = lineage["steps"]
    return [
        ("parent", f"`{record['parent']}`"),
        ("base revision", f"`{record['base']['revision']}`"),
        ("rank, alpha, modules", f"{lora['r']}, {lora['alpha']}, {', '.join(lora['target_modules'])}"),
        ("held-out loss, nats a token", f"{measured['nll_per_token']:.4f} ({losses})"),
        ("held-out conversations", f"{measured['examples']}, set `{measured['set_digest'][:16]}`"),
        ("trained", f"run {lineage['run']}, steps {first} to {last}, seed {lineage['seed']}"),
        ("code", f"`{lineage['git_commit']}`"),
        ("data", f"completed {lineage['fresh_from']:.0f} to {lineage['fresh_to']:.0f}, seconds since 1970"),
        ("partitions", ", ".join(sorted(lineage["offsets"])) or "none"),
        ("digest", f"`{record['digest']}`"),
    ]


def _heads(heads: Mapping[str, Any]) -> str:
    """The auxiliary heads on held-out turns, with the majority class and the same head on the base beside them."""
    if not heads:
        return ""
    lines = [
        "", "## Heads, on held-out turns", "",
        "| head | n | accuracy | precision | recall | F1 | majority: accuracy, F1 | on the base: accuracy, F1 | blob |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in sorted(heads.items()):
        own, base = row["held_out"], row["base"]
        scores = " | ".join(f"{own[key]:.3f}" for key in ("accuracy", "precision", "recall", "f1"))
        plain = f"{base['accuracy']:.3f}, {base['f1']:.3f}" if base else "-"
        majority = f"{own['majority_accuracy']:.3f}, {own['majority_f1']:.3f}"
        lines.append(f"| {name} | {own['examples']} | {scores} | {majority} | {plain} | `{row['digest'][:16]}` |")
    return "\n".join([*lines, ""])


def _provable(gate: Mapping[str, Any]) -> str:
    least = gate["provable_gain"]
    return "no gain was provable with these examples" if least is None else f"least provable gain {least:.3f} nats"


def _replace(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    with NamedTemporaryFile("wb", dir=path.parent, prefix=".new-", delete=False) as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
