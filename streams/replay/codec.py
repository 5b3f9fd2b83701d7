"""Samples to bytes and back: digests, stored payloads, late labels laid over them.

A stored value is `slot u32 | mask u32 | version u8 | dictionary u8 | body`. The slot leads from a digest to its record,
the mask names targets that another sample trains; both are written by the insert script, the rest here.

PoisonedPayload   a stored value that cannot be read
"""

from __future__ import annotations

import struct
import zlib
from hashlib import blake2b
from importlib.resources import files

import msgspec

from streams.events import Annotation, Label, Sample, Turn, decode_example, encode_record
from streams.ledger import event_digest
from streams.replay.config import ReplayError

VERSION = 1
PLAIN, DEFLATED = 0, 1
LEVEL = 4
"""Of zlib: on samples of 1.1 kB level 6 takes 40 % longer for 4 % fewer bytes, level 1 saves 4 us for 4 % more."""

DICTIONARY = files("streams.replay").joinpath("dictionary.txt").read_bytes()
"""Preset dictionary of generated phrases and field names: no customer's text, so it survives every erasure."""

LABELS: tuple[Label, ...] = ("unknown", "good", "bad")
"""Labels in the order of their codes."""

_HEAD = struct.Struct(">II")
_NOTE = struct.Struct("<8s8sBd")


class PoisonedPayload(ReplayError):
    """A stored payload of an unknown version or dictionary, or one that does not decode."""


def sample_digest(sample: Sample, key: bytes) -> bytes:
    """Eight keyed bytes over sample id and Kafka timestamp: the same however often the sample is produced."""
    text = f"{sample.sample_id}|{sample.received_at:.3f}"
    return blake2b(text.encode(), key=key, digest_size=8, person=b"sample").digest()


def customer_digest(customer: str, key: bytes) -> bytes:
    """Eight keyed bytes of a customer's pseudonym, under which the buffer indexes what is theirs."""
    return blake2b(customer.encode(), key=key, digest_size=8, person=b"customer").digest()


def encode_payload(sample: Sample, *, compress: bool = True) -> bytes:
    """Version, dictionary id and body of a sample."""
    body = encode_record(sample)
    if not compress:
        return bytes((VERSION, PLAIN)) + body
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -15, zdict=DICTIONARY)
    return bytes((VERSION, DEFLATED)) + deflate.compress(body) + deflate.flush()


def decode_payload(value: bytes, notes: bytes | None, key: bytes) -> Sample:
    """The sample of a stored value, late labels applied and foreign targets cleared. Raises `PoisonedPayload`."""
    sample = _read(value)
    mask = _HEAD.unpack_from(value)[1]
    if not mask and not notes:
        return sample
    late = {reply: (label, weight) for reply, label, weight in _notes(notes or b"")}
    turns, nth = [], 0
    for turn in sample.turns:
        if not turn.is_target:
            turns.append(turn)
            continue
        turns.append(_overlaid(turn, cleared=bool(mask >> nth & 1), late=late, key=key))
        nth += 1
    return msgspec.structs.replace(sample, turns=tuple(turns))


def targets(sample: Sample) -> list[tuple[int, Turn]]:
    """The sample's targets with their numbers in the mask."""
    return list(enumerate(turn for turn in sample.turns if turn.is_target))


def label_code(annotation: Annotation) -> int:
    """The stored code of a label."""
    return LABELS.index(annotation.label)


def _read(value: bytes) -> Sample:
    try:
        version, dictionary = value[_HEAD.size], value[_HEAD.size + 1]
        body = value[_HEAD.size + 2 :]
        if version != VERSION or dictionary not in {PLAIN, DEFLATED}:
            raise PoisonedPayload(f"payload of version {version}, dictionary {dictionary}")
        if dictionary == DEFLATED:
            inflate = zlib.decompressobj(-15, zdict=DICTIONARY)
            body = inflate.decompress(body) + inflate.flush()
        record = decode_example(body)
    except (zlib.error, msgspec.DecodeError, IndexError) as error:
        raise PoisonedPayload(f"payload of {len(value)} bytes: {type(error).__name__}") from None
    if not isinstance(record, Sample):
        raise PoisonedPayload("payload is no sample")
    return record


def _notes(raw: bytes) -> list[tuple[bytes, Label, float]]:
    whole = raw[: len(raw) - len(raw) % _NOTE.size]
    return [(reply, LABELS[label], weight) for reply, _, label, weight in _NOTE.iter_unpack(whole)]


def _overlaid(turn: Turn, *, cleared: bool, late: dict[bytes, tuple[Label, float]], key: bytes) -> Turn:
    if cleared:
        return msgspec.structs.replace(turn, is_target=False)
    if not late or turn.event_id is None:
        return turn
    found = late.get(bytes.fromhex(event_digest(turn.event_id, key)))
    if found is None:
        return turn
    return msgspec.structs.replace(turn, label=found[0], weight=found[1], is_target=found[1] > 0)
