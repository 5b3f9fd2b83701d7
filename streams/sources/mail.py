"""mbox files: threads of e-mail as chats, without quoted text and signatures."""

from __future__ import annotations

import email
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr, parsedate_to_datetime
from hashlib import sha256

from streams.sources.chats import Chat, Line, Unreadable
from streams.sources.pages import html_text

_ATTRIBUTION = re.compile(
    r"^\s*(?:On\b.{4,200}\bwrote|Am\b.{4,200}\bschrieb\b.{0,100}|Le\b.{4,200}\ba écrit|El\b.{4,200}\bescribió"
    r"|Il\b.{4,200}\bha scritto)\s*:\s*$",
    re.IGNORECASE | re.DOTALL,
)
_DIVIDER = re.compile(
    r"^\s*(?:-{2,}\s*(?:Original Message|Forwarded message|Ursprüngliche Nachricht|Message d'origine)\s*-{2,}"
    r"|_{10,})\s*$",
    re.IGNORECASE,
)
_OUTLOOK = re.compile(r"^\s*\*?(?:From|Von|De)\s*:\*?\s+\S.*", re.IGNORECASE)
_OUTLOOK_NEXT = re.compile(r"^\s*\*?(?:Sent|Date|To|Gesendet|An|Envoyé|À)\s*:\*?", re.IGNORECASE)
_CLOSING = re.compile(
    r"^\s*(?:(?:kind|best|warm|many)\s+)?(?:regards|wishes|cheers|sincerely|yours (?:truly|sincerely|faithfully)"
    r"|mit freundlichen grüßen|viele grüße|cordialement|saludos)\s*[,.!]?\s*$|^\s*best\s*,\s*$",
    re.IGNORECASE,
)
_DEVICE = re.compile(r"^\s*(?:sent from my|get outlook for|von meinem .{1,30} gesendet|envoyé de mon)\b", re.IGNORECASE)
_SUBJECT = re.compile(r"^\s*(?:(?:re|aw|fwd?|wg|sv|tr)\s*(?:\[\d+\])?\s*:\s*)+", re.IGNORECASE)

SIGNATURE_LINES = 8
"""A closing formula further from the end than this is part of the text."""


@dataclass(frozen=True, repr=False)
class Mail:
    """One message: who wrote it, to which earlier ones it answers, when, and its own words."""

    message_id: str
    parents: tuple[str, ...]
    sender: str
    sender_name: str
    subject: str
    at: float | None
    text: str


def threads(lines: Iterable[bytes], agents: Collection[str] = ()) -> Iterator[Chat | Unreadable]:
    """The threads of an mbox file, each a chat.

    Who writes from an address or a domain in `agents` is an agent. Without them the first to write in a thread is
    its customer, and everybody else an agent.
    """
    mails: list[Mail] = []
    for number, raw in enumerate(_split(lines), 1):
        mail = _mail(raw)
        if mail is None:
            yield Unreadable(number, "no_text")
        else:
            mails.append(mail)
    for thread in _threads(mails):
        yield _chat(thread, {a.lower().lstrip("@") for a in agents})


def own_words(body: str) -> str:
    """What the sender of an e-mail wrote: no quoted lines, nothing behind a divider, no signature."""
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = _before_quote(lines)
    kept = [line for line in kept if not line.lstrip().startswith(">")]
    for at, line in enumerate(kept):
        last = len(kept) - at <= SIGNATURE_LINES
        if line.rstrip("\r") in {"-- ", "--"} or _DEVICE.match(line) or (last and at and _CLOSING.match(line)):
            kept = kept[:at]
            break
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in kept)).strip()


def _before_quote(lines: Sequence[str]) -> Sequence[str]:
    for at, line in enumerate(lines):
        pair = f"{line} {lines[at + 1]}" if at + 1 < len(lines) else line
        header = _OUTLOOK.match(line) and at + 1 < len(lines) and _OUTLOOK_NEXT.match(lines[at + 1])
        if _DIVIDER.match(line) or header:
            return lines[:at]
        # Mail programs fold a long attribution over two lines.
        folded = _ATTRIBUTION.match(pair) is not None and line.strip() != "" and not _is_attribution(lines, at + 1)
        if _ATTRIBUTION.match(line) or folded:
            rest = lines[at + 1 + (0 if _ATTRIBUTION.match(line) else 1) :]
            # Inline answers stand between quoted lines, so what is behind them stays.
            return [*lines[:at], *rest] if _answers_inline(rest) else lines[:at]
    return lines


def _is_attribution(lines: Sequence[str], at: int) -> bool:
    return _ATTRIBUTION.match(lines[at]) is not None


def _answers_inline(rest: Sequence[str]) -> bool:
    quoted = [i for i, line in enumerate(rest) if line.lstrip().startswith(">")]
    return bool(quoted) and any(line.strip() and not line.lstrip().startswith(">") for line in rest[quoted[0] :])


def _split(lines: Iterable[bytes]) -> Iterator[bytes]:
    current: list[bytes] = []
    blank = True
    for line in lines:
        if blank and line.startswith(b"From "):
            if current:
                yield b"".join(current)
            current = []
        else:
            # mboxrd: one ">" was put before each line that looks like a separator.
            current.append(line[1:] if re.match(rb">+From ", line) else line)
        blank = not line.strip()
    if any(line.strip() for line in current):
        yield b"".join(current)


def _mail(raw: bytes) -> Mail | None:
    message = email.message_from_bytes(raw, policy=default)
    try:
        text = own_words(_body(message))
        name, sender = parseaddr(str(message.get("From", "")))
        parents = re.findall(r"<[^<>\s]+>", f"{message.get('References', '')} {message.get('In-Reply-To', '')}")
        found = re.search(r"<[^<>\s]+>", str(message.get("Message-ID", "")))
        subject = str(message.get("Subject", ""))
        at = _date(str(message.get("Date", "")))
    except (ValueError, LookupError, AttributeError, TypeError, IndexError):
        # email raises many kinds of errors on broken headers, charsets and encodings.
        return None
    if not text:
        return None
    message_id = found[0] if found else f"<{sha256(raw).hexdigest()[:24]}@mbox>"
    return Mail(message_id, tuple(parents), sender.lower(), name, subject, at, text)


def _body(message: EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    try:
        content = part.get_content()
    except LookupError:
        # A charset that nobody knows: most such mails are UTF-8 all the same.
        content = part.get_payload(decode=True)
    text = content if isinstance(content, str) else bytes(content).decode(errors="replace")
    return html_text(text) if part.get_content_subtype() == "html" else text


def _date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _threads(mails: Sequence[Mail]) -> Iterator[list[Mail]]:
    """Mails joined by their ids, and answers without any by their subject; in order of time, else of the file."""
    root: dict[str, str] = {}
    by_subject: dict[str, str] = {}
    for mail in mails:
        subject = _SUBJECT.sub("", mail.subject).strip().lower()
        links = list(mail.parents)
        if not links and _SUBJECT.match(mail.subject) and subject in by_subject:
            links = [by_subject[subject]]
        for link in links:
            root[_root(root, mail.message_id)] = _root(root, link)
        by_subject.setdefault(subject, mail.message_id)
    groups: dict[str, list[Mail]] = {}
    seen: set[str] = set()
    for mail in mails:
        if mail.message_id not in seen:
            seen.add(mail.message_id)
            groups.setdefault(_root(root, mail.message_id), []).append(mail)
    for group in groups.values():
        timed = all(mail.at is not None for mail in group)
        yield sorted(group, key=lambda mail: mail.at or 0.0) if timed else group


def _root(root: dict[str, str], name: str) -> str:
    while root.get(name, name) != name:
        name = root[name]
    return name


def _chat(thread: Sequence[Mail], agents: Collection[str]) -> Chat:
    def staff(mail: Mail) -> bool:
        return mail.sender in agents or mail.sender.rpartition("@")[2] in agents

    outside = [mail for mail in thread if not staff(mail)] if agents else [thread[0]]
    customer = outside[0].sender if outside else ""
    lines = []
    for mail in thread:
        agent = staff(mail) if agents else mail.sender != customer
        lines.append(Line("agent" if agent else "customer", mail.text, mail.at))
    known = {"id": customer, "email": customer} if customer else {}
    if outside and outside[0].sender_name:
        known["name"] = outside[0].sender_name
    return Chat(f"mail-{thread[0].message_id.strip('<>')}"[:500], tuple(lines), "email", None, known)
