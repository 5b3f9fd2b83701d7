"""Personal data: text in, the same text with placeholders out; nothing unscrubbed passes this package."""

from streams.scrub.api import find, find_record, find_rules, find_structured, scrub_conversation
from streams.scrub.config import ScrubConfig
from streams.scrub.conversation import ConversationState
from streams.scrub.identity import KeyConfig, Keys
from streams.scrub.masking import Quarantined
from streams.scrub.scrubber import Scrubber, scrub_messages

__all__ = [
    "ConversationState",
    "KeyConfig",
    "Keys",
    "Quarantined",
    "ScrubConfig",
    "Scrubber",
    "find",
    "find_record",
    "find_rules",
    "find_structured",
    "scrub_conversation",
    "scrub_messages",
]
