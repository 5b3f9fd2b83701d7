"""The scrubber's scorecard: covered values per label on generated wording, speed beside its peers, bounded time.

    driftline bench scrub [--peers PYTHON] [--pii DIR] [--rounds N]

`--peers` is an interpreter with presidio-analyzer, datafog, datafog-core or scrubadub (and msgspec); without it only
our own functions are timed. `--pii` adds the labelled set of messages found there. Exit code 1 if a gate fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from streams.scrub import find, find_record
from streams.scrub.spans import Span
from tests.bench._heading import heading, table
from tests.bench._scrub_set import Turn, turns

GATES = {"covered": 0.94, "precision": 0.95, "overmasked": 0.025, "touched": 0.05}
"""scrub.md's targets: shares of values, of masks, of other characters, of clean turns."""
HOSTILE = (
    "a",
    "1",
    "-",
    "@",
    "a.",
    "1-",
    "a-",
    "Aa ",
    "12 Aa ",
    "ab:",
    "http://",
    "a at b ",
    "a\u200b",
    "1 ",
    "a@",
    "a dot ",
    "A1",
    "at ",
    "12 Oak St ",
    "my name is ",
    "::",
    "(",
    "4111 ",
    "Xq ",
    "password ",
    "\u0661",
    "-a/o",
    "one ",
    "dot ",
    "order ",
    "Ab 12345 ",
    "Rua 1 ",
)
_SIGNS = "aeB1 09 .-@:/(#x "
"""What random units are made of."""
FIRING = (
    " my name is Ines, card 4000 0012 3456 7899, pass: x9!kk, a dot b at gmail dot com, 12 Oak St Apt 4, "
    "http://u:p@h 1.2.3.4"
)
SIZES = (4096, 32_768)
DOUBLINGS = 3
LINEAR = 2.2
"""Time of twice the text, in the mean of three doublings: 2, and a tenth for the caches that a longer text leaves."""
ATTEMPTS = 8
"""Times that a text is measured while it seems steep: noise only adds, so the least time is the text's own."""
SHORTEST = 1e-3
"""Seconds below which a text's growth is that of the clock."""

Row = tuple[str, list[Span], list[Span], list[Span]]
"""A text, its values, what may be masked or not, and what was masked."""


def main(argv: list[str]) -> int:
    """Print the tables. Returns 1 if a gate fails."""
    args = _arguments(argv)
    sets = {"generated wording": [_own(turn) for turn in turns()]}
    if args.pii:
        sets["labelled set"] = list(_labelled(args.pii / "messages.jsonl"))
    rates, theirs = _peers(args, sets)
    print(heading("scrub", argv))  # noqa: T201 - a benchmark prints
    failed = [_report(name, rows, theirs[name]) for name, rows in sets.items()]
    base = rates.get("presidio, all")
    lines = [[name, f"{rate:,.0f}", f"{rate / base:.1f}" if base else "-"] for name, rate in rates.items()]
    print("\n" + table([["system", "messages/s", "x presidio"], *lines]))  # noqa: T201
    return int(_hostile() or any(failed))


def _own(turn: Turn) -> Row:
    """A generated turn, scrubbed with the question before it."""
    spans = find_record({"text": turn.text, "prev": turn.question})
    return turn.text, [turn.value] if turn.value else [], [], spans


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="driftline bench scrub")
    parser.add_argument("--peers", default="")
    parser.add_argument("--pii", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(argv)


def _labelled(path: Path) -> Iterable[Row]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        values, free = (
            [(s["start"], s["end"], s["label"]) for s in row.get(name, [])] for name in ("spans", "optional")
        )
        yield row["text"], values, free, find_record(row)


def _report(name: str, rows: list[Row], peers: dict[str, dict[str, int]]) -> bool:
    """One table of a set, with what peers cover; whether a gate failed."""
    total, covered, masks, right = Counter[str](), Counter[str](), 0, 0
    other = over = clean = touched = 0
    for text, values, free, spans in rows:
        masked, own = _inside(spans), _inside(values)
        allowed = own | _inside(free)
        for start, end, label in values:
            total[label] += 1
            covered[label] += all(i in masked for i in range(start, end) if text[i].isalnum())
        counted = [s for s in spans if _inside([s]) & own or not _inside([s]) & allowed]
        masks, right = masks + len(counted), right + sum(bool(_inside([s]) & own) for s in counted)
        rest = [i for i, char in enumerate(text) if char.isalnum() and i not in allowed]
        other, over = other + len(rest), over + sum(i in masked for i in rest)
        clean, touched = clean + (not values and not free), touched + (not values and not free and bool(spans))
    shares = {
        "covered": covered.total() / total.total(),
        "precision": right / masks,
        "overmasked": over / other,
        "touched": touched / clean,
    }
    ours = {"ours": dict(covered), **peers}
    lines = [
        [label, str(n), *(f"{100 * found.get(label, 0) / n:.1f}" for found in ours.values())]
        for label, n in total.most_common()
    ]
    everything = [f"{100 * sum(found.values()) / total.total():.1f}" for found in ours.values()]
    lines.insert(0, ["all", str(total.total()), *everything])
    print(f"\n{name}: {len(rows)} turns, " + ", ".join(f"{k} {100 * v:.1f} %" for k, v in shares.items()))  # noqa: T201
    print(table([["covered %", "values", *ours], *lines]))  # noqa: T201
    return any(shares[k] < GATES[k] for k in ("covered", "precision")) or any(
        shares[k] > GATES[k] for k in ("overmasked", "touched")
    )


def _inside(spans: list[Span]) -> set[int]:
    return {i for start, end, _ in spans for i in range(start, end)}


def _peers(
    args: argparse.Namespace, sets: dict[str, list[Row]]
) -> tuple[dict[str, float], dict[str, dict[str, dict[str, int]]]]:
    """Messages a second of all systems in one run, and what each peer covers of each set, by label."""
    texts = [row[0] for row in sets["generated wording"]]
    if args.pii:
        lines = (args.pii / "speed.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
    rates: dict[str, float] = {}
    theirs: dict[str, dict[str, dict[str, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in sets.items():
            path = Path(folder) / "input.json"
            path.write_text(json.dumps({"texts": texts, "rows": [[row[0], row[1]] for row in rows]}))
            rounds = args.rounds if not rates else 1
            command = [
                args.peers or sys.executable, str(Path(__file__).with_name("_scrub_peers.py")), str(path), str(rounds),
            ]  # fmt: skip
            answer = json.loads(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            )
            rates = rates or answer["rates"]
            theirs[name] = answer["covered"]
    return rates, theirs


def _hostile() -> bool:
    """The slowest hostile text at 4 KB, alone and with a line that fires the detectors; whether time is not linear."""
    rng = random.Random(11)
    made = ["".join(rng.choices(_SIGNS, k=rng.randrange(1, 9))) for _ in range(40)]
    texts = [(unit, tail) for unit in (*HOSTILE, *made) for tail in ("", FIRING)]
    worst, steepest = 0.0, 0.0
    for unit, tail in texts:
        smallest, growth = _growth(*((unit * size)[:size] + tail for size in SIZES))
        worst, steepest = max(worst, smallest), max(steepest, growth)
    print(  # noqa: T201
        f"\nhostile 4 KB, {len(texts)} texts: at most {1e3 * worst:.1f} ms; twice the text (to 32 KB): at most "
        f"x{steepest:.2f}"
    )
    return steepest > LINEAR


def _growth(small: str, large: str) -> tuple[float, float]:
    """Time of a text, and by how much it grows with each of the doublings to the larger one."""
    least, most, growth = float("inf"), float("inf"), 0.0
    for _ in range(ATTEMPTS):
        least, most = min(least, _cpu(small)), min(most, _cpu(large))
        growth = (most / least) ** (1 / DOUBLINGS) if least > SHORTEST else 0.0
        if growth <= LINEAR:
            break
    return least, growth


def _cpu(text: str) -> float:
    """The least thread time of three runs; without garbage collection, whose passes would hide what grows and how."""
    times = []
    gc.disable()
    for _ in range(3):
        started = time.thread_time()
        find(text)
        times.append(time.thread_time() - started)
    gc.enable()
    return min(times)
