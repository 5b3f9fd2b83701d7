"""What chat platforms send and what files hold, read as chat events. Pure: bytes in, records out.

chats.py       a chat of any source -> chat events with ids that a second reading repeats
turns.py       what a turn says, where its text comes in parts
tables.py      traffic, events and conversations JSONL, CSV, Bitext CSV
mail.py        mbox threads without quotes and signatures
pages.py       FAQ and product pages, Markdown and HTML
answers.py     the same as plain text or JSON
signatures.py  are these bytes from the platform, and which event are they
platforms.py   webhook bodies of Zendesk, Intercom, Slack and Standard Webhooks -> chat events
"""

from streams.sources.chats import Chat, SourceRecord, Unreadable, chat_records
from streams.sources.formats import FORMATS, detect, read
from streams.sources.signatures import EventIds, Refused, verify

__all__ = [
    "FORMATS", "Chat", "EventIds", "Refused", "SourceRecord", "Unreadable", "chat_records", "detect", "read", "verify",
]  # fmt: skip
