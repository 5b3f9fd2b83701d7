"""Speed of scrubbers side by side, in an interpreter that has the peers: `python _scrub_peers.py TEXTS.json ROUNDS`.

Prints messages a second of thread time: the median of interleaved rounds, per system. Peers that are not installed
are left out. Presidio's e-mail recogniser would download a list at its first use: it is told not to.
"""

from __future__ import annotations

import importlib
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

Scrubber = Callable[[str], object]
SIX = ["EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "US_SSN", "IBAN_CODE", "IP_ADDRESS"]


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
    return lambda text: engine.analyze(text, language="en", entities=entities, score_threshold=0.0)


def datafog() -> Scrubber:
    """datafog's Python engine."""
    scan = importlib.import_module("datafog.engine").scan
    return lambda text: scan(text, engine="regex")


def scrubadub() -> Scrubber:
    """scrubadub's default detectors."""
    scrubber = importlib.import_module("scrubadub").Scrubber()
    return lambda text: list(scrubber.iter_filth(text))


SYSTEMS: dict[str, Callable[[], Scrubber]] = {
    "S1 find_structured": lambda: importlib.import_module("streams.scrub").find_structured,
    "S2 find_rules": lambda: importlib.import_module("streams.scrub").find_rules,
    "S3 find": lambda: importlib.import_module("streams.scrub").find,
    "presidio, all": lambda: presidio(None),
    "presidio, 6 types": lambda: presidio(SIX),
    "datafog-core": lambda: importlib.import_module("datafog_core").scan,
    "datafog": datafog,
    "scrubadub": scrubadub,
}


def main(argv: list[str]) -> int:
    """Time every system that is installed."""
    texts: list[str] = json.loads(Path(argv[0]).read_text())
    logging.disable(logging.WARNING)
    systems = {}
    for name, make in SYSTEMS.items():
        try:
            systems[name] = make()
            systems[name](texts[0])
        except ImportError:
            continue
    rates: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(int(argv[1])):
        for name, scrub in systems.items():
            count = 150 if "presidio" in name else len(texts)
            part = (texts[turn * 97 :] + texts[: turn * 97])[:count]
            started = time.thread_time()
            for text in part:
                scrub(text)
            rates[name].append(count / (time.thread_time() - started))
    print(json.dumps({name: statistics.median(found) for name, found in rates.items()}))  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
