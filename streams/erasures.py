"""A request to forget a customer, as every process hears it, and what each answers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One record of privacy.erasures: pseudonyms only, never the customer's own id."""

    erasure_id: str
    customers: tuple[str, ...]
    """The customer's pseudonyms under every readable key."""
    conversations: tuple[str, ...] = ()
    """Pseudonyms of conversations that are the customer's by what became known later."""
    digests: tuple[str, ...] = ()
    """Hex digest8 of every sample that was erased: batches in flight may hold them."""
    first_step: int = 0
    """First training step that saw a sample of the customer; 0 when none did."""
    first_steps: Mapping[str, int] = {}
    """The same by training table, where lines have their own."""
    requested_at: float


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One record of privacy.receipts: what a process did about an erasure."""

    erasure_id: str
    process: str
    complete: bool
    detail: Mapping[str, int | str] = {}


_erasure_decoder = msgspec.json.Decoder(Erasure)
_receipt_decoder = msgspec.json.Decoder(Receipt)


def encode(record: Erasure | Receipt) -> bytes:
    """The JSON bytes of a request or receipt."""
    return msgspec.json.encode(record)


def decode_erasure(value: bytes) -> Erasure:
    """Read a record of privacy.erasures. Raises msgspec.ValidationError."""
    return _erasure_decoder.decode(value)


def decode_receipt(value: bytes) -> Receipt:
    """Read a record of privacy.receipts. Raises msgspec.ValidationError."""
    return _receipt_decoder.decode(value)
