"""Street addresses and postal codes: number and street in English and European word order, flats, PO boxes."""

from __future__ import annotations

import re

from streams.scrub.spans import Span

_SUFFIX = (
    "street|st|avenue|ave|av|road|rd|lane|ln|drive|dr|court|ct|boulevard|blvd|way|place|pl|square|sq|terrace|ter|circle|cir|parkway|pkwy|highway|hwy|trail|trl|"
    "alley|aly|close|crescent|cres|gardens|grove|row|walk|mews|hill|park|loop|plaza|path|run|ridge|point|pike|turnpike|crossing|xing|view|vista|heights|manor|"
    "meadow|meadows|mill|mills|mountain|oval|pass|pine|pines|port|ports|radial|ramp|ranch|rapid|rest|river|shoal|shore|shores|spring|springs|spur|spurs|squares|"
    "station|stravenue|stream|summit|throughway|trace|track|trafficway|tunnel|union|valley|viaduct|village|ville|walks|wall|well|wells|bend|bluff|bluffs|branch|"
    "bridge|brook|brooks|burg|bypass|camp|canyon|cape|causeway|center|centre|cliff|cliffs|club|common|commons|corner|corners|cove|coves|creek|crest|crossroad|"
    "curve|dale|dam|divide|estate|estates|expressway|extension|extensions|fall|falls|ferry|field|fields|flat|flats|ford|fords|forest|forge|forges|fork|forks|fort|"
    "freeway|garden|gateway|glen|glens|green|greens|groves|harbor|harbors|haven|highlands|hollow|inlet|island|islands|isle|junction|junctions|key|keys|knoll|knolls|"
    "lake|lakes|land|landing|light|lights|loaf|lock|locks|lodge|mall|mission|motorway|mount|neck|orchard|overpass|parks|passage|prairie|quay|wharf|wynd|esplanade|parade|promenade|rise|vale|yard"
)
_ANY_CASE = frozenset(
    "street st avenue ave road rd lane ln drive dr court ct boulevard blvd place square terrace crescent parkway highway hwy pkwy".split()
)
_NUMBER = r"\d{1,6}(?:[A-Za-z]|-\d{1,5}|/\d{1,4}| ?1/2)?"
_NAME = r"(?:[A-Za-z][A-Za-z.'\-]{0,24}|\d{1,3}(?:st|nd|rd|th))"
_UNIT = r"(?:,? {0,2}\n?\s{0,4}(?:apt|apartment|suite|ste|unit|flat|fl|floor|room|rm|building|bldg|block|door|#)\.? ?#?[A-Za-z0-9\-]{1,6}\b)"
_STREET = re.compile(
    rf"(?<![\w$.,\-/])(?:(?:flat|apt|unit|suite|house) ?#?[A-Za-z0-9]{{1,5}},? )?{_NUMBER},? (?:(?:{_NAME}) ){{1,4}}?(?:{_SUFFIX})\b\.?"
    rf"(?: (?:n|s|e|w|ne|nw|se|sw|north|south|east|west)\b)?{_UNIT}{{0,2}}",
    re.IGNORECASE,
)
_TOWN = re.compile(
    r",? {0,2}\n?\s{0,4}(?:[A-Z][A-Za-z.'\-]{1,20} ?){1,3},? ?(?:[A-Z]{2},? ?)?(?:\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d)\b"
)
_EUROPEAN = re.compile(
    r"(?<!\w)(?:[A-Za-z\x01.'\-]{2,24}(?:strasse|str\.?|gasse|weg|allee|platz|ring|ufer|damm|straat|laan|plein|gracht|kade|dreef|gatan|vagen|vej|gade|veien|gata|katu|tie)"
    r"|(?:rue|avenue|av\.?|boulevard|bd|place|chemin|impasse|allee|quai|via|viale|piazza|corso|vicolo|calle|c/|avenida|avda\.?|plaza|paseo|carrer|rua|travessa|largo|praca|ulica|ul\.?|al\.?|ulitsa|prospekt|strada|str\.|jalan|jl\.?)"
    r" (?:(?:de|la|le|les|du|des|del|della|dei|di|d'|l'|da|do|dos|das|van|von|der|den|el|los|las|saint|san|santa|sao) ?){0,3}[A-Za-z\x01][A-Za-z\x01.'\-]{1,24}(?: [A-Z\x01][A-Za-z\x01.'\-]{1,24}){0,3})"
    r",? {0,2}(?:n[or]?\.? ?|nr\.? ?|no\.? ?|#)?\d{1,5} ?(?:[A-Za-z]\b|[/\-] ?\d{1,4}[A-Za-z]?)?",
    re.IGNORECASE,
)
_FRENCH = re.compile(
    r"(?<![\w.,])\d{1,4}(?: ?(?:bis|ter|quater|[a-d]))?,? (?:rue|avenue|av\.?|boulevard|bd|place|chemin|impasse|allee|quai|route|cours|square|passage|villa|cite|sentier)"
    r" (?:(?:de|la|le|les|du|des|l'|d'|saint|sainte) ?){0,3}[A-Za-z][A-Za-z'\-]{1,24}(?: [A-Z][A-Za-z'\-]{1,24}){0,3}",
    re.IGNORECASE,
)
_CODE_TOWN = re.compile(
    r",? {0,2}\n?\s{0,4}(?:[A-Z]{1,2}-)?(\d{4,5}|\d{4} ?[A-Z]{2}|\d{3} \d{2}|\d{2}-\d{3}|\d{5}-\d{3})\b(?: [A-Z][a-z\-]{2,20}){0,2}"
)
_BOX = re.compile(
    r"\b(?:p\.? ?o\.? ?box|postfach|apartado|boite postale|bp|psc|unit|usns|uss) \d{1,6}(?:,? (?:box|apo|fpo|dpo)[ a-z]{0,6}\d{0,6})?",
    re.IGNORECASE,
)
_UK = re.compile(r"(?<![A-Za-z0-9])(?:[A-Za-z]{1,2}\d{1,2}|[A-Za-z]{1,2}\d[A-Za-z]) ?\d[A-Za-z]{2}(?![A-Za-z0-9])")
_CANADA = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]\d[A-Za-z][ \-]?\d[A-Za-z]\d(?![A-Za-z0-9])")
_STATE_ZIP = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2},? {1,3}\n?\s{0,4}(\d{5}(?:-\d{4})?)(?![A-Za-z0-9-])")
_DUTCH = re.compile(r"(?<![A-Za-z0-9])\d{4} ?[A-Z]{2}(?![A-Za-z0-9])")
_UNIT_ALONE = re.compile(r"\b(?:apt|apartment|suite|ste)\.? ?#?\d{1,5}[A-Za-z]?\b", re.IGNORECASE)


def find_addresses(text: str, lower: str) -> list[Span]:
    """Spans of streets with their number, flats, boxes, and the town and code that follow a street."""
    found: list[Span] = []
    for pattern in (_STREET, _EUROPEAN, _FRENCH):
        for match in pattern.finditer(text):
            if pattern is _STREET and not _is_street(match[0]):
                continue
            start, end = match.span()
            found.append((start, end, "ADDRESS"))
            tail = _TOWN.match(text, end) or _CODE_TOWN.match(text, end)
            if tail:
                found.append((end + len(tail[0]) - len(tail[0].lstrip(" ,\n")), tail.end(), "ADDRESS"))
    found += [(*m.span(), "ADDRESS") for m in _BOX.finditer(text)]
    found += [(*m.span(), "ADDRESS") for m in _UNIT_ALONE.finditer(text)]
    return found


def _is_street(found: str) -> bool:
    """Number, name, suffix: with the suffixes that are words of their own the name must be capitalised."""
    words = found.replace(",", " ").split()
    suffixed = next((i for i, w in enumerate(words) if i >= 2 and w.rstrip(".").lower() in _SUFFIXES), 0)  # noqa: PLR2004
    name = words[suffixed - 1]
    strict = words[suffixed].rstrip(".").lower() not in _ANY_CASE
    return name[:1].isupper() or name[:1].isdigit() or (not strict and name.lower() not in _NO_STREET)


_SUFFIXES = frozenset(_SUFFIX.split("|"))
_NO_STREET = frozenset(
    "the a an in on at to by per for of my your this that minute minutes min mile miles km hour hours day days blocks block people".split()
)


def find_codes(text: str, lower: str) -> list[Span]:
    """Spans of postal codes that show by their form (British, Canadian, Dutch, state and ZIP)."""
    found = [(*m.span(), "ZIP") for m in _UK.finditer(text) if m[0][0].isupper() or " " in m[0]]
    found += [(*m.span(), "ZIP") for m in _CANADA.finditer(text)]
    found += [(*m.span(1), "ZIP") for m in _STATE_ZIP.finditer(text)]
    return found
