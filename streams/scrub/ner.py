"""An optional named-entity recogniser whose finds join those of rules and tagger, or audit them.

Recognisers are far slower than a stream (tens of short texts a second), so none is the default. Packages are
imported by name when one is configured; a worker without it never loads them.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Protocol

from streams.scrub.detectors import find_rules
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


class Deadlined:
    """A backend whose callers wait at most `deadline_s` seconds; while one call hangs, no other is begun."""

    def __init__(self, backend: NerBackend, deadline_s: float) -> None:
        self._backend = backend
        self._deadline_s = deadline_s
        self._free = Lock()

    def entities(self, texts: list[str]) -> list[list[Span]]:
        """The backend's spans. Raises `TimeoutError` past the deadline, or while an earlier call still hangs."""
        if not self._free.acquire(blocking=False):
            raise TimeoutError("recogniser is busy")
        answer: SimpleQueue[list[list[Span]] | Exception] = SimpleQueue()
        Thread(target=self._answer, args=(texts, answer), daemon=True, name="recogniser").start()
        try:
            found = answer.get(timeout=self._deadline_s)
        except Empty:
            raise TimeoutError("recogniser is late") from None
        if isinstance(found, Exception):
            raise found
        return found

    def _answer(self, texts: list[str], answer: SimpleQueue[list[list[Span]] | Exception]) -> None:
        try:
            answer.put(self._backend.entities(texts))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            answer.put(error)
        finally:
            self._free.release()


class Thorough:
    """All rules once more on other readings of a text: small letters, nothing between single characters."""

    def entities(self, texts: list[str]) -> list[list[Span]]:
        """The spans that any reading shows, in the text's own code points; readings keep its length."""
        return [sorted({span for reading in _readings(text) for span in find_rules(reading)}) for text in texts]


_BETWEEN_SINGLES = re.compile(r"(?<=\b\w)[ ._/|*-](?=\w\b)")


def _readings(text: str) -> list[str]:
    """The text itself, in small letters where that keeps its length, and single characters joined by dashes."""
    lower = text.lower()
    return [text, *([lower] if len(lower) == len(text) else []), _BETWEEN_SINGLES.sub("-", text)]


def load(name: str, deadline_s: float) -> NerBackend:
    """The backend of a name: `presidio`, else a model for a transformers token-classification pipeline."""
    return Deadlined(presidio() if name == "presidio" else transformers(name), deadline_s)


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
