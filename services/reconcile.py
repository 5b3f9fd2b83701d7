"""`driftline reconcile FILE`: what became of every event of a file of chats, by the ledger.

An event without entry is `waiting` while the workers have not committed the ends that were read at the start, and
`missing` only after that. `removed` is derived: accepted, but no sample of it is stored and none was ever trained;
erased where `driftline forget` took its sample, expired where its entry is older than a sample may be, else evicted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services import source_files
from services.settings import Settings
from streams.ledger import Entry, Outcome

if TYPE_CHECKING:
    import redis

    from streams.ledger import Ledger
    from streams.replay import Tables

CHUNK = 1_000
"""Entries read at once."""


@dataclass(frozen=True)
class Row:
    """One event of the file: its id as reported, and the digest under which the ledger files it."""

    event_id: str
    digest: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and where the answer goes."""
    source_files.arguments(parser)
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")
    parser.add_argument("--events", type=Path, help="write one line an event here")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """0 when every event is accounted for, 1 when any is missing or had its effect more than once.

    Raises `SettingsError` for a file that cannot be read.
    """
    from services.local.redis_server import client  # noqa: PLC0415 - redis

    keys = settings.keys.keys()
    form = source_files.format_of(args)
    connection = client(settings.redis.url)
    behind = _behind(settings)
    rows = list(distinct(args.file, form, keys, source_files.agents_of(args, settings.ingest.agents)))
    entries = outcomes(connection, settings, rows, behind=behind)
    if args.events is not None:
        args.events.write_text("".join(json.dumps(line) + "\n" for line in lines(rows, entries)))
    found = summary(rows, entries)
    print(json.dumps(found) if args.json else table(found), file=sys.stdout)  # noqa: T201 - the command's answer
    return 1 if found["missing"] or any(entry is not None and entry.effects > 1 for entry in entries) else 0


def distinct(file: Path, form: str, keys: Any, agents: Sequence[str] = ()) -> Iterator[Row]:
    """The file's distinct events, read as `ingest` reads them; a record without readable id by its number (`#17`)."""
    from streams.events import readable_id  # noqa: PLC0415 - msgspec
    from streams.ledger import event_digest, record_digest  # noqa: PLC0415 - redis
    from streams.scrub.identity import clean_event_id, ledger_key  # noqa: PLC0415 - with it

    key = ledger_key(keys)
    seen: set[str] = set()
    for number, (record_key, value) in enumerate(_records(file, form, agents), 1):
        event_id = readable_id(value)
        name = f"#{number}" if event_id is None else event_id
        if name not in seen:
            seen.add(name)
            digest = (
                record_digest(record_key, value, key)
                if event_id is None
                else event_digest(clean_event_id(keys, event_id), key)
            )
            yield Row(name, digest)


def outcomes(connection: redis.Redis, settings: Settings, rows: Sequence[Row], *, behind: bool) -> list[Entry | None]:
    """The outcome of each event, None for one that is missing."""
    from streams.ledger import Ledger  # noqa: PLC0415 - redis
    from streams.replay import open_tables  # noqa: PLC0415 - redis
    from streams.scrub.identity import ledger_key  # noqa: PLC0415 - redis

    key = ledger_key(settings.keys.keys())
    ledger = Ledger(connection, key, settings.stream.ledger_ttl_s)
    found: list[Entry | None] = []
    for at in range(0, len(rows), CHUNK):
        found += ledger.read([row.digest for row in rows[at : at + CHUNK]])
    if behind:
        found = [Entry(Outcome.WAITING) if entry is None else entry for entry in found]
    accepted = any(entry is not None and entry.samples for entry in found)
    return _removed(open_tables(connection, settings.replay, key), ledger, rows, found) if accepted else found


def summary(rows: Sequence[Row], entries: Sequence[Entry | None]) -> dict[str, Any]:
    """Counts by outcome, and the ids that are missing."""
    reasons: dict[Outcome, Counter[str]] = {outcome: Counter() for outcome in Outcome}
    for entry in entries:
        if entry is not None:
            reasons[entry.outcome][entry.reason] += 1
    counted: dict[str, Any] = {"events": len(rows)}
    for outcome in Outcome:
        plain = outcome in {Outcome.ACCEPTED, Outcome.WAITING}
        counted[outcome.value] = reasons[outcome].total() if plain else dict(sorted(reasons[outcome].items()))
    counted["missing"] = [row.event_id for row, entry in zip(rows, entries, strict=True) if entry is None]
    return counted


def lines(rows: Sequence[Row], entries: Sequence[Entry | None]) -> Iterator[dict[str, Any]]:
    """One object an event: its id, outcome, reason and how often it took effect."""
    for row, entry in zip(rows, entries, strict=True):
        shown = entry or Entry(Outcome.WAITING, "missing")
        outcome = "missing" if entry is None else shown.outcome.value
        reason = "" if entry is None else shown.reason
        yield {"event_id": row.event_id, "outcome": outcome, "reason": reason, "effects": shown.effects}


def table(found: Mapping[str, Any]) -> str:
    """The summary for people."""
    rows = [f"events         {found['events']:>8}"]
    for outcome in Outcome:
        value = found[outcome.value]
        rows.append(f"{outcome.value:14} {value if isinstance(value, int) else sum(value.values()):>8}")
        if isinstance(value, dict):
            rows += [f"  {reason:20} {count:>8}" for reason, count in value.items()]
    rows.append(f"missing        {len(found['missing']):>8}")
    return "\n".join(rows)


def _records(file: Path, form: str, agents: Sequence[str]) -> Iterator[tuple[bytes | None, bytes]]:
    """Keys and values of the records that `ingest` makes of a file."""
    from streams.sources import Chat, Unreadable, chat_records, read  # noqa: PLC0415 - parsers

    with source_files.opened(file) as source:
        for item in read(source, form, file.name.split(".")[0], agents):
            if isinstance(item, Unreadable):
                continue
            for record in chat_records(item, 0.0) if isinstance(item, Chat) else [item]:
                yield record.key, record.value


def _removed(
    tables: Tables, ledger: Ledger, rows: Sequence[Row], entries: Sequence[Entry | None]
) -> list[Entry | None]:
    """The entries, with `removed` for accepted events of which no sample is stored and none was ever trained."""
    digests = sorted({digest for entry in entries if entry is not None for digest in entry.samples})
    fates = dict(zip(digests, tables.fates([bytes.fromhex(digest) for digest in digests]), strict=True))
    gone = [
        at for at, entry in enumerate(entries)
        if entry is not None and entry.outcome is Outcome.ACCEPTED and entry.samples
        and not any(fates[digest].resident or fates[digest].trained for digest in entry.samples)
    ]  # fmt: skip
    found = list(entries)
    for start in range(0, len(gone), CHUNK):
        part = gone[start : start + CHUNK]
        held = sorted({digest for at in part for digest in _samples(entries[at])})
        erased = ledger.erased_samples(held)
        ages = ledger.ages_s([rows[at].digest for at in part])
        for at, age_s in zip(part, ages, strict=True):
            expired = age_s >= tables.config.train.ttl_s
            reason = "erased" if erased & set(_samples(entries[at])) else "expired" if expired else "evicted"
            found[at] = replace(entries[at] or Entry(Outcome.REMOVED), outcome=Outcome.REMOVED, reason=reason)
    return found


def _samples(entry: Entry | None) -> tuple[str, ...]:
    return entry.samples if entry is not None else ()


def _behind(settings: Settings) -> bool:
    """Whether the workers have still to commit what stood on chats.raw and chats.clean when this was asked."""
    from services.stream_lag import lag  # noqa: PLC0415 - confluent-kafka

    return any(messages > 0 for messages in lag(settings).values())
