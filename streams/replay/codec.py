"""Samples to bytes and back: digests, stored payloads, late labels laid over them.

A stored value is `slot u32 | mask u32 | version u8 | dictionary u8 | body`. The slot leads from a digest to its record,
the mask names targets that another sample trains; both are written by the insert script, the rest here.

PoisonedPayload   a stored value that cannot be read
"""

from __future__ import annotations

import struct
import threading
import zlib
from hashlib import blake2b
from importlib.resources import files

import msgspec
from zstandard import (
    DICT_TYPE_RAWCONTENT,
    ZstdCompressionDict,
    ZstdCompressor,
    ZstdDecompressor,
    ZstdError,
    frame_content_size,
)

from streams.events import Annotation, Label, Sample, Turn, encode_record
from streams.ledger import event_digest
from streams.replay.config import ReplayError

VERSION = 1
PLAIN, DEFLATED, ZSTD = 0, 1, 2
"""Dictionary ids: none; the preset dictionary under raw deflate, which is only read; and under Zstandard."""

LEVEL = 1
"""Of Zstandard: chats of 0.8 and 1 kB take 10 us, and 4 to read, at 0 and 9 % more bytes than deflate, which takes 29
and 8; level 3 takes 14 us for 2 % fewer bytes than level 1."""

MOST_BYTES = 2**24
"""Of a body: a frame that claims more is poison, not memory."""

DICTIONARY = files("streams.replay").joinpath("dictionary.txt").read_bytes()
"""Preset dictionary of generated phrases and field names: no customer's text, so it survives every erasure."""

LABELS: tuple[Label, ...] = ("unknown", "good", "bad")
"""Labels in the order of their codes."""

_HEAD = struct.Struct(">II")
_NOTE = struct.Struct("<8s8sBd")
_decoder = msgspec.json.Decoder(Sample)
_PLAIN_HEAD, _DEFLATED_HEAD, _ZSTD_HEAD = (bytes((VERSION, kind)) for kind in (PLAIN, DEFLATED, ZSTD))


class PoisonedPayload(ReplayError):
    """A stored payload of an unknown version or dictionary, or one that does not decode."""


class _Zstandard(threading.local):
    """Compressor and decompressor, primed with the dictionary, of each thread: two may not share them."""

    def __init__(self) -> None:
        words = ZstdCompressionDict(DICTIONARY, dict_type=DICT_TYPE_RAWCONTENT)
        words.precompute_compress(level=LEVEL)
        self.compress = ZstdCompressor(level=LEVEL, dict_data=words, write_dict_id=False).compress
        self.decompress = ZstdDecompressor(dict_data=words).decompress


_zstandard = _Zstandard()


class Coder:
    """Digests and payloads under one key; hashers are primed once and copied for each sample."""

    def __init__(self, key: bytes, *, compress: bool = True) -> None:
        self.key = key
        self._sample, self._customer, self._event = (
            blake2b(key=key, digest_size=8, person=person) for person in (b"sample", b"customer", b"ledger")
        )
        self._compress = compress

    def sample_digest(self, sample: Sample) -> bytes:
        """As `sample_digest`."""
        return _digest(self._sample, f"{sample.sample_id}|{sample.received_at:.3f}").digest()

    def customer_digest(self, customer: str) -> bytes:
        """As `customer_digest`."""
        return _digest(self._customer, customer).digest()

    def event_digest(self, event_id: str) -> str:
        """As `streams.ledger.event_digest`."""
        return _digest(self._event, event_id).hexdigest()

    def encode(self, sample: Sample) -> bytes:
        """As `encode_payload`."""
        body = encode_record(sample)
        return _ZSTD_HEAD + _zstandard.compress(body) if self._compress else _PLAIN_HEAD + body

    def decode(self, value: bytes, notes: bytes | None) -> Sample:
        """As `decode_payload`."""
        return decode_payload(value, notes, self.key)


def _digest(primed: blake2b, text: str) -> blake2b:
    hasher = primed.copy()
    hasher.update(text.encode(errors="surrogatepass"))
    return hasher


def sample_digest(sample: Sample, key: bytes) -> bytes:
    """Eight keyed bytes over sample id and Kafka timestamp: the same however often the sample is produced."""
    return Coder(key).sample_digest(sample)


def customer_digest(customer: str, key: bytes) -> bytes:
    """Eight keyed bytes of a customer's pseudonym, under which the buffer indexes what is theirs."""
    return Coder(key).customer_digest(customer)


def encode_payload(sample: Sample, *, compress: bool = True) -> bytes:
    """Version, dictionary id and body of a sample."""
    return Coder(b"", compress=compress).encode(sample)


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


def label_code(annotation: Annotation) -> int:
    """The stored code of a label."""
    return LABELS.index(annotation.label)


def _read(value: bytes) -> Sample:
    head, body = value[_HEAD.size : _HEAD.size + 2], value[_HEAD.size + 2 :]
    try:
        if head == _ZSTD_HEAD:
            if frame_content_size(body) > MOST_BYTES:
                raise PoisonedPayload(f"payload of {len(value)} bytes claims more than {MOST_BYTES}")
            body = _zstandard.decompress(body, allow_extra_data=False)
        elif head == _DEFLATED_HEAD:
            inflate = zlib.decompressobj(-15, zdict=DICTIONARY)
            body = inflate.decompress(body) + inflate.flush()
        elif head != _PLAIN_HEAD:
            raise PoisonedPayload(f"payload of version and dictionary {list(head)}")
        return _decoder.decode(body)
    except (ZstdError, zlib.error, msgspec.DecodeError) as error:
        raise PoisonedPayload(f"payload of {len(value)} bytes: {type(error).__name__}") from None


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
