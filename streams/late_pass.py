"""The conversation pass of the assembler: an ended conversation is searched once more, with all that scrub knows.

Scrub's digests are read from its own store; what is found is masked before the next sample is cut, and counted: it is
the measured leak of chats.clean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from streams.assemble.conversation import Conversation
from streams.scrub.identity import Keys, value_key
from streams.scrub.late import MaskedTurn, late_finds
from streams.scrub_stage import ScrubStore


class LatePass:
    """Masks in ended conversations what became known after a turn had passed the scrubber."""

    def __init__(self, states: ScrubStore, keys: Keys, found: Callable[[int], object]) -> None:
        """`found` gets the number of turns in which something was found late."""
        self._states = states
        self._key = value_key(keys)
        self._found = found

    def __call__(self, conversations: Sequence[Conversation]) -> None:
        """Look at those that are closed; their cached events are replaced. Raises redis.RedisError."""
        ended = {c.name: c for c in conversations if c.closes() and not c.searched}
        if not ended:
            return
        states = self._states.load(sorted(ended))
        for name, conversation in ended.items():
            messages = conversation.messages()
            turns = [MaskedTurn(m.seq, m.role or "", m.text or "") for m in messages]
            late = late_finds(turns, states[name][1], self._key)
            for place, text in late.items():
                event = messages[place]
                conversation.events[event.event_id] = msgspec.structs.replace(event, text=text)
            conversation.searched = True
            if late:
                self._found(len(late))
