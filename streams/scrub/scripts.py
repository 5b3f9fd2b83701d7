"""Names and addresses behind their triggers in scripts that have no Latin reading, read in the original text."""

from __future__ import annotations

import re
from bisect import bisect_left

from streams.scrub.normalise import Plain
from streams.scrub.spans import Span

_HAN, _KANA, _HANGUL = r"\u4e00-\u9fff", r"\u3040-\u30ff", r"\uac00-\ud7a3"


_WORDS = (
    ("(?:اسمي|إسمي|اسم من|نام من)", r"\u0600-\u06ff", ""),
    ("(?:שמי|קוראים לי)", r"\u0590-\u05ff", ""),
    ("(?:मेरा नाम|माझे नाव)", r"\u0900-\u097f", r"(?= है|$|।|\.| आहे)"),
    ("(?:ผมชื่อ|ฉันชื่อ|ดิฉันชื่อ)", r"\u0e00-\u0e7f", ""),
    ("আমার নাম", r"\u0980-\u09ff", ""),
    ("(?:என் பெயர்|எனது பெயர்)", r"\u0b80-\u0bff", ""),
    ("నా పేరు", r"\u0c00-\u0c7f", ""),
    ("(?:მე მქვია|ჩემი სახელია)", r"\u10a0-\u10ff", ""),
    ("(?:Իմ անունը|իմ անունը|անունս)", r"\u0531-\u058f", ""),
)
"""Triggers whose name is one or two words of the script behind them, and what ends it."""

_NAMES = re.compile(
    "|".join(
        (
            rf"(?:我叫|我是|名字是|名字叫|我的名字叫|姓名[:： ]?)([{_HAN}]{{2,4}})(?![{_HAN}])",
            rf"(?:私は|わたしは|名前は|氏名は?[:： ]?)([{_HAN}{_KANA} ]{{2,12}}?)(?:です|と申します|といいます|$)",
            rf"([{_HAN}]{{2,4}})(?:様|さん)(?<!お客様)",
            rf"(?:제 이름은|저는|이름은|성함은) ?([{_HANGUL}]{{2,4}}?)(?:입니다|이에요|예요|이라고|$)",
            *(rf"{trigger} ?([{s}]{{2,24}}(?: [{s}]{{2,24}})?){tail}" for trigger, s, tail in _WORDS),
        )
    )
)
_ADDRESSES = re.compile(
    r"(?:地址(?:是|[:：])|住址(?:是|[:：])|住所は?[:： ]?|주소는? ?|العنوان:? |הכתובת:? |पता:? |ที่อยู่:? ?)"
    r"([^\n，。、<]{4,48}?)(?=です|입니다|[\n，。]|$)"
)


def find_native(original: str, plain: Plain) -> list[Span]:
    """Spans, in the detection text, of names and addresses behind a trigger of their own script."""
    if plain.source is None:
        return []
    found: list[Span] = []
    for pattern, label in ((_NAMES, "PERSON"), (_ADDRESSES, "ADDRESS")):
        for match in pattern.finditer(original):
            group = match.lastindex or 0
            start, end = (bisect_left(plain.source, edge) for edge in match.span(group))
            if end > start:
                found.append((start, end, label))
    return found
