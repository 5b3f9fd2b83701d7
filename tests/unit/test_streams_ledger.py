"""The ledger: which moves an event's entry may make."""

from __future__ import annotations

import redis

from streams.ledger import Entry, Ledger, Outcome, event_digest, record_digest

KEY = b"k" * 16


def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client, KEY, ttl_s=60)


def test_ledger_waiting_becomes_accepted_once(redis_client: redis.Redis) -> None:
    """A waiting event is accepted with its sample, and stays so whatever is filed later."""
    book = ledger(redis_client)
    digest = book.digest("e-1")
    assert book.move(digest, Entry(Outcome.WAITING, effects=1))
    assert book.move(digest, Entry(Outcome.ACCEPTED, effects=1, samples=("aa",)))
    assert not book.move(digest, Entry(Outcome.REJECTED, "spam", 1))
    assert not book.move(digest, Entry(Outcome.ACCEPTED, effects=1, samples=("aa",)))
    assert book.move(digest, Entry(Outcome.ACCEPTED, effects=1, samples=("bb",)))
    assert book.read([digest]) == [Entry(Outcome.ACCEPTED, "", 1, ("aa", "bb"))]


def test_ledger_a_dead_letter_may_only_wait_again(redis_client: redis.Redis) -> None:
    """A dead letter moves to waiting when it is replayed, and to nothing else."""
    book = ledger(redis_client)
    digest = book.digest("e-2")
    assert book.move(digest, Entry(Outcome.DEAD_LETTERED, "wrong_type"))
    assert not book.move(digest, Entry(Outcome.ACCEPTED, effects=1, samples=("aa",)))
    assert book.move(digest, Entry(Outcome.WAITING))


def test_ledger_entries_expire(redis_client: redis.Redis) -> None:
    """An entry lives for its ttl and no longer."""
    book = ledger(redis_client)
    digest = book.digest("e-3")
    book.move(digest, Entry(Outcome.WAITING))
    assert 0 < int(redis_client.ttl(f"led:{digest}")) <= 60


def test_ledger_digests_are_keyed_and_framed() -> None:
    """Another key gives another digest, and key and value of a record cannot be confused."""
    assert event_digest("e", KEY) != event_digest("e", b"j" * 16)
    assert record_digest(b"ab", b"c", KEY) != record_digest(b"a", b"bc", KEY)
    assert record_digest(None, None, KEY) == record_digest(b"", b"", KEY)


def test_ledger_reads_nothing_from_nothing(redis_client: redis.Redis) -> None:
    """Unknown digests have no entry, and an empty question no answer."""
    assert ledger(redis_client).read([]) == []
    assert ledger(redis_client).read(["0" * 16]) == [None]
