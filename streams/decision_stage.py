"""review.decisions -> what a reviewer decided takes effect like any feedback.

Approvals, rejections and stars become annotations on examples. A better text is scrubbed and goes to the assembler as
feedback with a corrected text, which makes of it a sample of kind `edit` and marks the draft bad.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streams import review
from streams.assemble.store import AssembleStore
from streams.config import StreamConfig
from streams.dead_letters import Letter, record
from streams.events import CleanEvent, ExampleRecord, encode_record, isoformat
from streams.lanes import Incoming
from streams.ledger import record_digest
from streams.outbox import NOTHING, Output, Record
from streams.scrub import Keys, ScrubConfig
from streams.scrub.conversation import Numbering
from streams.scrub.identity import ledger_key, value_key
from streams.scrub.masking import mask_turn, render
from streams.scrub_stage import ScrubStore
from streams.topics import CHATS_CLEAN, CHATS_DEAD_LETTER, EXAMPLES, REVIEW_DECISIONS


class DecisionStage:
    """Turns decisions into records for the assembler and the replay buffer; keeps nothing itself."""

    def __init__(
        self, store: AssembleStore, states: ScrubStore, keys: Keys, scrub: ScrubConfig, config: StreamConfig
    ) -> None:
        self._store = store
        self._states = states
        self._keys = keys
        self._scrub = scrub
        self._config = config

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """One output a decision. Raises `Quarantined` for a text that cannot be scrubbed."""
        return [self._decided(review.decode(incoming.value or b""), incoming) for incoming in batch]

    def poison(self, incoming: Incoming, error: BaseException) -> Output:
        """The dead letter of a decision that cannot be read or scrubbed."""
        key = ledger_key(self._keys)
        letter = Letter(
            self._config.topic(REVIEW_DECISIONS), incoming.partition, incoming.offset, "review", type(error).__name__,
            "bad_value" if isinstance(error, msgspec.MsgspecError) else "scrub_failed",
            record_digest(incoming.key, incoming.value, key), len(incoming.key or b""), len(incoming.value or b""),
        )  # fmt: skip
        return Output((record(self._config.topic(CHATS_DEAD_LETTER), letter, incoming, key),))

    def _decided(self, decision: review.Decision, incoming: Incoming) -> Output:
        key = decision.conversation.encode()
        if decision.action != "edit":
            moved = review.relane(decision)
            made: list[ExampleRecord] = [review.annotation(decision)]
            made += [moved] if moved is not None else []
            return Output(tuple(Record(self._config.topic(EXAMPLES), key, encode_record(one)) for one in made))
        (conversation,) = self._store.load([decision.conversation])
        target = next((m for m in conversation.messages() if m.event_id in decision.targets), None)
        if target is None:
            return NOTHING  # the conversation's state is gone: there is no context any more to edit in
        event = CleanEvent(
            event_id=decision.decision_id, type="feedback", conversation=decision.conversation,
            ts=isoformat(incoming.at), seq=target.seq, received_at=incoming.at, offset=target.offset,
            split_key=target.split_key, customer=target.customer, tenant=target.tenant, line=target.line,
            corrected_text=self._masked(decision), target_seq=target.seq,
        )  # fmt: skip
        return Output((Record(self._config.topic(CHATS_CLEAN), key, encode_record(event)),))

    def _masked(self, decision: review.Decision) -> str:
        """The better text with placeholders; those that the conversation knows stay as the reviewer wrote them."""
        _, state = self._states.load([decision.conversation])[decision.conversation]
        numbering = Numbering(state.copy(), value_key(self._keys))
        text = decision.text or ""
        return render(text, mask_turn(text, "assistant", 0, numbering, self._scrub))
