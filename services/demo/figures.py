"""Reads /metrics of every process and puts the figures of this moment together."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from services.local.supervisor import health


class Figures:
    """One look at the metrics of some processes; a process that does not answer counts as silent."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._samples: list[tuple[str, Mapping[str, str], float]] = []
        self.text: dict[str, str] = {}
        for name, port in ports.items():
            status, text = health(port, "/metrics")
            if status == http.client.OK:
                self.text[name] = text
                self._read(text)

    def total(self, metric: str, **labels: str) -> float:
        """Sum of a metric over all processes and over the labels that are not named."""
        return sum(value for _, value in self._matching(metric, labels))

    def split(self, metric: str, by: str, **labels: str) -> Counter[str]:
        """The same, by one label."""
        found: Counter[str] = Counter()
        for have, value in self._matching(metric, labels):
            found[have.get(by, "")] += int(value)
        return +found

    def rows(self) -> dict[str, str]:
        """What the demo shows."""
        events = "driftline_events_total"
        rejected = self.split("driftline_rejections_total", "reason")
        loss = {s: self.total("driftline_learner_loss", split=s) for s in ("train", "holdout")}
        buffer = self.split("driftline_replay_buffer_items", "state")
        return {
            "chats in": f"{self.total(events, stage='scrub'):.0f} events",
            "personal data masked": f"{self.total('driftline_pii_redactions_total'):.0f}",
            "rejected": ", ".join(f"{reason} {count}" for reason, count in rejected.most_common(6)),
            "buffer": ", ".join(f"{state} {count}" for state, count in sorted(buffer.items())),
            "steps": f"{self.total('driftline_learner_steps_total', outcome='ok'):.0f}",
            "loss": ", ".join(f"{split} {value:.2f}" for split, value in loss.items() if value),
            "gate": ", ".join(
                f"{k} {v}" for k, v in sorted(self.split("driftline_gate_decisions_total", "decision").items())
            ),
            "answers": ", ".join(
                f"{k} {v}" for k, v in sorted(self.split("driftline_reply_requests_total", "outcome").items())
            ),
        }

    def _matching(self, metric: str, labels: Mapping[str, str]) -> list[tuple[Mapping[str, str], float]]:
        return [
            (have, value)
            for name, have, value in self._samples
            if name == metric and all(have.get(k) == v for k, v in labels.items())
        ]

    def _read(self, text: str) -> None:
        for family in text_string_to_metric_families(text + "\n"):
            for sample in family.samples:
                self._samples.append((sample.name, sample.labels, sample.value))
