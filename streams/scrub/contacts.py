"""E-mail addresses, plain, damaged and obfuscated, and social handles."""

from __future__ import annotations

import re

from streams.scrub.lexicon import OFTEN, lexicon
from streams.scrub.spans import Overflow, Span

_PROVIDERS = (
    "gmail|googlemail|yahoo|ymail|hotmail|outlook|icloud|aol|gmx|web|protonmail|proton|live|msn|mail|rediffmail|naver|"
    "yandex|qq|orange|libero|btinternet|comcast|verizon|zoho|fastmail|me|seznam|wanadoo|laposte|terra|uol|bol|wp|onet|"
    "tutanota|posteo|inbox|ukr|abv|centrum|sfr|free|telia|hushmail|daum|sina|foxmail"
)
_SAFE_TOPS = (
    "com|net|org|edu|gov|de|fr|es|uk|co|nl|ch|pl|ru|eu|io|dk|fi|pt|br|mx|ar|ca|au|nz|jp|cn|biz|dev|app|info|cz|sk|hu|ro|"
    "hr|si|rs|ba|bg|ua|by|kz|lt|lv|ee|gr|tr|il|ae|sa|eg|ma|tn|dz|ng|ke|gh|za|tz|ug|cl|pe|ve|ec|uy|py|cr|gt|kr|tw|hk|"
    "sg|my|th|vn|ph|id|pk|bd|lk|np|ir|iq|ie|lu|mt|cy|al|mk|md|ge|am|az|uz|xyz|online|shop|store|site|club|cloud|ai|tv"
)
_TOPS = f"{_SAFE_TOPS}|it|be|at|in|us|me|se|no|is|so"
_AT = (
    r"(?: ?[\[({<|\x01\x02] ?(?:at|@|arroba|a) ?[\])}>|\x01\x02] ?|[ _.\-](?:at|arroba|chez|affe|klammeraffe|malpa|"
    r"kukac|"
    r"zavinac|chiocciola|apenstaartje)[ _.\-]| (?:the )?at(?: the rate| sign| symbol)? )"
)
_DOT = (
    r"(?: ?[\[({<|] ?(?:dot|\.|punkt|punto|point|ponto|d0t) ?[\])}>|] ?|"
    r"[ _\-](?:dot|punkt|punto|point|ponto|kropka|tacka|tecka|pont|nokta|titik|piste|d0t)[ _\-]| ?\. ?)"
)
_WORD = r"[a-z0-9_+\-]{1,40}"
OPENING = "[({<|\x01\x02"
"""What may open a bracket around an at-word."""
_BRACKETS = r"[\[({<|\x01\x02] ?(?:at|@|arroba|a) ?[\])}>|\x01\x02]"
_AT_WORD = re.compile(
    rf" ?{_BRACKETS} ?|[ _.\-](?:at|arroba|chez|affe|klammeraffe|malpa|kukac|zavinac|chiocciola|apenstaartje)"
    r"(?: the rate| sign| symbol)?[ _.\-]"
)
_BRACKETED = re.compile(_BRACKETS)
_BEHIND_AT = re.compile(
    rf"(?:{_WORD}?{_DOT}){{0,3}}{_WORD}?{_DOT}(?:{_TOPS})(?![a-z0-9])|"
    rf"(?:{_PROVIDERS})(?: ?(?:{_SAFE_TOPS}))?(?![a-z0-9])"
)
_BEHIND_BRACKETS = re.compile(rf"(?:{_WORD}\.){{1,3}}[a-z]{{2,24}}")
_BEFORE_AT = re.compile(rf"(?<![a-z0-9_+.\-])(?:{_WORD}?{_DOT}){{0,3}}{_WORD}?$")
AT_WORDS = frozenset(
    {"at", "arroba", "chez", "affe", "klammeraffe", "malpa", "kukac", "zavinac", "chiocciola", "apenstaartje"}
)
"""Words that stand for the sign."""
_AMBIGUOUS = frozenset(
    "me in it at us is so no be live web mail free orange terra club site online shop store app am as pe my al ma th "
    "si "
    "id il ba".split()
)
DOMAIN_WORDS = (
    frozenset({"dot", "punkt", "punto", "point", "ponto", "d0t", *_PROVIDERS.split("|"), *_TOPS.split("|")})
    - _AMBIGUOUS
)
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
_HANDLE = re.compile(r"@(?<![A-Za-z0-9._%+@/\-]@)[A-Za-z_][A-Za-z0-9_.]{2,29}")
_REACH = 80
"""Characters around an at-word in which an obfuscated address may lie; bounds the work per at-word."""

_RUN_OF_SIGNS = re.compile("@+")
MAX_SIGNS = 256
"""Signs of addresses in one turn; more are a flood."""
MAX_ADDRESSES = 64
"""At-words looked at in one turn; more are a flood."""


def find_email(text: str) -> list[Span]:
    """Spans of addresses with an `@`: whole ones, spaced ones and damaged ones."""
    found: list[Span] = []
    at = text.find("@")
    last = signs = 0
    while at >= 0:
        signs += 1
        if signs > MAX_SIGNS:
            raise Overflow
        span = _around(text, at, last)
        if span is not None:
            found.append((*span, "EMAIL"))
            last = span[1]
        at = text.find("@", max(at + 1, last))
        if at >= 0 and text.startswith("@@@", at):  # a run of signs is no address
            at = _RUN_OF_SIGNS.match(text, at).end() - 1  # type: ignore[union-attr] # it starts with three
    return found


def _around(text: str, at: int, floor: int) -> tuple[int, int] | None:
    """The address that surrounds the `@` at `at`, nothing of it before `floor`."""
    start = at
    gap = 1 if at > floor and text[at - 1] == " " else 0
    start = at - gap
    while start > floor and at - start < 66 and (text[start - 1].isalnum() or text[start - 1] in "._%+'-"):
        start -= 1
    while gap and start > floor + 3 and text[start - 3 : start] == " . ":
        part = _LOCAL_PART.search(text, max(floor, start - 43), start - 3)
        if part is None:
            break
        start = part.start()
    end = _domain_end(text, at + 1)
    if start == at - gap or end == at + 1:
        return None
    if gap and "." not in text[at:end]:
        return None
    while text[start] in ".'-%" and start < at:
        start += 1
    return (start, end) if start < at - gap else None


_LOCAL_PART = re.compile(r"(?<![A-Za-z0-9_+'\-])[A-Za-z0-9_+'\-]{1,40}$")
"""A part of an address whose dots stand between spaces."""
_DOMAIN = re.compile(
    r" ?[A-Za-z0-9\-]{1,63}(?:(?:\.{1,2}| \. ?|\. (?=(?:com|net|org|co|de|fr|es|it)\b)|"
    r",(?=(?:com|net|org|de|fr|co|me|cz|pl|ru)\b))[A-Za-z0-9\-]{1,63}){0,6}"
)


def _domain_end(text: str, at: int) -> int:
    match = _DOMAIN.match(text, at)
    if not match:
        return at
    return at + len(match[0].rstrip("-"))


def is_bracketed(lower: str) -> bool:
    """Whether a text holds a bracketed at-word, which needs no known domain behind it."""
    return bool(_BRACKETED.search(lower))


def find_obfuscated(lower: str) -> list[Span]:
    """Spans of addresses spelled out, with evidence of a domain behind the at-word."""
    found: list[Span] = []
    for count, at_word in enumerate(_AT_WORD.finditer(lower)):
        if count >= MAX_ADDRESSES:
            raise Overflow
        domain = _BEHIND_AT.match(lower, at_word.end())
        if domain is None and _BRACKETED.search(at_word[0]):
            domain = _BEHIND_BRACKETS.match(lower, at_word.end())
        if domain is None:
            continue
        floor = max(found[-1][1] if found else 0, at_word.start() - _REACH)
        local = _BEFORE_AT.search(lower[floor : at_word.start()])
        if local and local[0] and not _is_place(lower[floor + local.start() : domain.end()]):
            found.append((floor + local.start(), domain.end(), "EMAIL"))
    return found


def _is_place(match: str) -> bool:
    """Whether an ordinary word in front of a plain "at" says that somebody is there ("she is at gmail")."""
    before, _, behind = match.partition(" at ")
    return bool(behind) and " " not in behind.strip() and bool(lexicon().get(before, 0) & OFTEN)


def find_squashed(lower: str) -> list[Span]:
    """Spans of addresses whose signs were stripped: "annleegmailcom"."""
    return [(*m.span(), "EMAIL") for m in _SQUASHED.finditer(lower)]


def find_handles(text: str) -> list[Span]:
    """Spans of `@name` handles."""
    return [(*m.span(), "USERNAME") for m in _HANDLE.finditer(text)]
