"""Pseudonyms: the one place where an id of a person or conversation becomes an id that may be stored.

A pseudonym is `<key id>:<32 hex digits>`, keyed BLAKE2b over purpose, tenant and value, so that ids of two
purposes or tenants cannot be joined, and nobody without the key can enumerate phone numbers or e-mails.
Customers are filed under the active key of a ring that is rotated; conversations, splits and the ledger
hang on one key that never is, because their ids must not change while records are in flight.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

FIXED_ID = "fixed"
"""Key id of pseudonyms under the key that is never rotated; no key of the ring may have it."""

MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 64
"""BLAKE2b takes keys of at most 64 bytes; below 16 a key can be guessed."""

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_EVENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class UnusableKeys(ValueError):
    """The deployment's secrets are missing or malformed; the message says which, and the rule."""


@dataclass(frozen=True)
class Keys:
    """The deployment's secrets: `active` names the key of `ring` for new pseudonyms; `fixed` is never rotated."""

    active: str
    ring: Mapping[str, bytes] = field(repr=False)
    fixed: bytes = field(repr=False)
    case_sensitive: frozenset[str] = frozenset()
    """Tenants whose customer ids differ by case alone; all others are casefolded."""

    def __post_init__(self) -> None:
        if self.active not in self.ring:
            raise UnusableKeys(f"keys.active is {self.active!r}; it must be a key id of keys.ring")
        for name in self.ring:
            if not _KEY_ID.fullmatch(name) or name == FIXED_ID:
                raise UnusableKeys(f"keys.ring has the key id {name!r}; use 1-16 of [A-Za-z0-9_-], not {FIXED_ID!r}")
        for name, secret in {**self.ring, FIXED_ID: self.fixed}.items():
            if not MIN_KEY_BYTES <= len(secret) <= MAX_KEY_BYTES:
                rule = f"it must have {MIN_KEY_BYTES} to {MAX_KEY_BYTES}"
                raise UnusableKeys(f"the secret of key {name!r} has {len(secret)} bytes; {rule}")


@dataclass(frozen=True)
class KeyConfig:
    """The key ring as settings give it: secrets in hex."""

    active: str = "k1"
    """Key id for new customer pseudonyms."""
    ring: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Key id -> secret, 32 to 128 hex digits. A key that is left out unlinks its pseudonyms for ever."""
    fixed: str = field(default="", repr=False)
    """Secret of conversation, split and ledger ids, 32 to 128 hex digits; never rotated."""
    case_sensitive: tuple[str, ...] = ()
    """Tenants whose customer ids differ by case alone."""

    def keys(self) -> Keys:
        """The keys themselves. Raises `UnusableKeys`."""
        ring = {name: _unhex(f"keys.ring.{name}", secret) for name, secret in self.ring.items()}
        return Keys(self.active, ring, _unhex("keys.fixed", self.fixed), frozenset(self.case_sensitive))


def pseudonym(keys: Keys, purpose: str, value: str, tenant: str = "") -> str:
    """The pseudonym of `value` under the active key: `<key id>:<hex>`."""
    return _under(keys.active, keys.ring[keys.active], purpose, canonical(keys, value, tenant), tenant)


def readable_pseudonyms(keys: Keys, purpose: str, value: str, tenant: str = "") -> list[str]:
    """The pseudonyms of `value` under every key of the ring, the active one first: for erasure and lookups."""
    value = canonical(keys, value, tenant)
    order = [keys.active, *(name for name in keys.ring if name != keys.active)]
    return [_under(name, keys.ring[name], purpose, value, tenant) for name in order]


def conversation_pseudonym(keys: Keys, conversation_id: str, tenant: str = "") -> str:
    """The conversation's id on every topic but chats.raw; never changes."""
    return _under(FIXED_ID, keys.fixed, "conversation", conversation_id, tenant)


def split_pseudonym(keys: Keys, value: str, tenant: str = "") -> str:
    """What decides train, val or test: of the customer's id if known, else of the conversation's; never changes."""
    return _under(FIXED_ID, keys.fixed, "split", canonical(keys, value, tenant), tenant)


def clean_event_id(keys: Keys, raw_id: str) -> str:
    """The event id itself when it is harmless in form, else its keyed digest."""
    if _EVENT_ID.fullmatch(raw_id):
        return raw_id
    return "e-" + _digest(keys.fixed, "event", raw_id, "")


def ledger_key(keys: Keys) -> bytes:
    """The key under which the ledger files events (32 bytes)."""
    return blake2b(b"ledger", key=keys.fixed, digest_size=32, person=b"derive").digest()


def value_key(keys: Keys) -> bytes:
    """The key under which conversation states hold digests of values (32 bytes)."""
    return blake2b(b"value", key=keys.fixed, digest_size=32, person=b"derive").digest()


def canonical(keys: Keys, value: str, tenant: str = "") -> str:
    """NFKC, trimmed, and casefolded unless the tenant's ids are case sensitive."""
    plain = unicodedata.normalize("NFKC", value).strip()
    return plain if tenant in keys.case_sensitive else plain.casefold()


def _under(key_id: str, secret: bytes, purpose: str, value: str, tenant: str) -> str:
    return f"{key_id}:{_digest(secret, purpose, value, tenant)}"


def _digest(secret: bytes, purpose: str, value: str, tenant: str) -> str:
    parts = [part.encode(errors="surrogatepass") for part in (purpose, tenant, value)]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return blake2b(framed, key=secret, digest_size=16, person=b"driftline").hexdigest()


def _unhex(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UnusableKeys(f"{name} is not hexadecimal; it must be 32 to 128 hex digits") from None
