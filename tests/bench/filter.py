"""`driftline bench filter`: what the quality filter catches, what it blocks by mistake, and how fast it is.

    driftline bench filter --data DIR                     the shipped weights: per source, contrast, near copies, speed
    driftline bench filter --data DIR --words ... --abuse ... [--prose --spam --ham --text] --leave-one-out
                                                          weights rebuilt without each source in turn (half an hour;
                                                          with --parts DIR --most-s 60 in several calls)

The first form scores the shipped weights on text that some of them were trained on: only the contrast set, near copies
and speed are honest there. The second trains a model a source and judges that source with it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams.near_copies import VALUES
from streams.near_copies import read as read_signature
from streams.near_copies_store import MemoryCopies, Unit
from streams.quality import QualityConfig, Verdict, judge_turns
from streams.quality.classifier import CLASSES, Classifier
from tests.bench._parts import Parts, Unfinished

CONFIG = QualityConfig()
AS_CLASS = {"encoding": "gibberish", "auto_reply": "non_dialogue", "bias": "toxic"}
FILLERS = ("really", "quickly", "maybe", "also", "indeed", "perhaps", "certainly", "simply", "item", "place", "look")


def read(path: Path) -> list[dict[str, Any]]:
    """The objects of a gzip JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def predicted(verdict: Verdict) -> str:
    """The class that a verdict stands for."""
    return "good" if verdict.keep else AS_CLASS.get(verdict.reasons[0].value, verdict.reasons[0].value)


def judged(rows: Sequence[dict[str, Any]], model: Classifier | None) -> list[tuple[dict[str, Any], str]]:
    """Each row with its predicted class, judged as a reply."""
    verdicts = judge_turns([(row["text"], "agent") for row in rows], CONFIG, model)
    return [(row, predicted(verdict)) for row, verdict in zip(rows, verdicts, strict=True)]


def scores(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Macro-F1 over the five classes, F1 of rejecting, share of good rejected, share of bad kept."""
    each = []
    for name in CLASSES:
        hit = sum(a == name == b for a, b in pairs)
        each.append(2 * hit / max(1, sum(a == name for a, _ in pairs) + sum(b == name for _, b in pairs)))
    caught = sum(a != "good" != b for a, b in pairs)
    good, blocked = sum(a == "good" for a, _ in pairs), sum(a == "good" != b for a, b in pairs)
    bad = len(pairs) - good
    return {
        "macro_f1": statistics.mean(each),
        "reject_f1": 2 * caught / max(1, 2 * caught + blocked + bad - caught),
        "good_rejected": blocked / max(1, good),
        "bad_kept": 1 - caught / max(1, bad),
        **{f"f1_{name}": value for name, value in zip(CLASSES, each, strict=True)},
    }


def leave_one_out(
    args: argparse.Namespace, rows: Sequence[dict[str, Any]], parts: Parts
) -> list[tuple[dict[str, Any], str]]:
    """Every row judged by weights that never saw its source, contrast rows included. Raises Unfinished."""
    from streams.quality import rebuild  # noqa: PLC0415 - needs scikit-learn

    corpus = rebuild.read_corpus(args)
    sources = sorted({row["source"] for row in rows})
    folds = args.folds or len(sources)
    found = []
    for at in range(folds):
        fold = sources[at::folds]
        held = parts.load(f"fold-{folds}-{at}")
        if held is None:
            left = corpus
            for source in fold:
                left = left.without(source)
            held = judged([row for row in rows if row["source"] in fold], rebuild.fit(left))
            parts.save(f"fold-{folds}-{at}", held)
        found += held
        wrong = sum((row["label"] == "good") != (name == "good") for row, name in held)
        sys.stderr.write(f"{', '.join(fold)}: {wrong} of {len(held)} wrong\n")
    return found


def edited(text: str, changes: int, rng: random.Random) -> str:
    """The text with some words replaced, dropped or added, none of them a value."""
    words = text.split()
    plain = [at for at, word in enumerate(words) if _plain(word, first=at == 0)]
    for at in rng.sample(plain, min(changes, len(plain))):
        word = words[at]
        tail = word[len(word.rstrip(".,!?")) :]
        words[at] = rng.choice((f"{rng.choice(FILLERS)}{tail}", tail, f"{rng.choice(FILLERS)} {word}"))
    return " ".join(word for word in words if word)


def _plain(word: str, *, first: bool) -> bool:
    bare = word.strip(".,!?\"'").lower()
    return bare.isalpha() and bare not in VALUES and (first or not word[0].isupper())


def changed_value(text: str, rng: random.Random) -> str | None:
    """The text with one number changed or a verb negated; None if it has neither."""
    words = text.split()
    numbers = [at for at, word in enumerate(words) if any(c.isdigit() for c in word)]
    if numbers:
        at = rng.choice(numbers)
        words[at] = "".join(str((int(c) + rng.randint(1, 8)) % 10) if c.isdigit() else c for c in words[at])
        return " ".join(words)
    return next(
        (text.replace(f" {v} ", f" {v} not ", 1) for v in ("is", "can", "will", "are") if f" {v} " in text), None
    )


def near_copies(data: Path, count: int = 2_000) -> dict[str, float]:
    """Planted copies with 1 to 3 words changed, planted changes of a value, and pairs that are neither."""
    rng = random.Random(1)
    units = list(dict.fromkeys(_units(data)))
    units = [unit for unit in rng.sample(units, len(units)) if len(" ".join(unit).split()) >= 10][:count]
    store, found, tagged, offered, false = MemoryCopies(CONFIG), 0, 0, 0, 0
    for at, (question, reply) in enumerate(units):
        unit = Unit(f"u{at}", question, reply)
        seen = store.look([unit])[0]
        # a canned pair that occurs in another chat is a true copy; only unlike words count as false
        false += seen.reason is not None and not _alike(units, seen.cluster, unit)
        store.file(unit, seen, unit.member, "", 0.0)
    for at, (question, reply) in enumerate(units):
        split = rng.randint(0, 1) if len(question.split()) > 4 else 0
        changes = rng.randint(1, 3)
        copy = Unit(f"c{at}", edited(question, split, rng), edited(reply, changes - split, rng))
        found += store.look([copy])[0].reason is not None
        other = changed_value(reply, rng)
        if other is not None and other != reply:
            offered += 1
            against = store.look([Unit(f"v{at}", question, other)])[0]
            tagged += f"u{at}" in against.contradicts
    return {
        "near-copy recall": found / len(units), "near-copy false": false / len(units),
        "contradicts recall": tagged / max(1, offered),
    }  # fmt: skip


def _units(data: Path) -> list[tuple[str, str]]:
    units = []
    for name in ("conv_star", "conv_cucom", "conv_small_retail_it"):
        for held in read(data / f"{name}.jsonl.gz"):
            question = ""
            for turn in held["turns"]:
                if turn["role"] == "customer":
                    question = turn["text"]
                else:
                    units.append((question, turn["text"]))
    return units


def _alike(units: Sequence[tuple[str, str]], member: str, unit: Unit) -> bool:
    """Two thirds of the words in common: a true near copy, by a measure that the store does not use."""
    one = set(" ".join(units[int(member[1:])]).lower().split())
    other = set(f"{unit.question} {unit.reply}".lower().split())
    return len(one & other) * 2 >= len(one | other)


def speed(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Messages a second of CPU time, in batches of 256, without and with near-copy search; best of five rounds."""
    turns = [(row["text"], "agent") for row in rows[:4096]]
    judge_turns(turns[:256], CONFIG)  # type: ignore[arg-type]
    alone, both = [], []
    for _ in range(5):
        begun = time.process_time()
        for start in range(0, len(turns), 256):
            judge_turns(turns[start : start + 256], CONFIG)  # type: ignore[arg-type]
        alone.append(time.process_time() - begun)
        store = MemoryCopies(CONFIG)
        read_signature.cache_clear()  # what is looked up in life is new
        begun = time.process_time()
        for at in range(0, len(turns) - 1, 2):
            unit = Unit(str(at), turns[at][0], turns[at + 1][0])
            store.file(unit, store.look([unit])[0], unit.member, "", 0.0)
        both.append(time.process_time() - begun + alone[-1])
    return {"messages/s": len(turns) / min(alone), "messages/s with near copies": len(turns) / min(both)}


def table(title: str, lines: Sequence[tuple[str, str]]) -> None:
    """Print one table."""
    width = max(len(name) for name, _ in lines)
    sys.stdout.write(f"{title}\n" + "".join(f"  {name:{width}}  {value}\n" for name, value in lines))


def main(argv: list[str]) -> int:
    """Print one table; see the module's docstring."""
    from streams.quality import rebuild  # noqa: PLC0415 - its parser, not its training

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rebuild.arguments(parser, required=False)
    parser.add_argument("--leave-one-out", action="store_true")
    parser.add_argument("--folds", type=int, default=0, help="leave out several sources at once: harder, but quicker")
    Parts.arguments(parser)
    args = parser.parse_args(argv)
    labelled = [row for row in read(args.data / "quality.jsonl.gz") if row["label"] in CLASSES]
    contrast = [{**row, "subtype": "contrast"} for row in read(args.data / "quality_contrast.jsonl.gz")]
    try:
        parts = Parts(args.parts, args.most_s)
        found = (
            leave_one_out(args, labelled + contrast, parts) if args.leave_one_out else judged(labelled + contrast, None)
        )
    except Unfinished:
        sys.stdout.write("unfinished: the same call again goes on\n")
        return 3
    normal = [(row, name) for row, name in found if row["subtype"] != "contrast"]
    lines = [(k, f"{v:.3f}") for k, v in scores([(row["label"], name) for row, name in normal]).items()]
    lines += [(f"contrast {s}", f"{share:.1%}") for s, share in _rejected(found, "contrast").items()]
    lines += [(f"angry {s}", f"{share:.1%}") for s, share in _rejected(found, "angry_customer").items()]
    by_source = Counter((row["label"], row["source"]) for row, _ in normal)
    for key, n in sorted(by_source.items()):
        rejected = sum(name != "good" for row, name in normal if (row["label"], row["source"]) == key)
        lines.append((" ".join(key), f"{rejected}/{n} rejected ({rejected / n:.1%})"))
    if not args.leave_one_out:
        lines += [(k, f"{v:.3%}") for k, v in near_copies(args.data).items()]
        lines += [(k, f"{v:,.0f}") for k, v in speed(labelled).items()]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    left = f"sources left out in {args.folds} folds" if args.folds else "each source left out"
    mode = left if args.leave_one_out else "shipped weights"
    table(f"filter, {mode}; commit {commit.stdout.strip()}, {os.cpu_count()} cores; driftline bench filter", lines)
    return 0


def _rejected(found: Sequence[tuple[dict[str, Any], str]], subtype: str) -> dict[str, float]:
    """Share of good rows rejected, by source, of one subtype."""
    sources = sorted({row["source"] for row, _ in found if row["subtype"] == subtype})
    each = {s: [name for row, name in found if row["source"] == s and row["subtype"] == subtype] for s in sources}
    return {source: sum(name != "good" for name in names) / len(names) for source, names in each.items()}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
