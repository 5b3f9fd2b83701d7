"""Payloads there and back, digests, and what a hostile or torn value does."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from streams.events import Pair, Sample, Turn, encode_record
from streams.ledger import event_digest
from streams.replay.codec import (
    DICTIONARY,
    MOST_BYTES,
    Coder,
    PoisonedPayload,
    customer_digest,
    decode_payload,
    encode_payload,
    sample_digest,
)
from tests.replay_fuzz import KEY, sample

HEAD = bytes(8)
TEXTS = st.text(max_size=200)
SAMPLES = st.builds(
    lambda texts, pair, lane: Sample(
        sample_id="e1/sft/0", conversation="fixed:1", customer="k1:2", lane=lane, split="val", received_at=5.25,
        completed_at=6.0, pair=pair, turns=tuple(Turn(role="agent", text=t, is_target=True) for t in texts),
    ),
    st.lists(TEXTS, max_size=4), st.none() | st.builds(Pair, TEXTS, TEXTS), TEXTS,
)  # fmt: skip


@given(given_sample=SAMPLES, compress=st.booleans())
def test_codec_returns_what_it_was_given(given_sample: Sample, *, compress: bool) -> None:
    """Any sample survives, compressed or not."""
    value = HEAD + encode_payload(given_sample, compress=compress)
    assert decode_payload(value, None, KEY) == given_sample


@given(st.binary(max_size=300))
def test_codec_hostile_values_are_poison(value: bytes) -> None:
    """Whatever bytes stand in Redis: a sample or `PoisonedPayload`, nothing else."""
    for prefix in (b"", HEAD, HEAD + b"\x01\x00", HEAD + b"\x01\x01", HEAD + b"\x01\x02", HEAD + b"\x01\x03"):
        with pytest.raises(PoisonedPayload):
            decode_payload(prefix + value, None, KEY)


def test_codec_reads_what_an_earlier_version_wrote() -> None:
    """Payloads under raw deflate stay readable."""
    item = sample(1, received_at=1.0)
    deflate = zlib.compressobj(2, zlib.DEFLATED, -13, 6, zdict=DICTIONARY)
    body = deflate.compress(encode_record(item)) + deflate.flush()
    assert decode_payload(HEAD + b"\x01\x01" + body, None, KEY) == item


def test_codec_refuses_what_would_not_fit_into_memory() -> None:
    """A frame that claims to be huge, or that something follows, is poison before anything is unpacked."""
    claims = ZstdCompressor().compress(bytes(MOST_BYTES + 1))
    for body in (claims, encode_payload(sample(1, received_at=1.0))[2:] + b"more"):
        with pytest.raises(PoisonedPayload):
            decode_payload(HEAD + b"\x01\x02" + body, None, KEY)


def test_codec_serves_threads_at_once() -> None:
    """Many threads write and read through one coder, and each gets back what it gave."""
    coder = Coder(KEY)

    def there_and_back(i: int) -> bool:
        items = [sample(i * 1_000 + n, received_at=1.0, reply="word " * n) for n in range(60)]
        return [coder.decode(HEAD + coder.encode(item), None) for item in items] == items

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(32)))


def test_codec_torn_notes_are_ignored() -> None:
    """Half a note behind whole ones changes nothing."""
    stored = HEAD + encode_payload(sample(1, received_at=1.0))
    reply = bytes.fromhex(event_digest("e1", KEY))
    note = reply + b"feedback" + b"\x02" + bytes(8)
    found = decode_payload(stored, note + note[:9], KEY)
    assert [turn.is_target for turn in found.turns] == [False, False]


def test_codec_digests_hang_on_key_id_and_time() -> None:
    """Another key, id or Kafka timestamp is another digest; text is not part of it."""
    one = sample(1, received_at=1.0)
    others = [
        sample_digest(one, b"x" * 32),
        sample_digest(sample(2, received_at=1.0), KEY),
        sample_digest(sample(1, received_at=1.5), KEY),
    ]
    assert sample_digest(one, KEY) not in others
    assert sample_digest(one, KEY) == sample_digest(sample(1, received_at=1.0, reply="other"), KEY)
    assert customer_digest("a", KEY) != customer_digest("a", b"x" * 32)


def test_codec_dictionary_halves_a_short_chat() -> None:
    """The preset dictionary earns its place on short samples, and holds nothing that looks like a person's."""
    item = sample(1, received_at=1.0, reply="I have reset your password, you will get an e-mail with a link shortly.")
    assert len(encode_payload(item)) < 0.5 * len(encode_record(item))
    assert b"@" not in DICTIONARY
