"""An optional named-entity recogniser whose finds join those of rules and tagger, or audit them.

Recognisers are far slower than a stream (tens of short texts a second), so none is the default. Packages are
imported by name when one is configured; a worker without it never loads them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from streams.scrub.spans import LABELS, Span

_LABELS = {
    name: label
    for label, names in {
        "PERSON": "PER PERSON",
        "PHONE": "PHONE_NUMBER",
        "EMAIL": "EMAIL_ADDRESS",
        "CARD": "CREDIT_CARD",
        "IBAN": "IBAN_CODE",
        "NATIONAL_ID": "US_SSN US_ITIN UK_NHS",
        "IP": "IP_ADDRESS",
        "PASSPORT": "US_PASSPORT",
        "DRIVER_LICENSE": "US_DRIVER_LICENSE",
        "ACCOUNT_ID": "US_BANK_NUMBER",
    }.items()
    for name in names.split()
}
"""What recognisers call the labels; places, dates and organisations stay readable."""


class NerBackend(Protocol):
    """Finds entities in a batch of texts; may be slow, may raise."""

    def entities(self, texts: list[str]) -> list[list[Span]]:
        """The spans of each text, in its own code points, under the labels of spans.py."""


class Recogniser:
    """A backend around any function from a text to (start, end, label in the recogniser's own words)."""

    def __init__(self, recognise: Callable[[str], Sequence[tuple[int, int, str]]]) -> None:
        self._recognise = recognise

    def entities(self, texts: list[str]) -> list[list[Span]]:
        """The spans whose labels mean personal data."""
        return [[(a, b, label) for a, b, name in self._recognise(text) if (label := _label(name))] for text in texts]


def load(name: str) -> NerBackend:
    """The backend of a name: `presidio`, else a model for a transformers token-classification pipeline."""
    return presidio() if name == "presidio" else transformers(name)


def presidio() -> NerBackend:
    """Presidio's analyzer with its default recognisers."""
    engine: Any = importlib.import_module("presidio_analyzer").AnalyzerEngine()
    return Recogniser(lambda text: [(r.start, r.end, r.entity_type) for r in engine.analyze(text, language="en")])


def transformers(model: str) -> NerBackend:
    """A token-classification model on disk or from a hub."""
    pipeline: Any = importlib.import_module("transformers").pipeline(
        "token-classification", model=model, aggregation_strategy="simple"
    )
    return Recogniser(lambda text: [(r["start"], r["end"], r["entity_group"]) for r in pipeline(text)])


def _label(name: str) -> str:
    label = _LABELS.get(name.upper().removeprefix("B-").removeprefix("I-"), name.upper())
    return label if label in LABELS else ""
