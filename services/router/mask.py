"""The prompt scrubber: the stream's own code on the messages of one request; nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.router.door import Mask
from services.router.record import Turn
from services.router.request import BadRequest
from streams.scrub import Keys, Quarantined, ScrubConfig, scrub_messages


def make_mask(config: ScrubConfig, keys: Keys) -> Mask:
    """A mask with the deployment's rules. It raises `BadRequest` for a prompt that must not reach a model."""

    def mask(turns: Sequence[Turn], customer_id: str | None) -> tuple[list[str], Mapping[str, str]]:
        messages = [{"role": turn.role, "text": turn.text} for turn in turns]
        try:
            return scrub_messages(messages, config, keys, {"id": customer_id} if customer_id else None)
        except Quarantined:
            raise BadRequest(422, "unscrubbable", "messages: personal data in it cannot be masked safely") from None

    return mask
