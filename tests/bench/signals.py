"""`driftline bench signals [--data DIR]`: what next turns say of replies, on labels of our own and on weak ones.

Own set: next turns put together from phrases of this file, label by construction; the rules were written before it and
were not changed to fit it. Weak checks (--data): STAR's `resolved` and `user_annoyed`, IRC's thanks proxy; labels that
driftline did not make, about whole conversations.
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
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams.events import Turn
from streams.signals import resolution, signals

REPLY = "You can change the delivery address in your account under My Orders."
LABELS = ("good", "bad", "unknown")
OPENERS = ("", "", "", "Ok. ", "Hmm, ", "Right, ", "Well, ", "Hi again. ", "oh ", "so ", "Alright. ")
PHRASES: dict[str, tuple[str, ...]] = {
    "good": (
        "that did the trick, much appreciated", "Thank you so much for your help today", "worked like a charm, thanks",
        "great, it is working now", "Perfect, I can see it", "you're the best!", "thx a lot", "cheers mate",
        "That's exactly what I needed", "All good now, have a nice day", "awesome, that fixed it", "brilliant, got it",
        "ty!! it finally loads", "I appreciate the quick answer", "that solved my problem", "super helpful, bye",
        "wonderful, I received the mail", "Yes it works fine now", "Excellent service, thank you", "sorted now, thanks",
        "Thanks, found the button", "It's fixed, many thanks", "Thanks for explaining that",
        "perfect thank you very much",
        "Oh I see it now, thank you", "lovely, that helped", "Great, that answers my question", "yay it opened, thanks",
    ),
    "bad": (
        "that didn't work", "No, I said the billing address", "it still shows the same error",
        "this is not what I asked",
        "you are not listening to me", "I already tried that twice", "Can I talk to a real person please",
        "let me speak with your supervisor", "that's wrong, the shop closes at 8", "nope, still broken",
        "this makes no sense at all", "doesn't help, there is no such button", "I told you I have no account",
        "your answer is useless", "it is still not loading", "Still waiting for my refund, nothing happened",
        "No that is a different order", "this is ridiculous, cancel my account", "it made it worse", "not helpful",
        "that's incorrect, I was charged twice", "the link you sent isn't working", "I want to file a complaint",
        "get me a manager", "same problem as before", "you misunderstood, I need the invoice",
        "I can't find that menu anywhere", "but that page does not exist", "why do you keep repeating that",
    ),
    "unknown": (
        "my order number is 48213", "and how long does that take", "On Friday at 3 pm please", "the blue one",
        "What about the second item", "Can you also send me the invoice", "Yes", "ok",
        "john smith", "I bought it in May",
        "It is a laptop, model X200", "Does it cost extra", "two adults and one child", "let me check",
        "I live in Leeds", "the one on Main Street", "how do I do that on my phone",
        "give me a second", "sure, go ahead",
        "Where can I see the total", "one more question, do you ship to Spain",
        "around 20 dollars", "no, just the shoes",
        "I would like to change the date too", "my email is on file", "is there a cheaper one", "Hello, are you there",
        "Windows 10, I think", "it was ordered by my wife", "the light is green",
    ),
}  # fmt: skip


def own_set(count: int, seed: int) -> list[tuple[str, str]]:
    """(next turn, label): a phrase with an opener, sometimes a neutral sentence behind it, typed as people type."""
    rng = random.Random(seed)
    rows = []
    for at in range(count):
        label = LABELS[at % 3]
        text = rng.choice(OPENERS) + rng.choice(PHRASES[label])
        if rng.random() < 0.3:
            text += f". {rng.choice(PHRASES['unknown'])}"
        if rng.random() < 0.25:
            text = text.lower().replace("'", "")
        rows.append((text + rng.choice(("", ".", "!", "")), label))
    return rows


def macro_f1(pairs: Sequence[tuple[str, str]]) -> float:
    """Mean F1 over good, bad and unknown."""
    each = []
    for label in LABELS:
        hit = sum(a == label == b for a, b in pairs)
        each.append(2 * hit / max(1, sum(a == label for a, _ in pairs) + sum(b == label for _, b in pairs)))
    return statistics.mean(each)


def on_own(count: int = 900) -> dict[str, str]:
    """Scores on the own set."""
    rows = own_set(count, seed=11)
    pairs = [(label, signals(REPLY, [Turn(role="customer", text=text)]).label) for text, label in rows]
    lines = {f"own set, {len(rows)} turns ({len(set(rows))} different): macro-F1": f"{macro_f1(pairs):.3f}"}
    for (label, found), n in sorted(Counter((a, b) for a, b in pairs if a != b).items()):
        lines[f"  {label} taken for {found}"] = str(n)
    return lines


def _read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _ending(held: dict[str, Any]) -> float:
    return resolution(
        [Turn(role="customer" if t["role"] == "customer" else "agent", text=t["text"]) for t in held["turns"]]
    )


def area(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Probability that a positive scores above a negative (ties half): 0.5 is chance."""
    above = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return above / max(1, len(positive) * len(negative))


def weak(data: Path) -> dict[str, str]:
    """How well signals rank conversations by labels that others made."""
    lines = {}
    # the words of `resolution` were chosen on the even half of STAR
    star = [held for at, held in enumerate(_read(data / "conv_star.jsonl.gz")) if at % 2]
    for name, held, label, good in (
        ("STAR (odd half)", star, "resolved", True),
        ("STAR (odd half)", star, "user_annoyed", False),
        ("STAR (odd half)", star, "rating", 1),
        ("IRC", _read(data / "conv_irc_ubuntu.jsonl.gz"), "gratitude_proxy_resolved", True),
    ):
        scored = [(h["labels"][label] == good, _ending(h)) for h in held if h["labels"].get(label) is not None]
        yes, no = [score for value, score in scored if value], [score for value, score in scored if not value]
        lines[f"{name} {label} ({len(yes)} : {len(no)}), AUC"] = f"{area(yes, no):.3f}"
    return lines


def main(argv: list[str]) -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    args = parser.parse_args(argv)
    lines = {**on_own(), **(weak(args.data) if args.data else {})}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    width = max(map(len, lines))
    sys.stdout.write(f"signals; commit {commit.stdout.strip()}, {os.cpu_count()} cores; driftline bench signals\n")
    sys.stdout.writelines(f"  {name:{width}}  {value}\n" for name, value in lines.items())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
