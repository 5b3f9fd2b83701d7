"""How scrubbing is configured; every limit fails closed: beyond it a turn is quarantined."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ScrubConfig:
    """Settings of the scrubber, the same for live turns, prompts and dry runs."""

    tagger: bool = True
    """Whether names and addresses are also looked for by the tagger (off: rules alone)."""
    ner: str = ""
    """A recogniser whose finds join: `presidio`, or a model for a transformers pipeline; empty for none."""
    ner_required: bool = True
    """Whether a turn that the recogniser fails on is quarantined; else rules and tagger stand alone."""
    ner_deadline_s: float = 2.0
    """Seconds that a turn waits for the recogniser; past them it has failed."""
    audit_share: float = 0.01
    """Share of masked turns that are searched again by a heavier detector; 0 turns the audit off."""
    audit_ner: str = ""
    """The recogniser of the audit, named as `ner` is; empty for all rules on other readings of the text."""
    canary_every_s: float = 60.0
    """Seconds between two synthetic conversations planted in front of the scrubber; 0 plants none."""
    hold_s: float = 0.0
    """Seconds that a turn that may be a piece of a value is held for the next one; 0 masks it at once instead."""
    max_chars: int = 16_384
    """Longest text, in characters; longer ones are quarantined unread."""
    max_spans: int = 512
    """Most values in one turn."""
    max_entities: int = 1_024
    """Most distinct values of one conversation."""
    max_events: int = 2_048
    """Most events of one conversation whose spans are remembered for redeliveries."""
    state_ttl_s: int = 7 * 86_400
    """Seconds that a conversation's state outlives its last event."""
    id_formats: tuple[str, ...] = ()
    """Regular expressions of the tenant's own order and account formats, each `LABEL:pattern`."""
    public_contacts: tuple[str, ...] = ()
    """E-mail addresses and phone numbers of the company itself, which stay readable."""
    public_names: tuple[str, ...] = ()
    """Names of the company, its products and places, which are nobody's personal data wherever they stand whole."""
    canaries: tuple[str, ...] = field(default=(), repr=False)
    """Planted values; one that survives masking quarantines its turn."""

    def __post_init__(self) -> None:
        for name in ("max_chars", "max_spans", "max_entities", "max_events", "state_ttl_s"):
            if getattr(self, name) < 1:
                raise ValueError(f"scrub.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.audit_share <= 1:
            raise ValueError(f"scrub.audit_share is {self.audit_share}; it must lie between 0 and 1")
        if self.ner_deadline_s <= 0:
            raise ValueError(f"scrub.ner_deadline_s is {self.ner_deadline_s}; it must be above 0")
        if self.canary_every_s < 0:
            raise ValueError(f"scrub.canary_every_s is {self.canary_every_s}; it must not be negative")
        if self.hold_s < 0:
            raise ValueError(f"scrub.hold_s is {self.hold_s}; it must not be negative")
        for rule in self.id_formats:
            label, _, pattern = rule.partition(":")
            if not label.isupper() or not pattern:
                raise ValueError(f"scrub.id_formats has {rule!r}; it must be LABEL:pattern")
            re.compile(pattern)
