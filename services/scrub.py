"""`driftline scrub`: a dry run of the scrubber on a user's own history, JSON lines in, JSON lines out, in order.

Rows are texts (`{"text", "prev"?}`), conversations (`{"turns": [{"role", "text"}], "metadata"?}`, or with `messages`
as chat APIs have them) or chat events, alone or as traffic files hold them; the same rows come out with `masked` and
`spans`, a summary goes to stderr. CSV, mbox and pages come out a conversation a line. Nothing is stored; numbering of
events runs per conversation over the file. An unreadable line gives a reason code, never its content.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from services import histories
from services.histories import UNREADABLE, form_of, lines_of
from services.source_files import agents_of
from streams.sources.turns import event_of, turns_of

if TYPE_CHECKING:
    from services.settings import Settings
    from streams.scrub.config import ScrubConfig

ORIGINALS = frozenset({"text", "content", "prev", "metadata", "customer", "corrected_text"})
"""Fields that `--drop-original` leaves out; `value` too where it is a text."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", nargs="?", default="-", help="JSONL, CSV, mbox, Markdown or HTML; or .gz; - is stdin")
    histories.arguments(parser)
    parser.add_argument("--out", type=Path, help="write here instead of stdout")
    parser.add_argument("--no-tagger", action="store_true", help="rules alone, without the name tagger")
    parser.add_argument("--ner", help="a transformers NER model whose finds join those of the scrubber")
    parser.add_argument("--drop-original", action="store_true", help="leave text, prev and metadata out of the result")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Scrub a file. Returns 1 if a line was unreadable or quarantined, 2 if the file cannot be read."""
    config = replace(settings.scrub, tagger=settings.scrub.tagger and not args.no_tagger)
    if args.ner:
        config = replace(config, ner=args.ner)
    path = None if args.file == "-" else Path(args.file)
    with ExitStack() as stack:
        out = stack.enter_context(args.out.open("w")) if args.out else sys.stdout
        try:
            lines = lines_of(path, form_of(path, args.format), agents_of(args, settings.ingest.agents))
            counts = dry_run(lines, out, config, drop_original=args.drop_original)
        except BrokenPipeError:
            raise
        except UNREADABLE as error:
            sys.stderr.write(f"driftline scrub: {histories.why(path, error)}\n")
            return 2
    failed = counts.pop("failed", 0)
    print(json.dumps({"lines": counts.pop("lines", 0), "failed": failed, "masked": dict(counts)}), file=sys.stderr)
    return 1 if failed else 0


def dry_run(lines: Iterable[bytes], out: IO[str], config: ScrubConfig, *, drop_original: bool) -> Counter[str]:
    """Scrub lines into `out`; counts by label, and `lines` and `failed`."""
    from streams.scrub.dry_run import DryRun  # noqa: PLC0415 - the lexicon loads only when the command runs

    scrub = DryRun(config)
    counts: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        result = scrub.line(line, number)
        counts["lines"] += 1
        parts = list(_parts(result))
        counts["failed"] += any(not part.keys().isdisjoint({"error", "quarantined"}) for part in parts)
        counts.update(span["label"] for part in parts if "masked" in part for span in part["spans"])
        if drop_original:
            result = _without_originals(result)
        out.write(json.dumps(result, ensure_ascii=False) + "\n")
    return counts


def _parts(result: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A row, the event that it holds, and its turns: all that may have been masked."""
    yield result
    if (event := event_of(result)) is not result:
        yield event
    yield from (turn for turn in result.get(turns_of(result), ()) if isinstance(turn, Mapping))


def _without_originals(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = _dropped(result)
    if isinstance(kept.get("value"), Mapping):
        kept["value"] = _dropped(kept["value"])
    if key := turns_of(kept):
        kept[key] = [_dropped(turn) for turn in kept[key] if isinstance(turn, Mapping)]
    return kept


def _dropped(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in part.items()
        if key not in ORIGINALS and not (key == "value" and isinstance(value, str))
    }
