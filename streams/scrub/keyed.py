"""Values behind a key word: order, account and policy numbers, national ids, codes, birth dates, user names.

A key word opens its class of value; a few filler words ("number is", "ending in", ":") may stand between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from streams.scrub.keywords import CODED, KEYS, NEEDED, Key
from streams.scrub.lexicon import COMMON, lexicon
from streams.scrub.spans import Overflow, Span

_FILLER = re.compile(
    r"(?:'s\b)?(?:[ \t]{0,3}(?:[#:=,\-.?]{1,2}|\b(?:numbers?|num|nr|no|nos|id|ids|code|card|account|is|was|are|its|"
    r"it's|it is|"
    r"date|until|thru|through|name|reference|ref|il|op|den|dne|flyer|back|tarihi|texted|told|gave|mailed|said|"
    r"full one is|should|be|changed|file|record|profile|system|still|hat|"
    r"the|my|your|his|her|our|for|of|to|on|with|as|"
    r"ending|ends|ended|am|at|you|we|sent|i|got|received|security|insurance|that|says|reads|in|last|"
    r"four|(?<=st )4|digits?|"
    r"digit|under|here|and it's|called|named|set|now|actually|ist|es|est|son|e|lautet|meine?|mi|mon|ma|la|le|el|"
    r"der|die|das|de|du|"
    r"numero|nummer|nomor|numer|sono|sind|mein)\b)){0,8}[ \t]{0,3}\n?[ \t]{0,3}"
)
_TOKEN = re.compile(r"[#]?[A-Za-z0-9](?:[A-Za-z0-9]|[\-_/.](?=[A-Za-z0-9])){0,40}")
_GAP = re.compile(r"[ \-]{1,2}")
DATE = re.compile(
    r"\d{1,4} ?[-/. ] ?\d{1,2} ?[-/. ] ?\d{1,4}|\d{1,2}(?:st|nd|rd|"
    r"th)?[ .\-/]{0,2}(?:of |de |di )?[A-Za-z]{3,10}(?: de| del)?[ .,\-/]{1,3}'?\d{2,4}"
    r"|[A-Za-z]{3,10}[ .\-]{1,2}\d{1,2}(?:st|nd|rd|th)?[ ,.\-]{1,3}'?\d{2,4}|\d{6}|\d{8}|(?:19|20)\d\d"
)
_LOGIN = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9._\-@+]{2,39}")
_CODE = re.compile(
    r"[A-Za-z]-\d{4,8}|\d{4} ?[A-Z]{2}(?![A-Za-z])|\d{2,4}[ \-]\d{2,4}|\d{3,10}|(?=[A-Za-z]{0,7}\d)[A-Za-z0-9]{4,10}"
)
_EXPIRY = re.compile(r"\d{1,2} ?[/\-. ] ?(?:20)?\d{2}(?!\d)")

_STOP = frozenset(
    "a an and or the is was are am be to of in on at it i you he she we they for with from by as if so but not no "
    "yes my your his her our "
    "has have had can could will would please thanks thank hi hello which that this there here when where why how "
    "what who do does did "
    "card phone number email mail name order account address password ssn zip code dob born date und et y con pour "
    "fur mit box".split()
)


_DIGIT = re.compile("[0-9]")
_BACK = re.compile(r"back$")
_ON_THE = re.compile(r"\b(?:on|auf|at) (?:the|its|der) back$")
"""Where a security code stands; "back" alone is a word like any other."""
_REACH = 64
"""Characters behind a key word within which its value begins."""

_MIN_DIGITS = 3
"""Fewer digits are a quantity."""
_DAYS = re.compile(r"\d{1,2}(?:st|nd|rd|th)(?:[-/]\d{1,2}(?:st|nd|rd|th)?)?|\d{1,2}-\d{1,2}")
"""A day, or a span of days: no id."""
_NUMBERED = re.compile(r"\b(?:id|ids|number|num|no|nr|nummer|numero|code|plate)\b|[#:]")
"""Behind these words an id may have few digits ("customer id ACC-FWHXX1")."""
_MIXED_LENGTH = 6
_TAIL_LETTERS, _GROUP_LETTERS = 3, 4
_OTP_LENGTH = 4
"""Shorter codes are those of errors and areas."""
_VOUCHER = re.compile(r"[A-Za-z]{4,}\d{1,2}")
"""A word and a small number: a discount, no code that a machine made."""
_OTHER_CODES = re.compile(
    r"\b(?:error|promo\w*|coupon|discount|status|area|country|product|qr|bar|source|dress|gate|voucher|gift|exit|"
    r"response) code(?: is)? ?$|\b(?:error|promo\w*|coupon|discount|status|area|country|product|qr|bar|source|"
    r"dress|voucher|gift|exit|response) $"
)
"""What makes a code no one-time code."""

MAX_KEYS = 200
"""Times that one key word is looked at in one turn; beyond that a turn is a flood."""


def find_keyed(text: str, lower: str, fired: Mapping[str, str]) -> list[Span]:
    """Spans of the values that key words announce; `fired`: word as typed -> key word meant."""
    found: list[Span] = []
    for word, meant in fired.items():
        keys = KEYS[meant]
        at = lower.find(word)
        seen = 0
        while at >= 0:
            if seen >= MAX_KEYS:
                raise Overflow
            end = at + len(word)
            if not (lower[at - 1 : at].isalnum() or lower[end : end + 1].isalnum()):
                seen += 1
                found += _value_before(lower, at, keys[0])
                if (
                    keys[0].kind != "login"
                    and not _DIGIT.search(text, end, end + _REACH)
                    and not (meant in CODED and LETTERS_ONLY.search(text, end, end + _REACH))
                ):
                    at = lower.find(word, end)
                    continue
                begin = _FILLER.match(lower, end)
                value = end if begin is None else begin.end()
                for key in keys:
                    span = _value(text, lower, value, end, key)
                    if span:
                        found.append(span)
                        break
            at = lower.find(word, end)
    return found


def _value_before(lower: str, at: int, key: Key) -> list[Span]:
    """A value that stands before its key word: "BN1 4LP is my postcode", "got 4410 as verification code"."""
    floor = max(0, at - _BEFORE_REACH)
    if key.kind not in _FIRST_KINDS or not _DIGIT.search(lower, floor, at):
        return []
    owned = not _OWNERS.isdisjoint(lower[floor:at].rsplit(" ", _OWNED)[1:])
    match = (_VALUE_FIRST.search(lower, floor, at) if owned else None) or (
        _CODE_FIRST.search(lower, floor, at) if key.label == "OTP" else None
    )
    return [(*match.span(1), key.label)] if match else []


_FIRST_KINDS = frozenset({"id", "code"})
_BEFORE_REACH = 48
"""Characters before a key word within which its value stands."""
_VALUE_FIRST = re.compile(
    r"(?<![\w.$/:-])([a-z]{0,4}-?\d[a-z\d-]{3,15}|\d{2,4}[ -]\d{2,4}|\d{4} [a-z]{2}|[a-z]{1,2}\d[a-z\d]? \d[a-z]{2})"
    r"(?:'s| is| was| being| as|,? (?:it's|that's|thats|that is)|:| =| -|,) (?:the|my|our|your|his|her|a)"
    r"(?: [a-z]{1,12}){0,2} $"
)
_OWNERS = frozenset("the my our your his her a".split())
_OWNED = 4
"""Words of its end within which, the space before the key word counted, one of those stands."""
_CODE_FIRST = re.compile(
    r"([0-9](?<![\w.$/:-][0-9])(?:\d{3,7}|\d{2}[ -]\d{3}))(?![\w%$/:]|\.\d) (?:[a-z'-]{1,10} ){0,4}$"
)


def _value(text: str, lower: str, at: int, floor: int, key: Key) -> Span | None:
    """The value of `key`'s grammar at `at`, None when what stands there is no such value."""
    if key.kind == "id":
        named = key.label == "VEHICLE" or _NUMBERED.search(lower, floor, at)
        end = take_id(text, at, 1 if named else _MIN_DIGITS)
        if end == at and key.label in {"ORDER_ID", "ACCOUNT_ID"}:
            end = _letters_only(text, at, named=bool(named))
        return (at, end, key.label) if end > at else None
    if (
        key.label == "CARD_SEC"
        and _BACK.search(lower, max(0, floor - 4), floor)
        and not _ON_THE.search(lower, max(0, floor - 32), floor)
    ):
        return None
    needed = NEEDED.get(lower[max(0, floor - 8) : floor].rpartition(" ")[2])
    if needed and needed not in lower[floor:at]:
        return None
    if key.label == "OTP" and _OTHER_CODES.search(lower, max(0, floor - 32), floor):
        return None
    pattern = {"code": _CODE, "date": DATE, "expiry": _EXPIRY, "login": _LOGIN}[key.kind]
    match = pattern.match(text, at)
    if not match or text[match.end() : match.end() + 1].isalnum():
        return None
    if key.kind == "code" and _VOUCHER.fullmatch(match[0]):
        return None
    if key.label == "OTP" and len(match[0]) < _OTP_LENGTH:
        return None
    if key.kind == "login" and not _is_login(match[0], text[floor:at], lower[max(0, floor - 16) : floor]):
        return None
    return (at, match.end(), key.label)


def _is_login(value: str, between: str, before: str) -> bool:
    """A login has a form of its own, or is no ordinary word and stands behind `is`, a colon or the very word for it."""
    if any(c.isdigit() or c in "_@." for c in value.rstrip(".")) or _is_camel(value):
        return True
    if re.search(r"[:=]|\bis\b", between):
        return value.lower() not in _STOP
    return before.endswith(_NAMES_OF_LOGINS) and not lexicon().get(value.lower(), 0) & COMMON


def _is_camel(value: str) -> bool:
    """Whether a word has capitals behind its first letter, and is not simply shouted."""
    return value[1:] != value[1:].lower() and not value.isupper()


LETTERS_ONLY = re.compile(r"[A-Z](?<![A-Za-z][A-Z])[A-Z]{4,7}(?![A-Za-z])")
_CODE_LETTERS = re.compile(r"[A-Za-z]{5,8}(?:[0-9]{1,2})?(?![A-Za-z0-9'\-])")
"""Of an airline's booking, or with the two digits that are too few for any other id."""


def _letters_only(text: str, at: int, *, named: bool) -> int:
    """Where a code of letters that is no word ends; in small letters only behind "number" or "code"."""
    match = _CODE_LETTERS.match(text, at)
    if not match or lexicon().get(match[0].lower()) or not (match[0].isupper() or (named and match[0].islower())):
        return at
    return match.end()


_NAMES_OF_LOGINS = ("username", "user-name", "benutzername", "nutzername", "usuario", "screenname", "gamertag")


def take_id(text: str, at: int, min_digits: int) -> int:
    """Where an id that starts at `at` ends: tokens with digits, and short letter groups beside them; `at` if none."""
    end = last = at
    digits = 0
    for _ in range(8):
        token = _TOKEN.match(text, last)
        if not token:
            break
        word = token[0]
        if token.start() == at and _DAYS.fullmatch(word):
            break
        count = sum(c.isdigit() for c in word)
        if not count and not _is_letter_group(text, token, behind=bool(digits)):
            break
        if digits >= _MIN_DIGITS and count and end > at and not _grouped(text[at:end], word):
            break
        digits += count
        last = token.end()
        if count or digits:
            end = last
        gap = _GAP.match(text, last)
        if not gap:
            break
        last = gap.end()
    mixed = end - at >= _MIXED_LENGTH and not text[at:end].isdigit()
    return end if digits >= (min_digits if mixed else _MIN_DIGITS) else at


def _is_letter_group(text: str, token: re.Match[str], *, behind: bool) -> bool:
    """Letters of an id: up to four before digits, or up to three capitals behind them ("AB 76 48 69 C")."""
    word = token[0]
    if behind and (word.isupper() or (len(word) == 1 and word not in "aio")) and len(word) <= _TAIL_LETTERS:
        return True
    return len(word) <= _GROUP_LETTERS and word.lower() not in _STOP and _digit_follows(text, token.end())


def _digit_follows(text: str, at: int) -> bool:
    gap = _GAP.match(text, at)
    return gap is not None and text[gap.end() : gap.end() + 1].isdigit()


def _grouped(before: str, word: str) -> bool:
    """Whether another group belongs to the same id: groups of up to six characters, not a new word."""
    return len(word) <= 6 and len(before.rsplit(maxsplit=1)[-1]) <= 6
