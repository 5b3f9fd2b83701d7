"""Judges the demo by what was stored, answered and measured; every check has the name that scripts rely on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from services.demo.figures import Figures
from services.demo.search import Needles, file_contents, redis_contents, search, topic_contents
from streams.topics import BY_NAME, CHATS_RAW

if TYPE_CHECKING:
    from services.demo.chats import Planted
    from services.demo.scenario import Demo

LEAST_GAIN = 0.40
"""Share of the base's held-out loss that the adapters must take away."""
FRESHNESS_S = 30.0
MEMORY_BYTES = 4 * 1024**3
STRUCTURED = frozenset({"email", "phone", "card", "iban", "ssn", "ip", "password", "order", "dob"})
"""Kinds of personal data that have a form; names and addresses are masked at a measured rate."""


def privacy(demo: Demo, planted: Planted) -> None:
    """Search every store, topic, log, metric and adapter file for what was planted, after finding a control value."""
    control = "control 4929 1138 8870 2205"
    places = list(downstream(demo))
    seen_control = bool(search(Needles([control]), [("control", f'{{"text": "{control}"}}'.encode())]))
    values = {value: kind for kind, value in planted.personal}
    found = search(Needles(values), places)
    hard = {hit.value for hit in found if values[hit.value] in STRUCTURED}
    soft = {hit.value for hit in found} - hard
    structured = [value for value, kind in values.items() if kind in STRUCTURED]
    masked = Figures(demo.stack.supervisor.ports()).total("driftline_pii_redactions_total")
    demo.evidence.privacy = {"planted": len(values), "masked": int(masked), "found_downstream": len(hard)}
    free = len(values) - len(structured)
    where = f"; in {', '.join(sorted({hit.place for hit in found if hit.value in hard})[:3])}" if hard else ""
    detail = (
        f"{len(structured)} values with a form: {len(hard)} found downstream{where}; "
        f"{free} free names and addresses: {len(soft)} found; {len(places)} stored values searched"
    )
    demo.evidence.check("privacy", detail, passed=seen_control and not hard)


def downstream(demo: Demo) -> Iterator[tuple[str, bytes]]:
    """Everything stored or shown behind the scrubber."""
    yield from redis_contents(demo.stack.redis())
    kafka = demo.settings.kafka.client("search")
    yield from topic_contents(kafka, [name for name in BY_NAME if name != CHATS_RAW])
    for folder in ("redis", "logs", "store", "learner", "node-1", "node-2"):
        yield from file_contents(demo.stack.directory / folder)
    for name, text in Figures(demo.stack.supervisor.ports()).text.items():
        yield f"/metrics of {name}", text.encode()
