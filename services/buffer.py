"""`driftline buffer`: what the replay buffer holds: stats, lanes, audit, top; and `add` for curated examples."""

from __future__ import annotations

import argparse
import json
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from services.local.redis_server import client
from services.options import positive
from services.settings import Settings
from streams.events import Sample, Turn
from streams.replay.audit import audit
from streams.replay.buffer import ReplayBuffer
from streams.replay.config import ReplayError
from streams.replay.figures import stats, top
from streams.replay.shapes import Stats
from streams.replay.tables import Tables, open_tables
from streams.scrub.identity import ledger_key
from streams.scrub.masking import Quarantined

UNUSABLE = "wants an object with question and answer, or with turns of role and text, one of them an agent's"


def arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command each; without one, `stats`."""
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    actions = parser.add_subparsers(dest="action")
    actions.add_parser("stats", help="figures of every table")
    actions.add_parser("lanes", help="figures of every lane").add_argument("--table", default="train")
    checked = actions.add_parser("audit", help="check every invariant; run it while nothing is written")
    checked.add_argument("--full", action="store_true", help="measure the stored payloads too")
    listed = actions.add_parser("top", help="the samples worth a look")
    listed.add_argument("--table", default="train", help="train, val, test, golden, or train-<line>")
    listed.add_argument("--by", choices=("priority", "age", "unlabelled"), default="priority")
    listed.add_argument("--count", type=positive, default=10)
    add = actions.add_parser("add", help="store curated examples: JSON lines with question and answer, or turns")
    add.add_argument("file", type=Path)
    add.add_argument("--line", default="a", help="the line that rehearses them, or is judged by them")
    where = add.add_mutually_exclusive_group(required=True)
    where.add_argument("--table", choices=("golden",), help="judged by the gate, never trained")
    where.add_argument("--lane", choices=("anchor",), help="rehearsed by the learner")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Show, check or add. Returns 1 if the audit finds a violation or a row is unusable."""
    actions = {"lanes": _lanes, "audit": _audit, "top": _top, "add": _add}
    connection = client(settings.redis.url, settings.redis.timeout_s)
    tables = open_tables(connection, settings.replay, ledger_key(settings.keys.keys()))
    return actions.get(args.action or "", _stats)(args, tables)


def _stats(args: argparse.Namespace, tables: Tables) -> int:

    found = [stats(table) for table in tables.all]
    if args.json:
        return _print({s.table: figures(s) for s in found})
    rows = [
        (s.table, s.counters["n"], f"{s.counters['n'] / s.capacity:.0%}", s.fresh, s.trained, s.leased,
         s.counters["bytes"], s.counters["ins"], s.counters["ev"], s.counters["dup"], s.erasing)
        for s in found
    ]  # fmt: skip
    _table(("table", "items", "fill", "fresh", "trained", "leased", "bytes", "in", "evicted", "dup", "erasing"), rows)
    for problem in sorted({problem for s in found for problem in s.problems}):
        sys.stdout.write(f"UNSAFE: {problem}\n")
    sys.stdout.writelines(f"warning: {warning}\n" for warning in tables.warnings)
    return 0


def figures(found: Stats) -> dict[str, Any]:
    """A table's figures as JSON."""
    return {
        **found.counters,
        "capacity": found.capacity,
        "max_bytes": found.max_bytes,
        "fresh": found.fresh,
        "trained": found.trained,
        "leased": found.leased,
        "oldest": found.oldest,
        "mean_age_s": found.mean_age_s,
        "erasing": found.erasing,
        "limiter": found.limiter,
        "lineage_from": found.lineage_from,
        "problems": list(found.problems),
        "lanes": {lane.name: lane.total for lane in found.lanes},
    }


def _lanes(args: argparse.Namespace, tables: Tables) -> int:

    names = ("name", "policy", "quota", "total", "fresh", "scored", "leased", "spent", "evicted")
    lanes = stats(_named(tables, args.table)).lanes
    if args.json:
        return _print([{**{n: getattr(lane, n) for n in names}, "bins": list(lane.bins)} for lane in lanes])
    _table(names, [tuple(getattr(lane, name) for name in names) for lane in lanes])
    return 0


def _audit(args: argparse.Namespace, tables: Tables) -> int:

    found = {table.table: audit(table, full=args.full) for table in tables.all}
    if args.json:
        _print({name: [violation._asdict() for violation in broken] for name, broken in found.items()})
    else:
        for name, broken in found.items():
            sys.stdout.write(f"{name}: {'clean' if not broken else ''}\n")
            sys.stdout.writelines(f"  {violation.invariant}: {violation.detail}\n" for violation in broken)
    return 1 if any(found.values()) else 0


def _top(args: argparse.Namespace, tables: Tables) -> int:

    samples = top(_named(tables, args.table), args.count, by=args.by)
    if args.json:
        return _print([_shown(sample) for sample in samples])
    for sample in samples:
        sys.stdout.write(f"{sample.sample_id}  {sample.lane}\n")
        sys.stdout.writelines(f"  {turn.role:9} {turn.text}\n" for turn in sample.turns)
    return 0


def _add(args: argparse.Namespace, tables: Tables) -> int:
    table = tables.golden if args.table else tables.of(args.line)
    now = float(tables.client.time()[0])
    rows = [line for line in args.file.read_bytes().splitlines() if line.strip()]
    samples, bad = [], 0
    for number, row in enumerate(rows, 1):
        try:
            made = curated(json.loads(row), args.lane or "golden", now, golden=bool(args.table))
            samples.append(msgspec.structs.replace(made, line=args.line))
        except (ValueError, KeyError, TypeError, AttributeError, Quarantined) as error:
            bad += 1
            sys.stderr.write(f"driftline buffer: row {number}: {type(error).__name__}: {UNUSABLE}\n")
    report = table.insert(samples)
    done = {"inserted": report.inserted, "duplicate": report.duplicate, "rejected": report.rejected, "unusable": bad}
    if args.json:
        _print(done)
    else:
        _table(tuple(done), [tuple(done.values())])
    return 1 if bad or report.rejected else 0


def curated(row: dict[str, Any], lane: str, now: float, *, golden: bool) -> Sample:
    """A row of question and answer, or of turns, as a scrubbed sample; the same row makes the same sample."""
    from streams.scrub.api import scrub_conversation  # noqa: PLC0415 - loads the detectors, which only `add` needs

    turns = row.get("turns") or [
        {"role": "customer", "text": row["question"]},
        {"role": "agent", "text": row["answer"]},
    ]
    masked = scrub_conversation({"turns": turns})
    digest = blake2b("\n".join(masked).encode(), digest_size=8).hexdigest()
    made = tuple(
        Turn(role=turn["role"], text=text, is_target=turn["role"] == "agent", label="good")
        for turn, text in zip(turns, masked, strict=True)
    )
    if not any(turn.is_target for turn in made):
        raise ValueError("no agent turn to learn from")
    name = f"curated-{digest}"
    return Sample(
        sample_id=f"{name}/sft/0", conversation=name, customer=name, lane=lane, split="test" if golden else "train",
        turns=made, received_at=0.0, completed_at=now, source="curated",
    )  # fmt: skip


def _shown(sample: Sample) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(sample)
    return shown


def _named(tables: Tables, name: str) -> ReplayBuffer:
    known = {table.table: table for table in tables.all}
    if name not in known:
        raise ReplayError(f"table {name} is none of {', '.join(known)}")
    return known[name]


def _print(value: object) -> int:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    return 0


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    cells = [head, *(tuple(str(value) for value in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    sys.stdout.writelines(_line(row, widths) for row in cells)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    first, *rest = row
    return "  ".join([first.ljust(widths[0]), *(v.rjust(w) for v, w in zip(rest, widths[1:], strict=True))]) + "\n"
