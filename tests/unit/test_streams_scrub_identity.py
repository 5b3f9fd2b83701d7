"""Pseudonyms: vectors, domain separation, rotation, destroyed keys."""

import pytest

from streams.scrub.identity import (
    KeyConfig,
    Keys,
    clean_event_id,
    conversation_pseudonym,
    ledger_key,
    pseudonym,
    readable_pseudonyms,
    split_pseudonym,
    value_key,
)

OLD = Keys("k1", {"k1": b"1" * 32}, b"f" * 32)
NEW = Keys("k2", {"k1": b"1" * 32, "k2": b"2" * 32}, b"f" * 32)


def test_identity_known_vectors() -> None:
    """Stored ids must stay readable by later releases, so the bytes are pinned."""
    assert pseudonym(OLD, "customer", "C-17") == "k1:304b6da01c33b359dc07941f87032248"
    assert conversation_pseudonym(OLD, "conv 1") == "fixed:342b3b33ff18524c113386ae0cdd6412"
    assert clean_event_id(OLD, "a b") == "e-5a27d9712bee70a5d48c35b50129d07c"


def test_identity_separates_purpose_and_tenant() -> None:
    """The same value has unrelated ids in two purposes, two tenants, and across their boundary."""
    ids = {
        pseudonym(OLD, "customer", "x"),
        pseudonym(OLD, "value", "x"),
        pseudonym(OLD, "customer", "x", "t"),
        pseudonym(OLD, "customer", "tx"),
        conversation_pseudonym(OLD, "x"),
        split_pseudonym(OLD, "x"),
    }
    assert len({i.split(":")[1] for i in ids}) == 6
    assert ledger_key(OLD) != value_key(OLD)


def test_identity_canonicalises_customers() -> None:
    """Spaces, width and (unless the tenant says otherwise) case do not make a second customer."""
    assert pseudonym(OLD, "customer", " Ａnn@x.org ") == pseudonym(OLD, "customer", "ann@X.org")
    strict = Keys("k1", OLD.ring, OLD.fixed, frozenset({"t"}))
    assert pseudonym(strict, "customer", "A", "t") != pseudonym(strict, "customer", "a", "t")


def test_identity_rotation_keeps_conversations_and_finds_old_customers() -> None:
    """A new active key changes new customer ids only; the old ones stay findable while their key lives."""
    old = pseudonym(OLD, "customer", "C-17")
    assert pseudonym(NEW, "customer", "C-17") != old
    assert readable_pseudonyms(NEW, "customer", "C-17") == [pseudonym(NEW, "customer", "C-17"), old]
    assert conversation_pseudonym(NEW, "c") == conversation_pseudonym(OLD, "c")
    assert split_pseudonym(NEW, "C-17") == split_pseudonym(OLD, "C-17")


def test_identity_destroyed_key_unlinks() -> None:
    """Without the old key nothing derives the old pseudonym any more."""
    gone = Keys("k2", {"k2": b"2" * 32}, b"f" * 32)
    assert pseudonym(OLD, "customer", "C-17") not in readable_pseudonyms(gone, "customer", "C-17")


def test_identity_clean_event_id_is_kept_or_digested() -> None:
    """Harmless ids stay; others become a stable digest that is itself kept."""
    assert clean_event_id(OLD, "a.b:c-1_2") == "a.b:c-1_2"
    digested = clean_event_id(OLD, "mary@x.org 1")
    assert "mary" not in digested
    assert clean_event_id(OLD, digested) == digested
    assert clean_event_id(OLD, "x" * 129) != "x" * 129
    assert clean_event_id(OLD, "x\n") != "x\n"


@pytest.mark.parametrize(
    ("active", "ring", "fixed", "rule"),
    [
        ("k9", {"k1": b"1" * 32}, b"f" * 32, "keys.active"),
        ("fixed", {"fixed": b"1" * 32}, b"f" * 32, "key id 'fixed'"),
        ("k1", {"k1": b"short"}, b"f" * 32, "5 bytes"),
        ("k1", {"k1": b"1" * 32}, b"", "0 bytes"),
    ],
)
def test_identity_refuses_bad_keys(active: str, ring: dict[str, bytes], fixed: bytes, rule: str) -> None:
    """Every refusal names the key and the rule, never the secret."""
    with pytest.raises(ValueError, match=rule):
        Keys(active, ring, fixed)


def test_identity_key_config_reads_hex_and_hides_it() -> None:
    """Settings give hex; neither config nor keys show a secret in their repr."""
    config = KeyConfig("k1", {"k1": "ab" * 16}, "cd" * 16)
    assert config.keys().ring["k1"] == b"\xab" * 16
    assert "abab" not in repr(config) + repr(config.keys())
    with pytest.raises(ValueError, match=r"keys\.fixed"):
        KeyConfig("k1", {"k1": "ab" * 16}, "zz").keys()
