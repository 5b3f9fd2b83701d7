"""The stage: chat events in, clean events out, with the state of their conversation; pure and fail closed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from streams.events import ChatEvent, CleanEvent, Closed, Feedback, Message
from streams.scrub.config import ScrubConfig
from streams.scrub.conversation import ConversationState, Numbering, Placed
from streams.scrub.fragments import is_rich, may_be_piece
from streams.scrub.identity import Keys, clean_event_id, conversation_pseudonym, pseudonym, split_pseudonym, value_key
from streams.scrub.masking import Quarantined, know, mask_turn, render
from streams.scrub.ner import NerBackend, load
from streams.scrub.normalise import normalise

_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ROLES = {"user": "customer", "developer": "system", "tool": "system", "function": "system"}
_CUSTOMER_IDS = ("id", "customer_id", "email", "phone")
"""What names a customer, the best first."""


class Held(NamedTuple):
    """An event as it arrived, with what its record and its tenant say of it."""

    event: ChatEvent
    received_at: float
    offset: tuple[int, int]
    tenant: str
    line: str


class Scrubber:
    """Scrubs the events of all conversations under one configuration; holds no state of its own."""

    def __init__(self, config: ScrubConfig, keys: Keys, ner: NerBackend | None = None) -> None:
        self._ner = ner or (load(config.ner, config.ner_deadline_s) if config.ner else None)
        self._config = config
        self._keys = keys
        self._key = value_key(keys)

    def scrub_event(
        self,
        event: ChatEvent,
        state: ConversationState,
        *,
        received_at: float = 0.0,
        offset: tuple[int, int] = (0, 0),
        tenant: str = "",
        line: str = "a",
    ) -> tuple[list[CleanEvent], ConversationState]:
        """The clean events that may go on now, and the conversation's new state. Raises `Quarantined`.

        `received_at` (Kafka time, seconds), `offset` (partition and offset in chats.raw) and `tenant` are what the
        event's record says of it.
        """
        event_id = clean_event_id(self._keys, event.event_id)
        try:
            return self._scrub(Held(event, received_at, offset, tenant, line), state.copy())
        except Quarantined as reason:
            raise Quarantined(reason.reason, event_id) from None
        except Exception:  # noqa: BLE001 - whatever went wrong, its message may hold text
            raise Quarantined("scrub_failed", event_id) from None

    def release(self, state: ConversationState, now: float) -> tuple[list[CleanEvent], ConversationState]:
        """The turns held for `hold_s` seconds at `now` (Kafka time), scrubbed, and the state after them."""
        return self._released(state, lambda held: now - held.received_at >= self._config.hold_s)

    def close(self, state: ConversationState) -> tuple[list[CleanEvent], ConversationState]:
        """Every turn that is still held, scrubbed, and the state after them."""
        return self._released(state, lambda _: True)

    def _released(
        self, state: ConversationState, due: Callable[[Held], bool]
    ) -> tuple[list[CleanEvent], ConversationState]:
        leaving = [held for held in state.held if due(held)]
        if not leaving:
            return [], state
        state = state.copy()
        state.held = [held for held in state.held if not due(held)]
        return [self._now(held, state) for held in leaving], state

    def _scrub(self, arrived: Held, state: ConversationState) -> tuple[list[CleanEvent], ConversationState]:
        """Held turns leave in front of the event that decides them, unless it is a turn to hold itself."""
        state.last_at = max(state.last_at, arrived.received_at)
        event = arrived.event
        if self._config.hold_s and not state.held and self._is_held(event, state):
            state.held = [arrived]
            return [], state
        held, state.held = state.held, []
        if held and (text := self._said(event)) is not None and is_rich(text):
            state.fragment = ("ACCOUNT_ID", 0, held[0].event.seq - 1)
        return [self._now(each, state) for each in (*held, arrived)], state

    def _is_held(self, event: ChatEvent, state: ConversationState) -> bool:
        """Whether a customer's turn waits for the next; one that was scrubbed before never does."""
        text = self._said(event)
        if text is None or self._digest(event, Numbering(state, self._key)) in state.replies:
            return False
        return may_be_piece(text, event.seq, state)

    def _said(self, event: ChatEvent) -> str | None:
        """The detection text of a customer's turn that is not too long to be read."""
        if not isinstance(event, Message) or event.role != "customer" or len(event.text) > self._config.max_chars:
            return None
        return normalise(event.text).text

    def _now(self, arrived: Held, state: ConversationState) -> CleanEvent:
        """The clean event of one that is not held (any longer)."""
        placed, text = self._text(arrived.event, state)
        return self._clean(arrived, None if text is None else render(text, placed))

    def _text(self, event: ChatEvent, state: ConversationState) -> tuple[list[Placed], str | None]:
        """The spans of the event's text: those of its first arrival, or new ones that the state then remembers."""
        numbering = Numbering(state, self._key)
        text = (
            event.text if isinstance(event, Message) else event.corrected_text if isinstance(event, Feedback) else None
        )
        digest = self._digest(event, numbering)
        if digest in state.replies:
            return state.replies[digest], text
        know(event.customer, numbering)
        if len(state.entities) > self._config.max_entities:
            raise Quarantined("conversation_overflow")
        if text is None:
            return [], None
        role = event.role if isinstance(event, Message) else "agent"
        placed = mask_turn(text, role, event.seq, numbering, self._config, ner=self._ner)
        if len(state.replies) >= self._config.max_events:
            raise Quarantined("conversation_overflow")
        state.replies[digest] = placed
        return placed, text

    def _digest(self, event: ChatEvent, numbering: Numbering) -> bytes:
        """Names the event and its content: a second event under the same id is scrubbed on its own."""
        text = (
            event.text if isinstance(event, Message) else event.corrected_text if isinstance(event, Feedback) else None
        )
        return numbering.digest(f"{event.event_id}\x00{event.seq}\x00{text}".encode(errors="surrogatepass").hex())

    def _clean(self, arrived: Held, masked: str | None) -> CleanEvent:
        keys, event, tenant = self._keys, arrived.event, arrived.tenant
        customer = customer_id(event.customer)
        fields: dict[str, Any] = {
            "event_id": clean_event_id(keys, event.event_id),
            "conversation": conversation_pseudonym(keys, event.conversation_id, tenant),
            "seq": event.seq, "ts": event.ts, "received_at": arrived.received_at, "offset": arrived.offset,
            "tenant": tenant,
            "line": _safe(event.line) or arrived.line,
            "customer": pseudonym(keys, "customer", customer, tenant) if customer else None,
            "split_key": split_pseudonym(keys, customer or event.conversation_id, tenant),
        }  # fmt: skip
        if isinstance(event, Message):
            return CleanEvent(**fields, **self._message(event, masked, tenant))
        if isinstance(event, Closed):
            return CleanEvent(**fields, type="conversation_closed", turns=event.turns, resolved=event.resolved)
        return CleanEvent(
            **fields, type="feedback", rating=event.rating, scale=event.scale, corrected_text=masked, kind=event.kind,
            target_seq=event.target_seq, answer_id=self._id(event.answer_id),
        )  # fmt: skip

    def _message(self, event: Message, masked: str | None, tenant: str) -> dict[str, Any]:
        agent = pseudonym(self._keys, "agent", event.agent_id, tenant) if event.agent_id else None
        return {
            "type": "message", "role": event.role, "text": masked, "channel": _safe(event.channel),
            "lang": _safe(event.lang), "agent_id": agent, "adapter": _safe(event.adapter),
            "answer_id": self._id(event.answer_id), "arm": _safe(event.arm), "p": event.p,
        }  # fmt: skip

    def _id(self, raw: str | None) -> str | None:
        return clean_event_id(self._keys, raw) if raw else None


def _safe(value: str | None) -> str | None:
    """A label of the sender's, dropped when its form could hold personal data."""
    return value if value and len(value) <= 64 and _SAFE.fullmatch(value) and "@" not in value else None


def customer_id(customer: Mapping[str, Any] | None) -> str | None:
    """The value that names the customer of an event: the id, else the e-mail, else the phone."""
    for name in _CUSTOMER_IDS:
        value = (customer or {}).get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return None


def scrub_messages(
    messages: Sequence[Mapping[str, Any]], config: ScrubConfig, keys: Keys, metadata: Mapping[str, Any] | None = None
) -> tuple[list[str], dict[str, str]]:
    """The masked texts of a request's messages (`role`, `content` or `text`), and placeholder -> first spelling.

    Raises `Quarantined`: such a prompt must not reach a model.
    """
    numbering = Numbering(ConversationState(), value_key(keys))
    know(metadata, numbering)
    masked: list[str] = []
    originals: dict[str, str] = {}
    for seq, message in enumerate(messages):
        text = str(message.get("content") or message.get("text") or "")
        role = str(message["role"])
        try:
            placed = mask_turn(text, _ROLES.get(role, role), seq, numbering, config)
        except Quarantined:
            raise
        except Exception:  # noqa: BLE001 - whatever went wrong, its message may hold text
            raise Quarantined("scrub_failed") from None
        for start, end, label, number in placed:
            originals.setdefault(f"<{label}_{number}>", text[start:end])
        masked.append(render(text, placed))
    return masked, originals
