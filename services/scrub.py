"""`driftline scrub`: a dry run of the scrubber on a user's own history, JSON lines in, JSON lines out, in order.

Rows are texts (`{"text", "prev"?}`), conversations (`{"turns": [{"role", "text"}], "metadata"?}`) or chat events;
the same rows come out with `masked` and `spans`, a summary goes to stderr. Nothing is stored; numbering of
events runs per conversation over the file. An unreadable line gives a reason code, never its content.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.settings import Settings
    from streams.scrub.config import ScrubConfig

ORIGINALS = ("text", "prev", "metadata", "corrected_text")
"""Fields that `--drop-original` leaves out."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", nargs="?", default="-", help="JSON lines; - or nothing reads stdin")
    parser.add_argument("--out", type=Path, help="write here instead of stdout")
    parser.add_argument("--no-tagger", action="store_true", help="rules alone, without the name tagger")
    parser.add_argument("--ner", help="a transformers NER model whose finds join those of the scrubber")
    parser.add_argument("--drop-original", action="store_true", help="leave text, prev and metadata out of the result")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Scrub a file. Returns 1 if a line was unreadable or quarantined."""
    config = replace(settings.scrub, tagger=settings.scrub.tagger and not args.no_tagger)
    if args.ner:
        config = replace(config, ner=args.ner)
    with ExitStack() as stack:
        lines = sys.stdin.buffer if args.file == "-" else stack.enter_context(Path(args.file).open("rb"))
        out = stack.enter_context(args.out.open("w")) if args.out else sys.stdout
        counts = dry_run(lines, out, config, drop_original=args.drop_original)
    failed = counts.pop("failed", 0)
    print(json.dumps({"lines": counts.pop("lines", 0), "failed": failed, "masked": dict(counts)}), file=sys.stderr)
    return 1 if failed else 0


def dry_run(
    lines: IO[bytes] | Iterator[bytes], out: IO[str], config: ScrubConfig, *, drop_original: bool
) -> Counter[str]:
    """Scrub lines into `out`; counts by label, and `lines` and `failed`."""
    from streams.scrub.dry_run import DryRun  # noqa: PLC0415 - the lexicon loads only when the command runs

    scrub = DryRun(config)
    counts: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        result = scrub.line(line, number)
        counts["lines"] += 1
        counts["failed"] += not result.keys().isdisjoint({"error", "quarantined"}) or _has_quarantined(result)
        counts.update(span["placeholder"].strip("<>").rpartition("_")[0] for span in _spans(result))
        if drop_original:
            result = _without_originals(result)
        out.write(json.dumps(result, ensure_ascii=False) + "\n")
    return counts


def _spans(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns = result.get("turns")
    own: list[dict[str, Any]] = list(result.get("spans", []))
    return own + [span for turn in turns for span in turn.get("spans", [])] if isinstance(turns, list) else own


def _has_quarantined(result: Mapping[str, Any]) -> bool:
    turns = result.get("turns")
    return isinstance(turns, list) and any("quarantined" in turn for turn in turns)


def _without_originals(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in result.items() if k not in ORIGINALS and k != "customer"}
    if isinstance(kept.get("turns"), list):
        kept["turns"] = [{k: v for k, v in turn.items() if k not in ORIGINALS} for turn in kept["turns"]]
    return kept
