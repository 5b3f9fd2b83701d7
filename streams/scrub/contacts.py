"""E-mail addresses, plain, damaged and obfuscated, and social handles."""

from __future__ import annotations

import re

from streams.scrub.spans import Overflow, Span

_PROVIDERS = (
    "gmail|googlemail|yahoo|ymail|hotmail|outlook|icloud|aol|gmx|web|protonmail|proton|live|msn|mail|"
    "yandex|qq|orange|libero|btinternet|comcast|verizon|zoho|fastmail|me"
)
_TOPS = (
    "com|net|org|edu|gov|de|fr|es|it|uk|co|nl|be|ch|at|pl|ru|in|us|io|eu|me|info|se|no|dk|fi|pt|br|mx|ar|"
    "ca|au|nz|jp|cn|biz|dev|app"
)
_AT = r"(?: ?[\[({<] ?(?:at|@) ?[\])}>] ?| (?:at|arroba|chez|(?:the )?at sign) )"
_DOT = r"(?: ?[\[({<] ?(?:dot|\.|punkt|punto|point) ?[\])}>] ?| (?:dot|punkt|punto|point) | ?\. ?)"
_WORD = r"[a-z0-9_+\-]{1,32}"
_OBFUSCATED = re.compile(
    rf"(?<![a-z0-9_+.\-])(?:{_WORD}{_DOT}){{0,3}}{_WORD}{_AT}(?:(?:{_WORD}{_DOT}){{0,2}}{_WORD}{_DOT}(?:{_TOPS})(?![a-z0-9])"
    rf"|(?:{_PROVIDERS})(?: ?(?:{_TOPS}))?(?![a-z0-9]))"
)
_AT_WORD = re.compile(r"(?:[\[({<] ?(?:at|@) ?[\])}>]| (?:at|arroba|chez|at sign) )")
DOMAIN_WORDS = frozenset({"dot", "punkt", "punto", "point", *_PROVIDERS.split("|"), *_TOPS.split("|")}) - {
    "me",
    "in",
    "it",
    "at",
    "us",
    "live",
    "web",
    "mail",
    "no",
    "be",
    "ch",
}
"""Words without one of which no spelled-out address has a domain."""

SQUASHED = (
    "gmailcom",
    "yahoocom",
    "hotmailcom",
    "outlookcom",
    "icloudcom",
    "gmailde",
    "gmailfr",
    "yahoocouk",
    "yahoofr",
    "yahooin",
    "hotmailfr",
    "hotmailcouk",
    "yahooes",
    "gmailes",
)
_SQUASHED = re.compile(
    r"(?<![a-z0-9])[a-z0-9]{2,32}(?:gmail|yahoo|hotmail|outlook|icloud)(?:com|couk|fr|de|in|es)(?![a-z0-9])"
)
_HANDLE = re.compile(r"(?<![A-Za-z0-9._%+@/\-])@[A-Za-z_][A-Za-z0-9_.]{2,29}")
_REACH = 110
"""Characters around an at-word in which an obfuscated address may lie; bounds the work per at-word."""

MAX_ADDRESSES = 64
"""At-words looked at in one turn; more are a flood."""


def find_email(text: str) -> list[Span]:
    """Spans of addresses with an `@`: whole ones, spaced ones and damaged ones."""
    found: list[Span] = []
    at = text.find("@")
    last = 0
    while at >= 0:
        span = _around(text, at, last)
        if span is not None:
            found.append((*span, "EMAIL"))
            last = span[1]
        at = text.find("@", max(at + 1, last))
    return found


def _around(text: str, at: int, floor: int) -> tuple[int, int] | None:
    """The address that surrounds the `@` at `at`, nothing of it before `floor`."""
    start = at
    gap = 1 if at > floor and text[at - 1] == " " else 0
    start = at - gap
    while start > floor and at - start < 66 and (text[start - 1].isalnum() or text[start - 1] in "._%+'-"):
        start -= 1
    end = _domain_end(text, at + 1)
    if start == at - gap or end == at + 1:
        return None
    if gap and "." not in text[at:end]:
        return None
    while text[start] in ".'-%" and start < at:
        start += 1
    return (start, end) if start < at - gap else None


_DOMAIN = re.compile(
    r" ?[A-Za-z0-9\-]{1,63}(?:(?:\.{1,2}| \. ?|\. (?=(?:com|net|org|co|de|fr|es|it)\b)|"
    r",(?=com\b))[A-Za-z0-9\-]{1,63}){0,6}"
)


def _domain_end(text: str, at: int) -> int:
    match = _DOMAIN.match(text, at)
    if not match:
        return at
    return at + len(match[0].rstrip("-"))


def find_obfuscated(lower: str) -> list[Span]:
    """Spans of addresses spelled out, with evidence of a domain beside the at-word."""
    found: list[Span] = []
    for count, at_word in enumerate(_AT_WORD.finditer(lower)):
        if count >= MAX_ADDRESSES:
            raise Overflow
        low = max(found[-1][1] if found else 0, at_word.start() - _REACH)
        window = lower[low : at_word.end() + _REACH]
        for match in _OBFUSCATED.finditer(window):
            if match.start() + low <= at_word.start() < match.end() + low:
                found.append((match.start() + low, match.end() + low, "EMAIL"))
                break
    return found


def find_squashed(lower: str) -> list[Span]:
    """Spans of addresses whose signs were stripped: "annleegmailcom"."""
    return [(*m.span(), "EMAIL") for m in _SQUASHED.finditer(lower)]


def find_handles(text: str) -> list[Span]:
    """Spans of `@name` handles."""
    return [(*m.span(), "USERNAME") for m in _HANDLE.finditer(text)]
