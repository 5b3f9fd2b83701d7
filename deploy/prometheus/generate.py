"""Writes rules.yml: recording rules of the objectives and the alerts, from the tables below.

python deploy/prometheus/generate.py [--scale 1.0]     --scale shortens every window by a factor, for tests
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNBOOKS = "deploy/runbooks.md"
WINDOWS_S = {"5m": 300, "30m": 1800, "1h": 3600, "2h": 7200, "6h": 21600, "1d": 86400, "3d": 259200}
FAST = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
SLOW = (("1d", "2h", 3.0), ("3d", "6h", 1.0))
MINI_BATCH = 64
"""Fresh samples that make one mini-batch; fewer are no reason to wake anybody."""
JOBS = ("gateway", "clean", "learn", "node", "router", "rollout")


@dataclass(frozen=True)
class Objective:
    """A ratio of bad over all, its budget, and the range that the ratio is taken over."""

    name: str
    bad: str
    budget: float


OBJECTIVES = (
    Objective(
        "adapter_fresh",
        '1 - sum(rate(driftline_adapter_freshness_seconds_bucket{{le="300.0"}}[{window}]))'
        " / sum(rate(driftline_adapter_freshness_seconds_count[{window}]))",
        0.01,
    ),
    Objective(
        "webhook_acked",
        'sum(rate(driftline_webhook_requests_total{{outcome="unavailable"}}[{window}]))'
        ' / sum(rate(driftline_webhook_requests_total{{outcome=~"accepted|duplicate|unavailable"}}[{window}]))',
        0.001,
    ),
)


@dataclass(frozen=True)
class Alert:
    """One alert: who is told, after how long, and what it says."""

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    description: str
    keep: str = ""


def span(seconds: float) -> str:
    """A Prometheus duration, in milliseconds where it is below a second's grain."""
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{max(1, int(seconds * 1000))}ms"


class Rules:
    """The rule file for one scale of time."""

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale

    def window(self, name: str) -> str:
        """A window of the table, shortened by the scale; unchanged names at scale 1."""
        return name if self._scale == 1 else span(WINDOWS_S[name] * self._scale)

    def wait(self, minutes: float) -> str:
        """A `for` duration."""
        return f"{minutes:g}m" if self._scale == 1 else span(minutes * 60 * self._scale)

    def ratio(self, objective: Objective, window: str) -> str:
        """Name of a recording rule."""
        return f"driftline:{objective.name}:error_ratio_rate{window}"

    def burn(self, objective: Objective, pairs: Sequence[tuple[str, str, float]]) -> str:
        """Both windows of any pair burn the budget faster than its factor."""
        budget = f"{objective.budget:g}"
        terms = (
            f"({self.ratio(objective, long)} > {factor:g} * {budget} and {self.ratio(objective, short)} > {factor:g} * {budget})"
            for long, short, factor in pairs
        )
        return "\nor\n".join(terms)

    def recordings(self) -> list[dict[str, str]]:
        """One rule per objective and window."""
        return [
            {"record": self.ratio(objective, name), "expr": objective.bad.format(window=self.window(name))}
            for objective in OBJECTIVES
            for name in WINDOWS_S
        ]

    def alerts(self) -> list[Alert]:
        """Every alert: twelve, and those that personal data and the replay buffer need."""
        fresh = f'sum(driftline_replay_buffer_items{{state="fresh"}}) > {MINI_BATCH}'
        publishes = (
            f'sum(increase(driftline_adapter_publishes_total{{outcome=~"ok|refused"}}[{self.window("30m")}])) > 0'
        )
        steps = f'sum(increase(driftline_learner_steps_total{{outcome="ok"}}[{self.minutes(10)}])) > 0'
        absent = "\n".join(f'or absent(up{{job="driftline-{job}"}})' for job in JOBS)
        quarter = self.minutes(15)
        return [
            Alert("DriftlineFreshnessBudgetBurn", self.burn(OBJECTIVES[0], FAST), self.wait(2), "page",
                  "Chats reach the served model too late, and the month's budget is burning fast.",
                  "{{ $value | humanizePercentage }} of mini-batches took more than 5 minutes to a servable version; the objective is 1 %."),
            Alert("DriftlineFreshnessBudgetLeak", self.burn(OBJECTIVES[0], SLOW), self.wait(15), "ticket",
                  "Chats reach the served model too late, steadily.",
                  "{{ $value | humanizePercentage }} of mini-batches took more than 5 minutes over days; the objective is 1 %."),
            Alert("DriftlineWebhookBudgetBurn", self.burn(OBJECTIVES[1], FAST), self.wait(2), "page",
                  "Senders are told to come back later: chats are not being accepted.",
                  "{{ $value | humanizePercentage }} of signed webhooks were answered 503; the objective is 0.1 %."),
            Alert("DriftlineEventsUnaccounted", "max(driftline_unaccounted_events) > 0", self.wait(10), "page",
                  "Acknowledged chat events have no recorded outcome.",
                  "{{ $value }} events are older than 10 minutes and neither accepted, rejected, dead-lettered nor removed; it must be 0."),
            Alert("DriftlinePublishOverdue", f"{fresh}\nunless on () ({publishes})", self.wait(5), "page",
                  "New chats are waiting, and no version was published or refused for half an hour.",
                  f"{{{{ $value }}}} fresh samples wait in the replay buffer; {MINI_BATCH} make a mini-batch."),
            Alert("DriftlineLearnerStalled", f"{fresh}\nunless on () ({steps})", self.wait(5), "page",
                  "New chats are waiting, and the learner takes no steps.",
                  f"{{{{ $value }}}} fresh samples wait in the replay buffer; {MINI_BATCH} make a mini-batch."),
            Alert("DriftlineLagKeepsGrowing",
                  "sum by (topic) (driftline_consumer_lag_messages) > 100\n"
                  f"and sum by (topic) (delta(driftline_consumer_lag_messages[{self.minutes(10)}])) > 0", self.wait(15), "ticket",
                  "A topic is read more slowly than it is written.",
                  "{{ $labels.topic }} is {{ $value }} messages behind and growing; 100 is normal.", keep=self.minutes(10)),
            Alert("DriftlineWritesPaused", "max(driftline_replay_buffer_writes_paused) == 1", self.wait(5), "page",
                  "The stream has stopped before Redis: chats wait in Kafka.",
                  "writes_paused is {{ $value }}; 0 is normal. Kafka keeps chats.raw for hours only."),
            Alert("DriftlineDeadLettersHigh",
                  f'sum(rate(driftline_events_total{{outcome="dead_lettered"}}[{quarter}]))\n'
                  f"/ sum(rate(driftline_events_total[{quarter}])) > 0.01", self.wait(10), "ticket",
                  "Many chat events cannot be read or scrubbed.",
                  "{{ $value | humanizePercentage }} of events end as dead letters; 1 % is the limit."),
            Alert("DriftlinePersonalDataLeak",
                  f'sum(increase(driftline_pii_audited_turns_total{{result="leaking"}}[{quarter}]))\n'
                  f'+ sum(increase(driftline_pii_canaries_total{{result="survived"}}[{quarter}])) > 0', "0m", "page",
                  "Personal data passed the scrubber.",
                  "{{ $value | humanize }} audited turns leak or planted values survived in a quarter of an hour; 0 is normal."),
            Alert("DriftlineReplayBufferBroken",
                  f"sum by (table) (increase(driftline_replay_buffer_audit_failures_total[{quarter}])) > 0", "0m", "page",
                  "The replay buffer's indexes disagree.",
                  "{{ $value | humanize }} broken invariants in table {{ $labels.table }} within a quarter of an hour; 0 is normal."),
            Alert("DriftlineAdapterVerifyFailed", f"sum by (reason) (increase(driftline_adapter_verify_failures_total[{quarter}])) > 0",
                  "0m", "page", "A node refused an adapter version: it is damaged, forged or wrong.",
                  "{{ $value }} refusals for {{ $labels.reason }}; 0 is normal."),
            Alert("DriftlineCanaryRolledBack",
                  f'increase(driftline_canary_decisions_total{{decision="roll_back"}}[{self.window("1h")}]) > 0', "0m", "ticket",
                  "A version did worse with customers and was taken back.", "{{ $value }} roll-backs in the last hour."),
            Alert("DriftlineProcessDown", f'up{{job=~"driftline-.+"}} == 0\n{absent}', self.wait(2), "page",
                  "A process of driftline is down.", "{{ $labels.job }} {{ $labels.instance }} answers no scrape: up is {{ $value }}, 1 is normal."),
        ]  # fmt: skip

    def minutes(self, count: float) -> str:
        """A range in minutes, shortened by the scale."""
        return f"{count:g}m" if self._scale == 1 else span(count * 60 * self._scale)

    def text(self) -> str:
        """The rule file. JSON strings are YAML strings, so no YAML library is needed."""
        lines = [
            "# generated by deploy/prometheus/generate.py, do not edit",
            "groups:",
            "  - name: driftline-objectives",
            "    rules:",
        ]
        for rule in self.recordings():
            lines += [f"      - record: {rule['record']}", f"        expr: {json.dumps(rule['expr'])}"]
        lines += ["  - name: driftline-alerts", "    rules:"]
        for alert in self.alerts():
            lines += [f"      - alert: {alert.name}", "        expr: |"]
            lines += [f"          {line}" for line in alert.expr.splitlines()]
            lines += [f"        for: {alert.wait}"] + ([f"        keep_firing_for: {alert.keep}"] if alert.keep else [])
            lines += ["        labels:", f"          severity: {alert.severity}", "        annotations:"]
            lines += [
                f"          summary: {json.dumps(alert.summary)}",
                f"          description: {json.dumps(alert.description)}",
            ]
            lines += [f"          runbook_url: {RUNBOOKS}#{alert.name.lower()}"]
        return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    """Write rules.yml, or print a scaled copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    scale: float = parser.parse_args(argv).scale
    if scale == 1:
        (HERE / "rules.yml").write_text(Rules().text())
    else:
        sys.stdout.write(Rules(scale).text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
