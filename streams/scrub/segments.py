"""Postal addresses without a grammar: a stretch of numbers and names that holds evidence enough of being one.

addresses.py knows how streets are written; this module knows only what addresses everywhere are made of (numbers,
names, units, codes, commas) and adds up what speaks for one: a word for street in any language, a flat or floor,
a postal code beside a town, words that lead to an address. Each token is looked at a bounded number of times.
"""

from __future__ import annotations

from streams.scrub.address_tokens import CAPITAL, JOINER, JOINERS, MEMBER, NUMBER, PART, SHORT, SMALL, Token
from streams.scrub.lexicon import OFTEN
from streams.scrub.spans import Span
from streams.scrub.streets import COMPOUNDS, DETAILS, LEAD_PAIRS, LEAD_VERBS, LEADS, PARTICLES, STRONG, WAYS

ENOUGH = 2
"""Evidence from which a stretch is an address."""
LONGEST = 48
"""Tokens of the longest stretch; a longer one is cut."""
LONG_NUMBER = 10
"""Digits in a row that no address has."""
_ARTICLES = frozenset("am im an in zum zur auf oude nieuwe alte neue old new great upper lower little san st".split())
"""What a street's name may begin with, in capitals."""
_TALK = frozenset(
    "i please pls thanks thank hi hello hey and but my the is it we you he she they so or if when why how what where "
    "kindly sorry ok okay yes no can could would will do not order call let".split()
)
"""Words that begin a new sentence, full stop or not."""
_TOWARDS = frozenset("to at in from near an in bei nach a au en em na op till til ke di la".split())


def find_segments(tokens: list[Token]) -> list[Span]:
    """Spans of the stretches that are addresses."""
    kinds = [t.kind for t in tokens]
    numbers = [i for i, kind in enumerate(kinds) if kind & NUMBER]
    if not numbers:
        return []
    small = len([kind for kind in kinds if kind & CAPITAL]) < 1 + len(numbers) // 4
    member = MEMBER | SMALL if small else MEMBER
    found: list[Span] = []
    floor = 0
    for at in numbers:
        if at < floor:
            continue
        first = at
        while first > floor and at - first < LONGEST and _joins_left(tokens, first - 1, member):
            first -= 1
        while first < at and kinds[first] & JOINER:
            first += 1
        end = _end(tokens, at, member)
        span = _judge(tokens, first, end)
        if span:
            found.append(span)
        floor = max(end, at + 1)
    return found


def _joins_left(tokens: list[Token], i: int, member: int) -> bool:
    """Whether a token in front of a stretch is part of it."""
    kind = tokens[i].kind
    if tokens[i].text == "." and i > 0 and _ends_sentence(tokens, i):
        return False
    if tokens[i].text == ":" and i > 0 and tokens[i - 1].kind & PART:  # "No:77"
        return True
    return bool(kind & member) or (bool(kind & PART) and i > 0 and _touches_number(tokens, i))


def _end(tokens: list[Token], at: int, member: int) -> int:
    """One past the last token of the stretch whose first number stands at `at`."""
    end = at + 1
    while end < len(tokens) and end - at < LONGEST:
        token = tokens[end]
        if not (
            token.kind & member
            or (token.text == ":" and tokens[end - 1].kind & PART)
            or (token.kind & CAPITAL and token.lower not in _TALK)
            or (token.kind & PART and _touches_number(tokens, end))
        ):
            break
        if token.text == "." and _ends_sentence(tokens, end):
            break
        end += 1
    while end > at and tokens[end - 1].kind & JOINER:
        end -= 1
    while end > at and tokens[end - 1].lower in PARTICLES and not tokens[end - 1].kind & CAPITAL:
        end -= 1
    return end


def _touches_number(tokens: list[Token], i: int) -> bool:
    """Whether a number stands behind a token, its full stop aside, or in front of it."""
    after = i + 2 if i + 1 < len(tokens) and tokens[i + 1].text == "." else i + 1
    return bool(tokens[i - 1].kind & NUMBER or (after < len(tokens) and tokens[after].kind & NUMBER))


def _ends_sentence(tokens: list[Token], at: int) -> bool:
    """Whether a full stop behind a long word ends a sentence and no abbreviation or number."""
    before = tokens[at - 1]
    abbreviated = bool(before.kind & PART) or before.lower.endswith(COMPOUNDS)
    return before.text[0].isalpha() and len(before.text) > SHORT - 1 and not abbreviated


def _judge(tokens: list[Token], first: int, end: int) -> Span | None:
    """The address in a stretch, None if too little speaks for one."""
    numbers = [i for i in range(first, end) if _is_plain_number(tokens, i)]
    if not numbers or _is_long_number(tokens, numbers):
        return None
    named = [i for i in range(first, end) if _is_named(tokens[i])]
    ways = [i for i in range(first, end) if _is_way(tokens, i, first, end)]
    if not named and not ways:
        return None
    lead = _lead(tokens, first)
    code = any(_is_code(tokens, i, first, end) for i in numbers)
    units = any(
        tokens[i].lower in DETAILS and i + 1 < end and _next_is_number(tokens, i, end) for i in range(first, end)
    )
    cut = any(tokens[i].text == "," or tokens[i].text[0] == "\n" for i in range(first, end))
    evidence = 2 * bool(ways) + 2 * (lead > 1) + (lead == 1 and len(named) > 1) + units
    evidence += (code and len(numbers) > 1 and bool(named)) * (1 + (cut or len(named) > 2))
    evidence += len(numbers) > 1 and cut and len(named) > 1
    if evidence < ENOUGH:
        return None
    begin = first if lead > 1 else min([*_starts(tokens, first, numbers[0]), *(i for i in ways if i >= first)])
    if begin > 0 and tokens[begin - 1].lower in _ARTICLES and tokens[begin - 1].kind & CAPITAL:
        begin -= 1
    return tokens[begin].start, tokens[end - 1].end, "ADDRESS"


def _is_long_number(tokens: list[Token], numbers: list[int]) -> bool:
    """Whether numbers side by side have the digits of a phone number."""
    run, last = 0, -9
    for i in numbers:
        run = (run if i == last + 1 else 0) + sum(c.isdigit() for c in tokens[i].text)
        last = i
        if run >= LONG_NUMBER:
            return True
    return False


def _starts(tokens: list[Token], first: int, number: int) -> list[int]:
    """Where an address whose first number stands at `number` begins: with the words in front of it on its line."""
    begin = number
    while begin > first and number - begin < SHORT and tokens[begin - 1].text[0] != "\n":
        begin -= 1
    while begin < number and tokens[begin].text in JOINERS:
        begin += 1
    return [begin]


def _is_plain_number(tokens: list[Token], i: int) -> bool:
    """Whether a token is a number of its own: no amount, no part of a word, no long id."""
    token = tokens[i]
    if not token.text[0].isdigit() or sum(c.isdigit() for c in token.text) > SHORT + 4:
        return False
    glued = (
        i + 1 < len(tokens)
        and tokens[i + 1].start == token.end
        and ((tokens[i + 1].text[0].isalpha() and len(tokens[i + 1].text) > 2) or tokens[i + 1].text in "%:$")
    )
    behind = (
        i > 0
        and tokens[i - 1].end == token.start
        and (tokens[i - 1].text in "$:" or (tokens[i - 1].text[0].isalpha() and len(tokens[i - 1].text) > 1))
    )
    return not glued and not behind


def _is_named(token: Token) -> bool:
    """Whether a token is a word that may name a street or town."""
    if token.text[0] == "\x01":
        return len(token.text) > 1
    return token.text[0].isalpha() and len(token.text) > 2 and token.lower not in DETAILS and not token.flags & OFTEN


def _is_way(tokens: list[Token], i: int, first: int, end: int) -> bool:
    """Whether a token is a word for street with its name and a number near it."""
    lower = tokens[i].lower
    compound = lower.endswith(COMPOUNDS) and len(lower) > 6 and not tokens[i].flags & OFTEN
    if not (lower in WAYS or lower in STRONG or compound):
        return False
    near = range(max(first, i - 4), min(end, i + 6))
    return any(_is_plain_number(tokens, j) for j in near) and (
        compound or any(_is_named(tokens[j]) for j in near if j != i)
    )


def _is_code(tokens: list[Token], i: int, first: int, end: int) -> bool:
    """Whether a number is a postal code: four to six digits (or 3 + 2, 5 + 3) beside a capitalised word."""
    digits = "".join(c for c in tokens[i].text if c.isdigit())
    if i + 1 < end and tokens[i + 1].text.isdigit() and len(digits) == 3:  # "411 24"
        digits += tokens[i + 1].text
        i += 1
    if not 4 <= len(digits) <= SHORT + 3:
        return False
    behind = i + 1 < end and _is_named(tokens[i + 1])
    before = i > first and (
        _is_named(tokens[i - 1]) or tokens[i - 1].text in {",", "-"} or tokens[i - 1].text[0] == "\n"
    )
    return behind or (before and i + 1 == end)


def _next_is_number(tokens: list[Token], i: int, end: int) -> bool:
    after = i + 1
    while after < end and tokens[after].text in {".", "#", "-", ":"}:
        after += 1
    return after < end and (tokens[after].text[0].isdigit() or len(tokens[after].text) == 1)


def _lead(tokens: list[Token], first: int) -> int:
    """2 behind words that lead to an address, 1 behind a preposition, else 0."""
    before = [t.lower for t in tokens[max(0, first - 4) : first]]
    while before and before[-1] in {":", "-", ">", "("}:
        before.pop()
        if before and before[-1] in LEADS:
            return 2
    if not before:
        return 0
    pair = " ".join(before[-2:])
    if pair in LEAD_PAIRS or before[-1] in LEADS or before[-1] in LEAD_VERBS:
        return 2
    if len(before) > 1 and (before[-2] in LEADS or before[-2] in LEAD_VERBS):
        return 2
    return int(before[-1] in _TOWARDS)
