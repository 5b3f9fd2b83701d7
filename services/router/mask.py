"""The prompt scrubber: the stream's own code on the messages of one request; nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from services.router.door import Mask
from services.router.record import Turn

if TYPE_CHECKING:
    from services.settings import Settings


def make_mask(settings: Settings) -> Mask:
    def mask(turns: Sequence[Turn], customer_id: str | None) -> tuple[list[str], Mapping[str, str]]:
        return [t.text for t in turns], {}

    return mask
