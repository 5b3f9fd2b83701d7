"""Dead letters: where a record stands that could not be used, and why; never what it says.

The headers are Kafka Connect's, so that its tools can read them; `driftline.entry` is the ledger's digest of the event.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from streams.lanes import Incoming
from streams.outbox import Record

_CONNECT = "__connect.errors."
ENTRY = "driftline.entry"


@dataclass(frozen=True)
class Letter:
    """A dead letter's content: the record's place, the stage that failed, the class of the error and its reason."""

    topic: str
    partition: int
    offset: int
    stage: str
    error: str
    reason: str
    entry: str
    key_bytes: int = 0
    value_bytes: int = 0

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """As they travel."""
        named = {
            "topic": self.topic, "partition": self.partition, "offset": self.offset, "stage": self.stage,
            "exception.class.name": self.error, "exception.message": self.reason,
            "key.bytes": self.key_bytes, "value.bytes": self.value_bytes,
        }  # fmt: skip
        connect = tuple((_CONNECT + name, str(value).encode()) for name, value in named.items())
        return (*connect, (ENTRY, self.entry.encode()))


def record(target: str, letter: Letter, incoming: Incoming, key: bytes) -> Record:
    """The dead letter on topic `target`: a keyed digest instead of the key, headers, and no value."""
    digest = blake2b(incoming.key or b"", key=key, digest_size=16, person=b"deadletter").hexdigest()
    traced = tuple(header for header in incoming.headers if header[0] == "traceparent")
    return Record(target, digest.encode(), None, (*letter.headers(), *traced))


def read(headers: list[tuple[str, bytes]]) -> Letter:
    """The letter in a record's headers. Raises KeyError or ValueError for a record that is none."""
    found = {name: value.decode() for name, value in headers}
    return Letter(
        found[_CONNECT + "topic"], int(found[_CONNECT + "partition"]), int(found[_CONNECT + "offset"]),
        found[_CONNECT + "stage"], found[_CONNECT + "exception.class.name"], found[_CONNECT + "exception.message"],
        found.get(ENTRY, ""), int(found.get(_CONNECT + "key.bytes", 0)), int(found.get(_CONNECT + "value.bytes", 0)),
    )  # fmt: skip
