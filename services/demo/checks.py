"""Judges the demo by what was stored, answered and measured; every check has the name that scripts rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from services.demo.customers import until
from services.demo.figures import Figures
from services.demo.freshness import percentile, to_first_answer
from services.demo.search import Needles, file_contents, located, present, redis_contents, topic_contents
from streams.topics import BY_NAME, CHATS_RAW

if TYPE_CHECKING:
    from services.demo.acts import Acts
    from services.demo.run import Run

LEAST_GAIN = 0.40
"""Share of the base's held-out loss that the adapters must take away."""
FRESHNESS_S = 30.0
MEMORY_BYTES = 4 * 1024**3
ACCOUNTED_S = 30.0
STRUCTURED = frozenset({"email", "phone", "card", "iban", "ssn", "ip", "password", "order", "dob"})
"""Kinds of personal data that have a form; names and addresses are masked at a measured rate."""
CONTROL = "4929 1138 8870 2205"
"""Planted where it must be found, or the search proves nothing."""


def judge(run: Run) -> None:
    """Every check that any chats allow, into the evidence."""
    promoted(run)
    heldout(run)
    served(run)
    run.screen.say("reading when each sample was learned from and first served")
    freshness(run)
    run.screen.say("reconciling every event of the file")
    accounted(run)


def judge_planted(acts: Acts) -> None:
    """The checks that need planted facts and personal data."""
    changed_fact(acts)
    acts.screen.say("searching everything that is stored for the planted personal data")
    privacy(acts)


def promoted(run: Run) -> None:
    """At least one version of the learner reached all customers by canary."""
    found = [version for version in run.watch.promoted() if version not in run.planted]
    run.evidence.rollout["promoted"] = found
    weights = sorted({seen.record.weight for seen in run.watch.rollouts if seen.record.canary in found})
    steps = ", ".join(f"{weight:.0%}" for weight in weights if weight)
    run.evidence.check("promoted", f"{', '.join(found) or 'none'}; canary steps {steps}", passed=bool(found))


def heldout(run: Run) -> None:
    """The live version loses much less than the base on conversations that nothing was trained on."""
    rows = [
        {"id": d["version"], "parent": d["parent"], "nll": d["nll"], "decision": d["decision"], "why": d["why"]}
        for d in run.watch.decisions
    ]
    live = [d for d in run.watch.decisions if d["version"] in run.evidence.rollout["promoted"]]
    last: dict[str, Any] = live[-1] if live else {"examples": 0, "base_nll": None, "nll": None}
    run.evidence.heldout = {"examples": last["examples"], "base_nll": last["base_nll"], "versions": rows}
    gain = 1 - last["nll"] / last["base_nll"] if last["base_nll"] else 0.0
    detail = f"base {last['base_nll']}, live {last['nll']} nats a token on {last['examples']} chats: {gain:.0%} less"
    run.evidence.check("heldout_gain", detail, passed=gain >= LEAST_GAIN)


def changed_fact(acts: Acts) -> None:
    """The question whose true answer changed is answered the new way."""
    row = acts.evidence.facts[-1]
    detail = f"{row['question']} -> {row['answer_after']!r}, expected {row['expected']}"
    acts.evidence.check("changed_fact", detail, passed=acts.fact.states(row["answer_after"]) == "new")


def served(run: Run) -> None:
    """Every question got an answer that names its version."""
    answers, failed = run.answers, [answer for answer in run.answers if answer.failed]
    took = sorted(answer.took_s for answer in answers if not answer.failed)
    middle = f"{percentile(took, 0.5):.2f} s at the median" if took else "none"
    kinds = sorted({answer.failed for answer in failed})
    run.evidence.check(
        "served_without_failure", f"{len(answers)} answers, {len(failed)} failed {kinds or ''}, {middle}",
        passed=bool(answers) and not failed,
    )  # fmt: skip


def freshness(run: Run) -> None:
    """From the event that completes a sample to the first answer by a version that learned from it."""
    waits = to_first_answer(run)
    finite = [wait for wait in waits if wait != float("inf")]
    middle, high = percentile(waits, 0.5), percentile(waits, 0.95)
    run.evidence.freshness_s = {
        "p50": round(middle, 1) if middle != float("inf") else None,
        "p95": round(high, 1) if high != float("inf") else None, "n": len(waits),
    }  # fmt: skip
    detail = (
        f"p50 {middle:.1f} s, p95 {high:.1f} s over {len(waits)} trained samples, {len(waits) - len(finite)} not served"
    )
    run.evidence.check("freshness", detail, passed=bool(waits) and high <= FRESHNESS_S)


def accounted(run: Run) -> None:
    """`driftline reconcile` accounts for every event of the file, and nothing waits."""
    report: dict[str, Any] = {}

    def settled() -> bool:
        report.clear()
        report.update(reconciled(run))
        return bool(report) and not report["waiting"]

    until(settled, ACCOUNTED_S, every_s=2.0)
    run.evidence.events = dict(report)
    if not report:
        run.evidence.check("accounted", "reconcile gave no report", passed=False)
        return
    ended = report["accepted"] + sum(sum(report[name].values()) for name in ("rejected", "dead_lettered", "removed"))
    detail = (
        f"{report['events']} events: {report['accepted']} accepted, {sum(report['rejected'].values())} rejected, "
        f"{sum(report['dead_lettered'].values())} dead-lettered, {report['waiting']} waiting, "
        f"{len(report['missing'])} missing"
    )
    whole = ended == report["events"] and not report["missing"] and not report["waiting"]
    run.evidence.check("accounted", detail, passed=whole)


def reconciled(run: Run) -> dict[str, Any]:
    """What the command says of the demo's file."""
    events = run.args.events or run.stack.directory / "events.jsonl"
    command = [sys.executable, "-m", "services.cli", "reconcile", str(run.file), "--json", "--events", str(events)]
    done = subprocess.run(command, env=run.stack.environment(), capture_output=True, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {}
    return found


def privacy(run: Run) -> None:
    """Search every store, topic, log, metric and adapter file for what was planted, after finding a control value."""
    client = run.stack.redis()
    client.hset("demo:control", "text", f"my card is {CONTROL}")
    places = list(downstream(run))
    client.delete("demo:control")
    values = run.personal
    there = present(Needles([*values, CONTROL]), places)
    control = CONTROL in there
    found = located(there - {CONTROL}, places)
    hard = {hit.value for hit in found if values[hit.value] in STRUCTURED}
    soft = {hit.value for hit in found} - hard
    structured = [value for value, kind in values.items() if kind in STRUCTURED]
    masked = Figures(run.stack.supervisor.ports()).total("driftline_pii_redactions_total")
    run.evidence.privacy = {"planted": len(values), "masked": int(masked), "found_downstream": len(hard)}
    where = f" (in {', '.join(sorted({hit.place for hit in found if hit.value in hard})[:3])})" if hard else ""
    detail = (
        f"{len(structured)} values with a form: {len(hard)} found downstream{where}; "
        f"{len(values) - len(structured)} free names and addresses: {len(soft)} found; "
        f"{len(places)} stored values searched, control {'found' if control else 'NOT found'}"
    )
    run.evidence.check("privacy", detail, passed=control and not hard)


def downstream(run: Run) -> Iterator[tuple[str, bytes]]:
    """Everything stored or shown behind the scrubber."""
    yield from redis_contents(run.stack.redis())
    kafka = run.settings.kafka.client("search")
    yield from topic_contents(kafka, [name for name in BY_NAME if name != CHATS_RAW])
    for folder in ("redis", "logs", "store", "learner", "node-1", "node-2"):
        yield from file_contents(run.stack.directory / folder)
    for name, text in Figures(run.stack.supervisor.ports()).text.items():
        yield f"/metrics of {name}", text.encode()


def resources(run: Run) -> None:
    """Memory of all processes together, and time."""
    supervisor = run.stack.supervisor
    peak = supervisor.peak_pss_bytes
    used = supervisor.cpu_seconds()
    shares = ", ".join(f"{name} {seconds:.0f}" for name, seconds in sorted(used.items()))
    detail = f"peak {peak / 1024**2:.0f} MB (summed PSS); {sum(used.values()):.0f} CPU-seconds: {shares}"
    run.evidence.check("memory", detail, passed=0 < peak <= MEMORY_BYTES)
    seconds = run.screen.seconds
    run.evidence.check("time", f"{seconds:.0f} s, {supervisor.restarts} restarts", passed=seconds <= run.allowed_s)
