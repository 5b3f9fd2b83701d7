"""The leakage audit: its sample, what it counts, its bound; planted turns; the recogniser's deadline."""

import random
import threading

import pytest

from streams.scrub import Keys, ScrubConfig
from streams.scrub.audit import Canaries, LeakAudit, Turn, plant, upper_bound
from streams.scrub.ner import Deadlined, Recogniser, Thorough
from streams.scrub.spans import Span

KEYS = Keys("k1", {"k1": b"1" * 32}, b"f" * 32)
ALL = ScrubConfig(audit_share=1.0)


def test_audit_counts_leaks_and_keeps_no_text() -> None:
    """A value left in a masked turn is counted with its label and the turn's id; placeholders are no leaks."""
    audit = LeakAudit(ALL, KEYS)
    turns = [
        Turn("e1", "my card is <CARD_1>"),
        Turn("e2", "so 4 0 0 0 0 0 1 2 3 4 5 6 7 8 9 9 then"),
        Turn("e3", "write to ann@example.org and <EMAIL_2>"),
    ]
    found = audit.run(turns)
    assert (found.turns, found.failed) == (3, 0)
    assert found.leaking == ("e2", "e3")
    assert "EMAIL" in found.labels
    assert "example" not in repr(found)


def test_audit_samples_the_same_events_again() -> None:
    """Whether an event is in the sample depends on its id and the key alone; the share is kept."""
    audit = LeakAudit(ScrubConfig(audit_share=0.1), KEYS)
    chosen = [i for i in range(5_000) if audit.is_sampled(f"e{i}")]
    assert chosen == [i for i in range(5_000) if audit.is_sampled(f"e{i}")]
    assert 400 < len(chosen) < 600
    assert LeakAudit(ScrubConfig(audit_share=0.0), KEYS).run([Turn("e1", "ann@example.org")]).turns == 0


def test_audit_failure_is_counted_not_raised() -> None:
    """A recogniser that raises leaves the stream alone; its turns do not count as searched."""

    def broken(text: str) -> list[tuple[int, int, str]]:
        raise RuntimeError(text)

    found = LeakAudit(ALL, KEYS, Recogniser(broken)).run([Turn("e1", "blue"), Turn("e2", "sky")])
    assert found == (0, (), (), 2)


def test_audit_bound_is_exact() -> None:
    """No leak in 3,000 turns bounds the rate at 0.1 %; more turns tighten it, leaks widen it, nothing allows all."""
    assert upper_bound(0, 3_000) == pytest.approx(1 - 0.05 ** (1 / 3_000), rel=1e-9)
    assert upper_bound(0, 3_000) < 0.001 < upper_bound(0, 2_900)
    assert upper_bound(3, 3_000) == pytest.approx(0.0025825, rel=1e-4)
    assert upper_bound(0, 0) == upper_bound(2, 2) == 1.0


def test_audit_readings_keep_offsets() -> None:
    """Every span of every reading lies in the text that was given, whatever its letters do in lower case."""
    text = "\u0130 MAIL: Ann@Example.Org / C a r d 4 0 0 0 0 0 1 2 3 4 5 6 7 8 9 9"
    (spans,) = Thorough().entities([text])
    assert spans
    assert all(0 <= start < end <= len(text) for start, end, _ in spans)


def test_canaries_are_planted_and_masked() -> None:
    """Nothing of a hundred planted conversations comes through; each has values of its own."""
    rng = random.Random(11)
    canaries = Canaries(ScrubConfig(), KEYS)
    counts = [canaries.run(rng) for _ in range(100)]
    assert sum(survived for _, survived in counts) == 0
    assert sum(masked for masked, _ in counts) == 100 * sum(len(p.values) for p in plant(rng))


def test_canaries_notice_a_broken_scrubber() -> None:
    """With a scrubber that masks nothing every value survives."""
    masked, survived = Canaries(ScrubConfig(), KEYS, lambda event: getattr(event, "text", "")).run(random.Random(2))
    assert (masked, survived) == (0, sum(len(p.values) for p in plant(random.Random(2))))


def test_ner_deadline_fails_closed_and_recovers() -> None:
    """A call that hangs fails at the deadline, the next at once; when it has returned the backend serves again."""
    release = threading.Event()
    calls: list[str] = []

    class Slow:
        def entities(self, texts: list[str]) -> list[list[Span]]:
            calls.extend(texts)
            if texts == ["slow"]:
                release.wait(20)
            return [[(0, 4, "PERSON")] for _ in texts]

    backend = Deadlined(Slow(), 0.05)
    with pytest.raises(TimeoutError, match="late"):
        backend.entities(["slow"])
    with pytest.raises(TimeoutError, match="busy"):
        backend.entities(["next"])
    release.set()
    for _ in range(200):
        try:
            assert backend.entities(["Ines"]) == [[(0, 4, "PERSON")]]
            break
        except TimeoutError:
            threading.Event().wait(0.01)
    assert calls[0] == "slow"
    assert "next" not in calls


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"audit_share": 1.5}, "audit_share"),
        ({"ner_deadline_s": 0.0}, "ner_deadline_s"),
        ({"canary_every_s": -1.0}, "canary_every_s"),
    ],
)
def test_audit_settings_are_checked(values: dict[str, float], rule: str) -> None:
    """A setting that makes no sense is refused with its name."""
    with pytest.raises(ValueError, match=rule):
        ScrubConfig(**values)  # type: ignore[arg-type] # names come from the table above
