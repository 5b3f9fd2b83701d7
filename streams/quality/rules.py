"""Signs that need no statistics: control tokens, broken encoding, floods, automatic replies, logs, language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from streams.quality.config import QualityConfig, Reason
from streams.quality.words import PROFANE

_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>"  # ChatML, Llama 3, Phi, GPT, our own
    r"|<｜[^｜\n]{1,60}｜>"  # DeepSeek
    r"|</?s>|\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"  # Llama 2, Mistral
    r"|</?(?:start|end)_of_(?:turn|image|text)>|<(?:bos|eos|pad|unk|mask)>|\[(?:CLS|SEP|PAD|MASK|UNK)\]"
    r"|</?think>|</?tool_(?:call|response)>|<unused\d+>|<extra_id_\d+>",
    re.IGNORECASE,
)
_SPOOF = re.compile(
    r"^\s*(?:#{1,3}\s*(?:system|instruction|response|assistant|user)\s*:?\s*$"
    r"|\**(?:system|assistant|agent|human|user|bot|ai)\**\s*:\s*\S)",
    re.IGNORECASE | re.MULTILINE,
)
_INJECTED = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:all\s+|any\s+)?(?:your\s+|the\s+|my\s+)?(?:previous|prior|above|earlier)\s+"
    r"(?:instructions?|prompts?|rules?|messages?)\b",
    re.IGNORECASE,
)
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\u00ad\U000e0000-\U000e007f]")
_AUTO_REPLY = re.compile(
    r"\bout[ -]of[ -](?:the[ -])?office\b(?=.{0,200}\b(?:until|from|return|back|reply|access|e-?mail|contact))"
    r"|\b(?:this|it) is an? (?:auto(?:mated|matic)?|auto-generated|automatically generated)\s*(?:\w+\s+)?"
    r"(?:e-?mail|message|reply|response|notification)"
    r"|\bauto(?:matic|mated)?[ -](?:reply|response|responder|confirmation)\b"
    r"|\b(?:do not|don't|please do not) (?:reply|respond) (?:directly )?to this (?:e-?mail|message)"
    r"|\bthis (?:mailbox|inbox|e-?mail address) is (?:not|un)\s?(?:being )?(?:monitored|attended)"
    r"|\b(?:i am|i'm|i will be|i'll be) (?:currently )?"
    r"(?:on (?:annual |sick |parental |maternity )?(?:leave|holiday|vacation)"
    r"(?=.{0,120}\b(?:until|return|e-?mails?|back on|urgent))|away from (?:my (?:desk|e-?mail)|the office))"
    r"|\bundeliverable(?: (?:e-?)?mail| message|:)"
    r"|\bdelivery (?:status notification|has failed|to the following recipient)"
    r"|\bmessage could not be delivered\b|\bmail delivery (?:failed|subsystem)\b",
    re.IGNORECASE | re.DOTALL,
)
_OVERRULE = ("ignore", "disregard", "forget")
_AUTO_SIGNS = ("auto", "office", "reply", "respond", "monitored", "attended", "leave", "holiday", "vacation", "away",
               "deliver")  # fmt: skip
"""Words without which `_AUTO_REPLY` cannot match: looking for them is ten times faster."""
_FLOOD_CHARS = 16
"""Less is how people write: "noooooo", "!!!!!!"."""
_COPIES = 8
"""So many short units in a row are a flood."""
_PIECE, _AGAIN = 4, 2
"""Characters of a piece of them, and how often they hold it at least: once a unit, or every six characters."""
_REPEATED_CHAR = re.compile(r"([^\W\d_])\1{11,}")
_REPEATED_UNIT = re.compile(rf"(\S.{{0,40}}?)\1{{{_COPIES - 1},}}", re.DOTALL)
_MACHINE = re.compile(
    r"^\s*(?:"
    r"[{\[]\s*[\"{].*[\"\]}]\s*:.*[}\]]\s*$"  # a JSON payload
    r"|<\?xml\b|<!doctype\b|<(?:html|svg|soap)\b"
    r"|\S+ \S+ \S+ \[[^\]]{10,40}\] \"(?:GET|POST|HEAD|PUT|DELETE|PATCH|OPTIONS) "  # an access log
    r"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*\]?\s+(?:\S+\s+){0,3}\[?(?:INFO|WARN|WARNING|ERROR|DEBUG|TRACE|FATAL)\b"
    r"|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d \S+ [\w./-]+(?:\[\d+\])?: "  # syslog
    r"|(?:INFO|WARN|WARNING|ERROR|DEBUG|TRACE|FATAL)[: ]\s*\[?\d{4}-\d\d"
    r"|(?:===|\*\*\*|---|-!-|[<>]--|\*)\s+\S+ (?:\[\S+\] )?"
    r"(?:has (?:joined|left|quit)|is now known as|joined|left|quit)\b"
    r"|Traceback \(most recent call last\)|Exception in thread \"|\s*at [\w$.]+\([\w$]+\.java:\d+\)"
    r")",
    re.DOTALL,
)
_MASKS = "*@#$%!"
_MASKED = re.compile(rf"(?<![^\W_])[a-z]+[{_MASKS}][a-z{_MASKS}]*[a-z](?![^\W_])")
_LEFT = 2
"""Letters by which a masked word is told, at least."""
_PROFANE = {size: [word for word in PROFANE if len(word) == size] for size in range(4, max(map(len, PROFANE)) + 1)}
"""Words that people mask, by their length."""
_LETTER = re.compile(r"[^\W_]")
_MOJIBAKE = re.compile(
    "(?:[\u00c2\u00c3\u00d0\u00d1\u00d8\u00d9][\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
    "|[\u00e0-\u00f0][\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
    "[\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122\ufffd])"
)
_BROKEN = re.compile("[\ufffd\ud800-\udfff\x00-\x08\x0b\x0e-\x1f]")


def control_tokens(text: str, lower: str) -> bool:
    """True if the text (`lower`: in lower case) has special tokens of a chat template, plays a role, or hides some."""
    if ("<" in text or "[" in text) and _CONTROL.search(text):
        return True
    if (":" in text or "#" in text) and _SPOOF.search(text):
        return True
    if not text.isascii() and len(_INVISIBLE.findall(text)) > 1:
        return True
    return any(map(lower.__contains__, _OVERRULE)) and _INJECTED.search(lower) is not None


def broken_encoding(text: str) -> bool:
    """True if the text was decoded wrongly: mojibake, replacement or control characters."""
    if text.isascii() and text.isprintable():
        return False
    broken = len(_BROKEN.findall(text))
    if broken > 1 and broken * 50 > len(text):
        return True
    return sum(len(found[0]) for found in _MOJIBAKE.finditer(text)) * 10 > len(text)


def flood(text: str, words: Sequence[str]) -> bool:
    """True if one character or one short unit is repeated over most of the text; `words`: in lower case."""
    if len(text) < _FLOOD_CHARS:
        return False
    # a unit that comes eight times makes few different words, or words of its own length
    if len(set(words)) * 3 > len(words) and max(map(len, words)) < _FLOOD_CHARS:
        return False
    if len(set(text.lower())) * 8 < len(text) and _REPEATED_CHAR.search(text):
        return True
    # what covers most of a text covers its middle, on one side of it at least: a piece there comes again and again
    middle, least = len(text) // 2, min(_COPIES - 1, max(_AGAIN, len(text) // 12))
    if text.count(text[middle : middle + _PIECE]) < least and text.count(text[middle - _PIECE : middle]) < least:
        return False
    found = _REPEATED_UNIT.search(text)
    return found is not None and (found.end() - found.start()) * 2 > len(text) and _LETTER.search(found[1]) is not None


def auto_reply(lower: str) -> bool:
    """True if a machine wrote it instead of a person: out of office, bounce, unattended mailbox."""
    return any(map(lower.__contains__, _AUTO_SIGNS)) and _AUTO_REPLY.search(lower) is not None


def masked_abuse(lower: str) -> bool:
    """True if a swear word or slur stands there with some of its letters as signs: nobody masks what may be said."""
    return any(map(lower.__contains__, _MASKS)) and any(map(_is_abuse, _MASKED.findall(lower)))


def _is_abuse(masked: str) -> bool:
    """Whether a word that is as long has the letters that are left, two at least."""
    if sum(map(str.isalpha, masked)) < _LEFT:
        return False
    words = _PROFANE.get(len(masked), ())
    return any(all(a == b or b in _MASKS for a, b in zip(word, masked, strict=True)) for word in words)


def machine_text(text: str) -> bool:
    """True if the text starts as only machines write: log lines, payloads, stack traces, channel notices."""
    return _MACHINE.match(text) is not None


def tokens(text: str) -> int:
    """An upper estimate of the tokens of a text, without a tokenizer."""
    return max(int((text.count(" ") + 1) * 1.3), len(text.encode(errors="replace")) // 4)


def limits(text: str, config: QualityConfig) -> Reason | None:
    """The limit that a text breaks, if any."""
    if not text.strip():
        return Reason.EMPTY
    if len(text) > config.max_chars:
        return Reason.TOO_LONG
    return None


def too_short(text: str, config: QualityConfig) -> bool:
    """True if a reply holds fewer letters and digits than wanted; an emoji alone is no reply to learn."""
    found = _LETTER.finditer(text, 0, 64 * config.min_chars)
    return next(islice(found, config.min_chars - 1, None), None) is None
