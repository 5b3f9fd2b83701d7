"""`driftline explain ANSWER`: from an answer to its version, its training steps, their chats, what the filter decided.

The id of an answer (`id` of the response, `X-Driftline-Answer`) names its version; a version's id does as well. Which
chats count most for one answer is not computed: with `--about TEXT` those whose replies are most like the text come
first, else those that were trained most often. Texts are shown as they are stored: scrubbed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from learner.records import VERSIONS, Records
from learner.registry import BASE, Manifest, Registry, RegistryError
from services.adapters import records_folder
from services.answer_ids import version_of
from services.likeness import likeness
from services.lineage import ancestry, lineage
from services.local.redis_server import client
from services.publishers import registry_of
from streams.ledger import Ledger
from streams.replay import ReplayBuffer, open_tables
from streams.replay.lineage import complete_from, entries
from streams.scrub.identity import ledger_key

if TYPE_CHECKING:
    from services.lineage import Learned
    from services.settings import Settings
    from streams.events import Sample

NEWEST = 4_096
"""Trained samples that are read and compared at most."""

LIMIT = 5
"""Chats that are shown where nothing else is asked for."""

WIDTH = 100
"""Characters of a reply that are printed for people."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is to be explained."""
    parser.add_argument("answer", help="the id of an answer, or of a version")
    parser.add_argument("--about", default="", help="a text (the answer's): chats with replies like it come first")
    parser.add_argument("--limit", type=int, default=LIMIT, help="chats that are shown")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the trail. Returns 0, or 2 for an id that names no version."""
    clock = time.time  # noqa: TID251 - the composition root hands the clock on
    registry = registry_of(settings.registry, clock)
    try:
        found = explained(args.answer, settings, registry, about=args.about, limit=args.limit)
    except RegistryError as error:
        sys.stderr.write(f"driftline explain: {args.answer}: {error}; wants the id of an answer or of a version\n")
        return 2
    sys.stdout.write((json.dumps(found) if args.json else text(found)) + "\n")
    return 0


def explained(
    answer: str, settings: Settings, registry: Registry, *, about: str = "", limit: int = LIMIT
) -> dict[str, Any]:
    """The trail of an answer or of a version. Raises `RegistryError` where the id names none."""
    version = version_of(answer) or answer
    manifests = list(ancestry(registry, version))
    found = {"answer": answer, "version": version, "ancestry": _ancestry(registry, settings, manifests)}
    if manifests:
        key = ledger_key(settings.keys.keys())
        tables = open_tables(client(settings.redis.url, settings.redis.timeout_s), settings.replay, key)
        ledger = Ledger(tables.client, key, settings.stream.ledger_ttl_s)
        found |= trail(tables.of(manifests[0].line), ledger, lineage(manifests), about=about, limit=limit)
    return found


def trail(
    table: ReplayBuffer, ledger: Ledger, learned: Learned, *, about: str = "", limit: int = LIMIT
) -> dict[str, Any]:
    """The steps and samples that a version holds, and of `limit` samples what became of each of their events."""
    steps = trained_by(table, learned)
    newest = sorted(steps, key=lambda digest: max(steps[digest]), reverse=True)[:NEWEST]
    stored = {d: sample for d, sample in zip(newest, table.samples(newest), strict=True) if sample is not None}
    said = [(digest, turn.text) for digest, sample in stored.items() for turn in sample.turns if turn.is_target]
    alike = dict.fromkeys(stored, (0.0, ""))
    for (digest, reply), score in zip(said, likeness(about, [reply for _, reply in said]), strict=True):
        alike[digest] = max(alike[digest], (score, reply))
    chosen = sorted(stored, key=lambda one: (alike[one][0], len(steps[one]), max(steps[one])), reverse=True)
    return {
        "steps": len({step for taken in steps.values() for step in taken}),
        "samples": len(steps), "stored": len(stored), "complete_from": complete_from(table),
        "chats": [
            {"likeness": round(alike[one][0], 3), "reply": alike[one][1], **_chat(stored[one], steps[one], ledger)}
            for one in chosen[: max(limit, 0)]
        ],
    }  # fmt: skip


def trained_by(table: ReplayBuffer, learned: Learned) -> dict[bytes, list[tuple[int, int]]]:
    """Digest of each sample that a version holds -> the (run, step) that trained it, in order."""
    steps: dict[bytes, list[tuple[int, int]]] = {}
    for run, step, digests in entries(table):
        if learned.holds(run, step):
            for digest in digests:
                steps.setdefault(digest, []).append((run, step))
    return {digest: sorted(taken) for digest, taken in steps.items()}


def text(found: Mapping[str, Any]) -> str:
    """The trail for people."""
    if found["version"] == BASE:
        return f"{found['answer']}: given by the base model, which has learned from no chat"
    lines = [f"{found['answer']}: given by version {found['version']}"]
    lines += [
        f"  {one['version']}  run {one['run']}, steps to {one['step']}: {one['decision']}"
        f" against {one['gated_against']} on {one['examples']} held-out chats, {one['why']}"
        for one in found["ancestry"]
    ]
    lines.append(
        f"{found['steps']} steps over {found['samples']} samples, of which {found['stored']} are still stored"
        + (f" (complete from step {found['complete_from']} on)" if found["complete_from"] else "")
    )
    for chat in found["chats"]:
        lines += ["", _line(chat), f"  {chat['reply'][:WIDTH]}"]
        lines += [
            f"    {event['event_id']}  {event['outcome']}  {event['reason']}".rstrip() for event in chat["events"]
        ]
    return "\n".join(lines)


def _ancestry(registry: Registry, settings: Settings, manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
    records, found = Records(records_folder(settings)), []
    for manifest in manifests:
        try:
            why = records.read(VERSIONS, manifest.id)["gate"]["why"]
        except FileNotFoundError:
            why = "its record is not here"
        found.append({
            "version": manifest.id, "run": int(manifest.training.run), "step": manifest.training.steps[1],
            "decision": manifest.eval.decision, "gated_against": manifest.eval.gated_against,
            "examples": manifest.eval.examples, "why": why, "gone": registry.gone(manifest.id),
        })  # fmt: skip
    return found


def _chat(sample: Sample, steps: Sequence[tuple[int, int]], ledger: Ledger) -> dict[str, Any]:
    """A trained sample, and the ledger's entry for each event that it was made of."""
    read = ledger.read([ledger.digest(event_id) for event_id in sample.event_ids])
    return {
        "sample_id": sample.sample_id, "conversation": sample.conversation, "kind": sample.kind, "lane": sample.lane,
        "topic": sample.topic, "tags": list(sample.tags), "source": sample.source, "adapter": sample.adapter,
        "targets": [{"label": t.label, "weight": t.weight} for t in sample.turns if t.is_target],
        "trained": [list(step) for step in steps],
        "events": [
            {"event_id": event_id, "outcome": entry.outcome.value if entry else "unknown",
             "reason": entry.reason if entry else "past the ledger's life"}
            for event_id, entry in zip(sample.event_ids, read, strict=True)
        ],
    }  # fmt: skip


def _line(chat: Mapping[str, Any]) -> str:
    labels = ", ".join(f"{target['label']} x {target['weight']:g}" for target in chat["targets"])
    alike = f"likeness {chat['likeness']:.2f}, " if chat["likeness"] else ""
    tags = f", tags {' '.join(chat['tags'])}" if chat["tags"] else ""
    return (
        f"{chat['sample_id']}  {alike}trained {len(chat['trained'])} times, steps {chat['trained'][0][1]} to"
        f" {chat['trained'][-1][1]}, lane {chat['lane']}, {labels}{tags}"
    )
