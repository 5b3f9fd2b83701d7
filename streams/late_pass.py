"""The conversation pass of the assembler: an ended conversation is searched once more, with all that scrub knows.

Scrub's digests are read from its own store; what is found is masked before the next sample is cut, and counted: it is
the measured leak of chats.clean. Samples that left before are replaced by the cut (streams/assemble/samples.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import redis

from streams.assemble.conversation import Conversation
from streams.events import CleanEvent
from streams.scrub import ConversationState
from streams.scrub.identity import Keys, value_key
from streams.scrub.late import MaskedTurn, late_finds
from streams.scrub_stage import ScrubStore

_TRIES = 20
"""Times the pass runs again because scrub changed one of the states meanwhile."""


class LatePass:
    """Masks in ended conversations what became known after a turn had passed the scrubber."""

    def __init__(self, states: ScrubStore, keys: Keys, found: Callable[[int], object]) -> None:
        """`found` gets the number of turns in which something was found late."""
        self._states = states
        self._key = value_key(keys)
        self._found = found

    def __call__(self, ended: Sequence[Conversation]) -> None:
        """Search those that were not; their events are replaced. Raises redis.RedisError; nothing has changed then."""
        unseen = {c.name: c for c in ended if not c.searched}
        if not unseen:
            return
        late = self._search(unseen)
        for name, conversation in unseen.items():
            for event in late[name]:
                conversation.events[event.event_id] = event
                conversation.masked.add(event.event_id)
            conversation.searched = True
        if count := sum(map(len, late.values())):
            self._found(count)

    def _search(self, conversations: Mapping[str, Conversation]) -> dict[str, list[CleanEvent]]:
        """The events with new text of each conversation; placeholders that were given anew are filed with its state."""
        for _ in range(_TRIES):
            states = self._states.load(sorted(conversations))
            changed, found = {}, {}
            for name, conversation in conversations.items():
                before = states[name][1].encode()
                found[name] = self._masked(conversation, states[name][1])
                if found[name] and states[name][1].encode() != before:
                    changed[name] = states[name]
            if not changed or self._states.save(changed, []):
                return found
        raise redis.ConnectionError("scrub changes these states; the pass runs again")

    def _masked(self, conversation: Conversation, state: ConversationState) -> list[CleanEvent]:
        messages = conversation.messages()
        edited = [event for event in conversation.feedback() if event.corrected_text]
        turns = [MaskedTurn(m.seq, m.role or "", m.text or "") for m in messages]
        turns += [MaskedTurn(f.seq, "agent", f.corrected_text or "") for f in edited]
        both = [*messages, *edited]
        field = {"message": "text", "feedback": "corrected_text"}
        return [
            msgspec.structs.replace(both[place], **{field[both[place].type]: text})
            for place, text in late_finds(turns, state, self._key).items()
        ]
