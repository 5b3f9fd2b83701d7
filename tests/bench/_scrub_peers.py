"""Scrubbers side by side, in an interpreter that has the peers: `python _scrub_peers.py INPUT.json ROUNDS`.

The input holds `texts` to be timed and `rows` of text and values (start, end, label) to be found. Prints messages a
second of thread time (the median of interleaved rounds) and values wholly covered by label, for every system that is
installed. Presidio's e-mail recogniser would download a list at its first use: it is told not to.
"""

from __future__ import annotations

import importlib
import json
import logging
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

Scrubber = Callable[[str], Iterable[tuple[int, int]]]
SIX = ["EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "US_SSN", "IBAN_CODE", "IP_ADDRESS"]
SLOW = 150
"""Messages of one round of Presidio."""


def own(name: str) -> Scrubber:
    """One of our functions."""
    function = getattr(importlib.import_module("streams.scrub"), name)
    return lambda text: [(start, end) for start, end, _ in function(text)]


def presidio(entities: list[str] | None) -> Scrubber:
    """The analyzer without a language model, at threshold 0."""
    analyzer: Any = importlib.import_module("presidio_analyzer")
    nlp = importlib.import_module("presidio_analyzer.nlp_engine").NoOpNlpEngine(
        models=[{"lang_code": "en", "model_name": "none"}]
    )
    registry = analyzer.RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=nlp)
    for recogniser in [r for r in registry.recognizers if "Spacy" in type(r).__name__]:
        registry.recognizers.remove(recogniser)
    engine = analyzer.AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=["en"])
    return lambda text: [
        (r.start, r.end) for r in engine.analyze(text, language="en", entities=entities, score_threshold=0.0)
    ]


def datafog() -> Scrubber:
    """datafog's Python engine."""
    scan = importlib.import_module("datafog.engine").scan
    return lambda text: [(found.start, found.end) for found in scan(text, engine="regex").entities]


def datafog_core() -> Scrubber:
    """datafog's Rust engine."""
    scan = importlib.import_module("datafog_core").scan
    return lambda text: [(found.codepoint_range.start, found.codepoint_range.end) for found in scan(text)]


def scrubadub() -> Scrubber:
    """scrubadub's default detectors."""
    scrubber = importlib.import_module("scrubadub").Scrubber()
    return lambda text: [(found.beg, found.end) for found in scrubber.iter_filth(text)]


SYSTEMS: dict[str, Callable[[], Scrubber]] = {
    "S1 find_structured": lambda: own("find_structured"),
    "S2 find_rules": lambda: own("find_rules"),
    "S3 find": lambda: own("find"),
    "presidio, all": lambda: presidio(None),
    "presidio, 6 types": lambda: presidio(SIX),
    "datafog-core": datafog_core,
    "datafog": datafog,
    "scrubadub": scrubadub,
}
OURS = frozenset(name for name in SYSTEMS if name[0] == "S" and name[1].isdigit())


def installed(texts: list[str]) -> dict[str, Scrubber]:
    """The systems that can be imported, warmed up."""
    systems = {}
    for name, make in SYSTEMS.items():
        try:
            systems[name] = make()
            for text in texts[:SLOW]:
                systems[name](text)
        except ImportError:
            continue
    return systems


def rates(systems: dict[str, Scrubber], texts: list[str], rounds: int) -> dict[str, float]:
    """Messages a second of each system: medians of rounds in which all take their turn."""
    found: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(rounds):
        order = texts[turn * 97 :] + texts[: turn * 97]
        for name, scrub in systems.items():
            part = order[:SLOW] if "presidio" in name else order
            started = time.thread_time()
            for text in part:
                scrub(text)
            found[name].append(len(part) / (time.thread_time() - started))
    return {name: statistics.median(values) for name, values in found.items()}


def covered(scrub: Scrubber, rows: list[Any]) -> dict[str, int]:
    """Values of each label whose every letter and digit is masked."""
    found: Counter[str] = Counter()
    for text, values in rows:
        masked = {i for start, end in scrub(text) for i in range(start, end)}
        for start, end, label in values:
            found[label] += all(i in masked for i in range(start, end) if text[i].isalnum())
    return dict(found)


def main(argv: list[str]) -> int:
    """Time and score every system that is installed."""
    given: dict[str, Any] = json.loads(Path(argv[0]).read_text())
    logging.disable(logging.WARNING)
    systems = installed(given["texts"])
    answer = {
        "rates": rates(systems, given["texts"], int(argv[1])),
        "covered": {name: covered(scrub, given["rows"]) for name, scrub in systems.items() if name not in OURS},
    }
    print(json.dumps(answer))  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
