"""Words by what they do: function words and endings (for word order), and groups that tell chats from noise."""

from __future__ import annotations

from importlib.resources import files
from typing import Final
from zlib import crc32

_LISTS: Final = {
    name: listed.split()
    for name, _, listed in (
        line.partition(": ")
        for line in files("streams.quality").joinpath("words.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}
_ENDINGS: Final = tuple(ending.encode() for ending in _LISTS["endings"])
CLASSES: Final = 256
"""Word classes at most; class 0 stands before the first and after the last word."""
GROUPS: Final = tuple(name for name in _LISTS if name not in {"function", "endings"})
"""Names of the groups, in the order of their bits."""
PROFANE: Final = frozenset(_LISTS["slur"] + _LISTS["profane"])
"""Words that people mask when they write them."""
SEPARATOR: Final = b"\x00"
"""The word that stands between two texts."""
CLASS_SHIFT: Final = 32
GROUP_SHIFT: Final = 40

_CLASS_OF: Final = {word.encode(): at + 1 for at, word in enumerate(_LISTS["function"])}
FUNCTION: Final = frozenset(_CLASS_OF)
"""Words that carry order and no meaning."""
_FIRST_ENDING: Final = len(_CLASS_OF) + 1
_NUMBER: Final = _FIRST_ENDING + len(_ENDINGS)
_SHORT: Final = _NUMBER + 1
_FOREIGN: Final = _NUMBER + 2
_OTHER: Final = _NUMBER + 3
_KEPT: Final = 1 << 16
_BITS: Final[dict[str, int]] = {}
for _at, _name in enumerate(GROUPS):
    for _listed in _LISTS[_name]:
        _BITS[_listed] = _BITS.get(_listed, 0) | 1 << _at


class WordCodes(dict[bytes, int]):
    """Folded word -> hash (32 bits), class (8 bits), groups: worked out once a word; emptied when it has grown."""

    def __missing__(self, folded: bytes) -> int:
        """The code of a word that was not seen lately."""
        if len(self) >= _KEPT:
            self.clear()
        groups = _BITS.get(folded.decode(errors="replace"), 0)
        code = crc32(folded) | _class(folded) << CLASS_SHIFT | groups << GROUP_SHIFT
        self[folded] = code
        return code


def _class(folded: bytes) -> int:
    if folded == SEPARATOR:
        return 0
    found = _CLASS_OF.get(folded)
    if found is not None:
        return found
    if folded[:1] == b"0":
        return _NUMBER
    if not folded.isascii():
        return _FOREIGN
    if len(folded) <= len("ed"):
        return _SHORT
    return next((_FIRST_ENDING + at for at, ending in enumerate(_ENDINGS) if folded.endswith(ending)), _OTHER)
