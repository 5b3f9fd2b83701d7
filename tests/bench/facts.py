"""How facts that change are found: `driftline bench facts [--data DIR]`.

Simulated shops whose policies change after a number of chats, however customers ask and agents answer: how many chats
that state the new value it takes, which chats with the old one are retired, and which wrongly. With `--data` also real
chats without any change, where every alarm is false.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from learner.supersede import FactChanges
from services.simulation.dialogue import Conversation, conversations
from services.simulation.policy import facts
from streams.events import Sample, Turn
from tests.bench._heading import heading, table

CHANGING = {"refund_days", "daily_limit"}
REAL = ("conv_star", "conv_cucom", "conv_irc_ubuntu", "conv_small_retail_it", "conv_taskmaster4")


def main(argv: list[str]) -> int:
    """Print the tables. Returns 0."""
    parser = argparse.ArgumentParser(prog="driftline bench facts", description=__doc__)
    parser.add_argument("--chats", type=int, default=350, help="chats before the change, and 5/7 as many after")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder with real conversations")
    args = parser.parse_args(argv)
    rows = [
        ["shops", "new chats until the first alarm, median (most)", "old chats retired", "wrongly", "alarms before"]
    ]
    rows += [_changed(shops, args.chats, args.seeds) for shops in (("harbour",), ("harbour", "tessera", "lumen"))]
    sys.stdout.write(heading("facts", argv) + "\n" + table(rows) + "\n")
    if args.data:
        rows = [["real chats without a change", "chats", "alarms"]]
        rows += [_real(args.data / f"{name}.jsonl.gz", args.chats * 10) for name in REAL]
        sys.stdout.write(table(rows) + "\n")
    return 0


def _changed(shops: Sequence[str], chats: int, seeds: int) -> list[str]:
    changing = [fact for fact in facts(shops) if fact.name in CHANGING]
    delays, retired, wanted, before = list[int](), set[tuple[int, str]](), set[tuple[int, str]](), 0
    for seed in range(1, seeds + 1):
        known, share = FactChanges(), 0.5 if len(shops) == 1 else 0.3
        old = list(conversations(seed, chats, shops=shops, fact_share=share))
        for number, chat in enumerate(old):
            before += bool(known.observe([_sample(number, chat.turns, chat)]))
        wanted |= {(seed, f"{number:05x}") for number, chat in enumerate(old) if chat.intent in CHANGING}
        asked = dict.fromkeys((fact.name for fact in changing), 0)
        alarmed: set[str] = set()
        after = conversations(seed + 50, chats * 5 // 7, shops=shops, fact_share=share, facts=changing)
        for number, chat in enumerate(after, start=chats):
            asked[chat.intent] = asked.get(chat.intent, 0) + 1
            keys = known.observe([_sample(number, chat.turns, chat)])
            retired |= {(seed, key) for key in keys}
            if keys and chat.intent not in alarmed:
                alarmed.add(chat.intent)
                delays.append(asked[chat.intent])
    right = len(retired & wanted)
    return [
        ", ".join(shops), f"{median(delays):.0f} ({max(delays)})", f"{right} of {len(wanted)}",
        f"{len(retired - wanted)}", f"{before}",
    ]  # fmt: skip


def _sample(number: int, turns: Sequence[tuple[str, str]], chat: Conversation | None = None) -> tuple[str, Sample]:
    customer = chat.customer["id"] if chat else f"k{number}"
    made = Sample(
        sample_id=f"{number}/sft/0", conversation=f"c{number}", customer=customer, lane="chat", split="train",
        turns=tuple(Turn(role=role, text=text, is_target=role == "agent") for role, text in turns),  # type: ignore[arg-type]
        received_at=0.0, completed_at=0.0, agent_id=f"a{customer[-1]}" if chat else f"a{number}",
    )  # fmt: skip
    return f"{number:05x}", made


def _real(path: Path, most: int) -> list[str]:
    known, alarms, number = FactChanges(), 0, 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in zip(range(1, most + 1), lines, strict=False):
            turns = [
                ("customer" if turn["role"] == "customer" else "agent", turn["text"])
                for turn in json.loads(line)["turns"]
            ]
            alarms += bool(known.observe([_sample(number, turns)]))
    return [path.name.removesuffix(".jsonl.gz"), f"{number}", f"{alarms}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
