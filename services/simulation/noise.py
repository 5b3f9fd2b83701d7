"""What support inboxes get besides customers: spam, gibberish, insults, machine output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from services.simulation.draw import chance, pick
from services.simulation.grammar import compiled, expand
from services.simulation.style import Parts

SPAM = (
    "(Congratulations|Good news|WINNER)! You (won|have been selected for) a {n}00 euro voucher. Claim now at {link}",
    "(Cheap|Best) (watches|pills|loans|followers), {n}0% off (today only|this week)! Visit {link}",
    "Earn {n}000 a week from home, no experience. Message (me|us) on {link} (now|today)!!!",
    "Your (parcel|account|tax refund) is on hold. Confirm your details at {link} (within 24 hours|or lose it)",
    "Hot crypto tip: this coin goes {n}0x, join the group {link}",
    "We offer SEO and backlinks for your shop, first page (guaranteed|in {n} days). Write to {link}",
    "FREE ringtone! Text GO to {n}4{n}55 to (stop|win). Terms at {link}",
)
LOGS = (
    "2026-0{n}-1{n} 0{n}:12:5{n} ERROR worker.{n} queue=mail code=50{n} retry={n} msg=timeout",
    "GET /api/v{n}/orders/{n}{n}{n} HTTP/1.1 50{n} {n}{n}ms upstream=10.0.0.{n}",
    'Traceback (most recent call last): File "job.py", line {n}{n}, in run raise ValueError',
    "[kernel] CPU{n}: temperature above threshold, cpu clock throttled (total events = {n}{n}{n})",
    "{n}.{n} 64 bytes from 10.0.{n}.{n}: icmp_seq={n} ttl=5{n} time={n}.{n} ms",
)
INSULTS = (
    "You (stupid|worthless|pathetic) (idiot|moron|clown), (shut up|get lost) and never write again.",
    "People like you (make me sick|are garbage), (go away|nobody wants you here).",
    "What a (brainless|dumb) (loser|fool) you are, I (hate you|hope you suffer).",
)
AUTO = (
    "(Automatic reply|Out of office): I am away until (Monday|Friday|the {n}th) with limited access to e-mail.",
    "This mailbox is not monitored. Please do not reply to this message.",
    "Unsubscribe - View in browser - You receive this newsletter because you signed up. {link}",
)


def spam(rng: Random) -> str:
    """Advertising or phishing."""
    return _drawn(SPAM, rng)


def insult(rng: Random) -> str:
    """Abuse, mild in its words."""
    return _drawn(INSULTS, rng)


def machine(rng: Random) -> str:
    """Log lines or an automatic reply."""
    if chance(rng, 0.4):  # the share of mail robots
        return _drawn(AUTO, rng)
    line = pick(rng, LOGS)
    return "\n".join(_numbered(line, rng) for _ in range(2 + int(rng.random() * 4)))


def gibberish(rng: Random) -> str:
    """Keys hit at random, or one syllable over and over."""
    if chance(rng, 0.3):  # the share of repeaters
        return _letters(rng, 3) * (4 + int(rng.random() * 8))
    return " ".join(_letters(rng, 3 + int(rng.random() * 9)) for _ in range(1 + int(rng.random() * 6)))


KINDS: Mapping[str, Callable[[Random], str]] = {
    "spam": spam, "gibberish": gibberish, "toxic": insult, "non_dialogue": machine,
}  # fmt: skip
"""Label of quality filters -> generator."""


def _letters(rng: Random, length: int) -> str:
    return "".join(pick(rng, "bcdfghjklmnpqrstvwxzaeiou") for _ in range(length))


def _numbered(line: str, rng: Random) -> str:
    head, *rest = line.split("{n}")
    return head + "".join(f"{1 + int(rng.random() * 9)}{part}" for part in rest)


def _drawn(lines: tuple[str, ...], rng: Random) -> str:
    parts: Parts = []
    expand(compiled(pick(rng, lines)), {}, rng, parts)
    link = f"http://{_letters(rng, 7)}.example/{_letters(rng, 4)}"
    return "".join(
        part if isinstance(part, str) else link if part.name == "link" else str(1 + int(rng.random() * 9))
        for part in parts
    )
