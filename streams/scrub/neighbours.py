"""What stands beside an address belongs to it: floors and flats, codes, towns and countries, whatever their form.

addresses.py and segments.py find the core of an address by what they know of streets; this module has a core and
looks at the words on both sides of it. A part behind a comma is one when it holds a code, a unit with its number, or
a word that chats do not use otherwise. It works on the finds of all detectors, so that what they left between two
parts is covered too.
"""

from __future__ import annotations

import re
from itertools import pairwise

from streams.scrub.address_tokens import CAPITAL, HOUSE_NUMBER, JOINER, MONTHS, NUMBER, PART, SHORT, Token, tokenise
from streams.scrub.lexicon import COMMON, FOREIGN, OFTEN, PROPER
from streams.scrub.spans import Span
from streams.scrub.streets import CODES, FLATS, HOUSES, LEADS, PARTICLES, PREFIXES, STRONG, UNITS, WAYS
from streams.scrub.token_kinds import flags_of

BEHIND, BEFORE = 120, 60
"""Characters looked at on both sides of an address."""
PIECE = 8
"""Tokens of the longest part between two commas."""
_OTHER = frozenset("EMAIL PHONE CARD IBAN NATIONAL_ID IP MAC SECRET DOB TRACKING LITERAL".split())
"""Values that are no part of an address, if they are longer than a postal code."""
STEPS = 7
"""Tokens in front of an address among which its first part begins."""
_GLUED = re.compile(r"(?<=\d)(?:\.?[oa]|st|nd|rd|th|-[A-Za-z]{1,5})(?![A-Za-z])")
"""What belongs to a number: "3.o", "4th", "8-gil", "15-a"."""
_STOPPERS = frozenset(",;\n()?!:")
_LEADING = frozenset("level villa tower wing sector phase plot block house no nr building bldg floor".split())
"""Words that an address may begin with when a number follows."""
_CROSSING = frozenset("entre y con esq esquina between and corner".split())
"""Words between the numbers of crossing streets."""
_FLOORS = frozenset("tv th mf st sal dcha izq izda esq dto og eg lgh tr".split())
"""Sides of a staircase, behind the number of a floor."""
_TALK = frozenset(
    "i i'm im i've you you're he she we they it it's its is was are were be been am do does did have has had will "
    "would can could should must may might the a an this that these those there here my your his her our their me us "
    "him them and or but if so because when while where what which who why how not no yes ok okay please pls plz "
    "thanks thank thx sorry hi hello hey dear regards cheers sincerely to from at on in by for of with about into "
    "after before until till since between instead as than then now today tomorrow yesterday tonight again still "
    "already never always just only also too very really soon asap right correct wrong left otherwise call ring me "
    "need want get got send sent ship deliver leave left bring order parcel package phone tel email mail name number "
    "und oder aber ich sie wir ist sind war nicht bitte danke auf mit fur von et ou mais je vous nous est pas merci "
    "s'il pour avec sur y o pero yo no por favor gracias con para e ou mas eu nao obrigado obrigada che non grazie per "
    "en of maar ik niet dank och eller jag inte tack men jeg ikke takk tak i ali ja ne ve ama ben".split()
)
"""Words that sentences are made of: an address ends before them."""


def widened(text: str, found: list[Span]) -> list[Span]:
    """The finds, and beside their addresses what belongs to them."""
    addresses = [
        (start, end) for start, end, label in found if label == "ADDRESS" or _is_lettered_code(text, start, end, label)
    ]
    if not addresses:
        return found
    walls = [(start, end) for start, end, label in found if label in _OTHER and end - start > SHORT]
    persons = [end for _, end, label in found if label == "PERSON"]
    more: list[Span] = []
    for start, end in addresses:
        floor = max((b for _, b in walls if b <= start), default=0)
        ceiling = min((a for a, _ in walls if a >= end), default=len(text))
        named = max((b for b in persons if b <= start), default=floor)
        first = min(_left(text, start, floor), _capitals(text, start, max(floor, named)))
        last = _right(text[:ceiling], start, end)
        if first < start or last > end:
            more.append((first, last, "ADDRESS"))
    return found + more


def _right(text: str, start: int, end: int) -> int:
    """Where the last part of an address from `start` to `end` ends."""
    small = text[start:end].islower()
    tokens = tokenise(text[end : end + BEHIND])
    if end + BEHIND < len(text):
        tokens = tokens[:-1]  # it may be cut
    if not tokens:
        return end
    last, at = end, 0
    if glued := _GLUED.match(text, end):
        last = glued.end()
        while at < len(tokens) and end + tokens[at].start < last:
            at += 1
    elif tokens[0].start == 0 and tokens[0].text[0].isalnum():
        return end
    behind = tokenise(text[max(start, end - BEFORE) : end])[-1]
    while at < len(tokens):
        begun = at
        while at < len(tokens) and (
            tokens[at].text[0] in ",;\n-/#(" or (tokens[at].text == "." and _is_short(tokens, at))
        ):
            at += 1
        comma = any(t.text[0] in ",;\n" for t in tokens[begun:at])
        piece = _piece(tokens, at)
        if not piece or not _is_part(piece, behind, comma=comma, small=small):
            break
        last, at, behind = end + piece[-1].end, at + len(piece), piece[-1]
    return last


def _is_short(tokens: list[Token], stop: int) -> bool:
    """Whether a full stop may only end an abbreviation ("3. mf., 2100")."""
    return not stop or len(tokens[stop - 1].text) <= SHORT - 2


def _piece(tokens: list[Token], at: int) -> list[Token]:
    """The tokens from `at` that may be one part of an address: up to a sign, or to a word of ordinary talk."""
    i = at
    while i < len(tokens) and i - at < PIECE:
        token = tokens[i]
        if token.text[0] in _STOPPERS or _is_talk(tokens, i):
            break
        if token.text == "." and not (i > at and len(tokens[i - 1].text) <= SHORT - 2):
            break
        i += 1
    while i > at and (tokens[i - 1].kind & JOINER or tokens[i - 1].lower in PARTICLES):
        i -= 1
    return tokens[at:i]


def _is_talk(tokens: list[Token], i: int) -> bool:
    """Whether a word is one that sentences are made of, and no part of a name."""
    token = tokens[i]
    if token.lower in MONTHS or token.lower in LEADS:
        return not (i and tokens[i - 1].lower == "de")  # "18 de Julio"
    if token.lower in _CROSSING and i + 1 < len(tokens) and tokens[i + 1].kind & NUMBER:
        return False
    before = tokens[i - 2 if i > 1 and tokens[i - 1].text == "-" else i - 1] if i else token
    if len(token.text) == 1 and before.kind & NUMBER:  # "19 a", "15-a"
        return False
    if token.lower == "tel" and i + 1 < len(tokens) and tokens[i + 1].text[0].isalpha():  # "tel aviv"
        return False
    return token.lower in _TALK and token.lower not in PARTICLES and not token.kind & PART


def _is_part(piece: list[Token], behind: Token, *, comma: bool, small: bool) -> bool:
    """Whether a piece holds what only addresses have there; `behind` is the token that it follows."""
    digits = [sum(c.isdigit() for c in t.text) for t in piece if t.kind & NUMBER]
    if any(count > SHORT + 3 for count in digits):
        return False
    if behind.kind & NUMBER and piece[0].lower in _FLOORS:
        return True
    if any(t.kind & PART or t.lower in FLATS for t in piece) and (digits or len(piece[-1].text) == 1):
        return True
    if any(4 <= count <= SHORT + 1 for count in digits) or _is_code(piece):
        return comma or len(piece) > 1
    if digits and piece[0].lower in _CROSSING:
        return True
    if comma and any(t.lower in STRONG for t in piece[1:]):
        return True
    if behind.kind & NUMBER and sum(c.isdigit() for c in behind.text) >= SHORT - 2:  # a postal code: its town follows
        return not piece[0].flags & OFTEN or any(_is_rare(t, small=small) for t in piece)
    if len(piece) == 1 and len(piece[0].text) == 1:  # the quarter of a town: "Kobenhavn O"
        return bool(piece[0].kind & CAPITAL) and piece[0].text != "I"
    return (comma or behind.lower in WAYS) and any(_is_rare(t, small=small) for t in piece)


def _is_code(piece: list[Token]) -> bool:
    """Whether two halves of a British, Canadian or Irish postal code stand side by side."""
    return any(
        CODES.fullmatch(a.text) and CODES.fullmatch(b.text) and not (a.text + b.text).isdigit()
        for a, b in pairwise(piece)
    )


def _is_rare(token: Token, *, small: bool) -> bool:
    """Whether a word names a place: one with a capital, or one in lower case that only lists of places hold, if any."""
    if not token.text[0].isalpha() or len(token.text) < SHORT - 3:
        return False
    if token.kind & CAPITAL and not small:
        return not token.flags & OFTEN or bool(token.flags & PROPER)
    return bool(token.flags & PROPER) or not flags_of(token.text) & (COMMON | FOREIGN)


def _left(text: str, start: int, floor: int) -> int:
    """Where the first part of an address begins in front of its core at `start`, not before `floor`."""
    cut = start - BEFORE > floor
    floor = max(floor, start - BEFORE)
    tokens = tokenise(text[floor:start])
    best = start
    for steps, i in enumerate(reversed(range(int(cut), len(tokens)))):
        token = tokens[i]
        if steps >= STEPS or token.text[0] in "\n()?!:;":
            break
        if token.kind & HOUSE_NUMBER and text[floor + token.start - 1 : floor + token.start] not in {"$", ":", "."}:
            if i + 1 < len(tokens) and tokens[i + 1].lower in MONTHS:
                break
            best = floor + token.start
        elif (token.lower in PREFIXES and not token.flags & OFTEN) or (
            token.lower == "c" and i + 1 < len(tokens) and tokens[i + 1].text == "/"
        ):
            best = floor + token.start
        elif token.lower in UNITS or token.lower in HOUSES or token.lower in _LEADING:
            if steps and best == start:  # no number behind it
                break
            best = floor + token.start
        elif _ends_talk(tokens, i):
            break
    return best


def _is_lettered_code(text: str, start: int, end: int, label: str) -> bool:
    """Whether a find is a postal code that nothing else looks like: a British or Canadian one."""
    return label == "ZIP" and text[start].isalpha() and any(c.isdigit() for c in text[start:end])


def _capitals(text: str, start: int, floor: int) -> int:
    """Where names of houses and villages begin that lead, comma after comma, to what stands at `start`."""
    for match in _NAMES_BEFORE.finditer(text, max(floor, start - BEFORE), start):
        first = tokenise(match[0])[0]
        if match.end() == start and not first.flags & OFTEN and first.lower not in _TALK:
            return match.start()
    return start


_NAMES = r"[A-Z][A-Za-z'\-]+(?: [A-Z][A-Za-z'\-]+){0,3}"
_NAMES_BEFORE = re.compile(rf"(?<![\w.]){_NAMES}(?:, ?{_NAMES}){{0,8}},? ")
"""Capitalised words with commas between them."""


def _ends_talk(tokens: list[Token], i: int) -> bool:
    """Whether a sentence is over at a token in front of an address, or still goes on."""
    if tokens[i].text == ".":
        return not (i and len(tokens[i - 1].text) <= SHORT - 2)
    return _is_talk(tokens, i) and tokens[i].lower not in MONTHS
