"""The canary controller: evidence in order, states under faults, the fenced store, resuming, commands by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from prometheus_client import CollectorRegistry

from services.rollout import machine
from services.rollout.controller import Controller, Fleet
from services.rollout.erasures import Erasures
from services.rollout.evidence import Evidence
from services.rollout.machine import Phase, State, World
from services.rollout.metrics import RolloutMetrics
from services.rollout.store import Checkpoint, Conflict, Fenced, Store
from services.rollout_records import BASE, NodeRecord, NodeState, RolloutRecord, VersionRecord, VersionStatus
from services.serving_config import RolloutConfig, demo_rollout
from services.topic_feed import Record
from streams.erasures import Erasure, Receipt
from streams.rollout_events import Exposure, Metric, Outcome, encode
from streams.topics import EXPOSURES, OUTCOMES

CONFIG = RolloutConfig(**demo_rollout())  # type: ignore[arg-type]
DRAIN = 1e9


def exposure(number: int, arm: str = "candidate", *, p: float = 0.5, ts: float | None = None, **more: Any) -> Exposure:
    """The exposure of conversation `number`, one second apart."""
    return Exposure(
        rollout_id="r1", generation=1, line="a", conversation_id=f"c{number:05}", arm=arm,  # type: ignore[arg-type]
        version="v", p=p, ts=float(number) if ts is None else ts, **more,
    )  # fmt: skip


def outcome(number: int, metric: Metric = Metric.NEGATIVE, *, after: float = 1.0, bad: bool = True) -> Outcome:
    """Something of conversation `number`, `after` its exposure."""
    return Outcome(conversation_id=f"c{number:05}", metric=metric, bad=bad, event_ts=number + after)


def traffic(seed: int, count: int, rates: dict[str, float], p: float = 0.5) -> list[Exposure | Outcome]:
    """Conversations with bad outcomes at a rate by arm, in the order in which they happened."""
    draw = random.Random(seed)
    events: list[Exposure | Outcome] = []
    for number in range(1, count + 1):
        arm = "candidate" if draw.random() < p else "control"
        events.append(exposure(number, arm, p=p))
        if draw.random() < rates[arm]:
            events.append(outcome(number, after=draw.uniform(0.1, 3.9)))
    return events


def when(event: Exposure | Outcome) -> float:
    """When it happened."""
    return event.ts if isinstance(event, Exposure) else event.event_ts


def feed(evidence: Evidence, events: list[Exposure | Outcome]) -> None:
    """Hand events over as they come."""
    for event in events:
        evidence.expose(event) if isinstance(event, Exposure) else evidence.observe(event)


def test_rollout_evidence_does_not_depend_on_arrival() -> None:
    """Shuffled, repeated and delayed within the grace: the same floats, bit for bit, as in order."""
    events = traffic(1, 400, {"candidate": 0.3, "control": 0.1})
    straight = Evidence(CONFIG, "r1")
    feed(straight, events)
    straight.advance(DRAIN)
    for seed in range(5):
        mixed = events + random.Random(seed).sample(events, 100)
        random.Random(seed).shuffle(mixed)
        other = Evidence(CONFIG, "r1")
        feed(other, mixed)
        other.advance(DRAIN)
        assert other.keep() == straight.keep()
    assert sum(straight.matured.values()) == 400


def test_rollout_evidence_grows_the_same_in_small_steps() -> None:
    """However often it is advanced while the stream runs, the result is that of one look at the end."""
    events = traffic(2, 200, {"candidate": 0.2, "control": 0.2})
    once, often = Evidence(CONFIG, "r1"), Evidence(CONFIG, "r1")
    feed(once, events)
    once.advance(DRAIN)
    for event in sorted(events, key=when):
        feed(often, [event])
        often.advance(when(event))
    often.advance(DRAIN)
    assert often.keep() == once.keep()


def test_rollout_evidence_counts_only_what_came_within_the_window() -> None:
    """Later than W is good and counted as late; the first outcome of a conversation and metric wins, by its time."""
    evidence = Evidence(CONFIG, "r1")
    feed(evidence, [exposure(1), outcome(1, after=4.1)])
    feed(evidence, [exposure(2), outcome(2, after=2.0), outcome(2, after=1.0, bad=False)])
    feed(evidence, [outcome(3, after=1.0), exposure(3), outcome(99)])
    evidence.advance(DRAIN)
    assert evidence.harm[Metric.NEGATIVE].candidate == 3
    assert evidence.harm[Metric.NEGATIVE].candidate_bad == 1
    assert evidence.late == {"candidate": 1, "control": 0}
    feed(evidence, [outcome(2, after=9.0), outcome(2, after=1.0), outcome(3, after=9.0, bad=False)])
    assert evidence.late == {"candidate": 2, "control": 0}, "late, a repeat, and late but good"


def test_rollout_evidence_waits_for_each_window() -> None:
    """A metric with a short window matures first; a conversation counts as matured when all have."""
    evidence = Evidence(replace(CONFIG, windows_s={**CONFIG.windows_s, "negative": 4.0}), "r1")
    feed(evidence, [exposure(1)])
    evidence.advance(1 + 2.0 + CONFIG.grace_s + 0.01)
    assert evidence.harm[Metric.ERROR].candidate == 1
    assert evidence.harm[Metric.NEGATIVE].candidate == 0
    assert evidence.matured["candidate"] == 0
    evidence.advance(1 + 4.0 + CONFIG.grace_s + 0.01)
    assert evidence.matured["candidate"] == 1
    assert evidence.oldest_open() is None


def test_rollout_evidence_leaves_out_degraded_and_late_conversations() -> None:
    """Any degraded turn takes a conversation out of both arms; one that arrives after its slot is only SRM-tested."""
    evidence = Evidence(CONFIG, "r1")
    feed(evidence, [exposure(1), exposure(2, "control"), exposure(1, degraded=True)])
    feed(evidence, [exposure(10)])
    evidence.advance(DRAIN)
    assert (evidence.matured["candidate"], evidence.matured["control"]) == (1, 1)
    feed(evidence, [exposure(5), exposure(10), exposure(10)])
    evidence.advance(DRAIN)
    assert evidence.matured["candidate"] == 1
    assert evidence.srm_late.seen == 1, "late once; repeats of known conversations are nothing"
    feed(evidence, [replace_rollout(exposure(20), "r2")])
    assert evidence.oldest_open() is None


def replace_rollout(event: Exposure, rollout: str) -> Exposure:
    """The same exposure of another rollout."""
    return msgspec.structs.replace(event, rollout_id=rollout)


def test_rollout_evidence_finds_a_lost_arm() -> None:
    """A fifth of the candidate's exposures lost: the sample ratio alarms."""
    draw = random.Random(5)
    evidence = Evidence(CONFIG, "r1")
    for number in range(1, 6001):
        arm = "candidate" if draw.random() < 0.5 else "control"
        if arm == "control" or draw.random() > 0.2:
            evidence.expose(exposure(number, arm))
    evidence.advance(DRAIN)
    assert evidence.skewed()


@pytest.mark.parametrize("cut", [3, 50, 151, 398])
def test_rollout_evidence_resumes_with_the_same_floats(cut: int) -> None:
    """Stopped anywhere and read again from the oldest open conversation: no event counts twice, none is missed."""
    events = sorted(
        traffic(3, 300, {"candidate": 0.4, "control": 0.2}),
        key=lambda e: e.ts if isinstance(e, Exposure) else e.event_ts,
    )
    whole = Evidence(CONFIG, "r1")
    feed(whole, events)
    whole.advance(DRAIN)
    first = Evidence(CONFIG, "r1")
    feed(first, events[:cut])
    first.advance(float(cut) * 0.6)
    kept = msgspec.json.decode(msgspec.json.encode(first.keep()), type=type(first.keep()))
    oldest = first.oldest_open()
    second = Evidence(CONFIG, "r1", kept)
    for index, event in enumerate(events):
        if isinstance(event, Outcome):
            second.observe(event)
        elif oldest is None or event.ts >= oldest or index >= cut:
            second.expose(event, replayed=index < cut)
    second.advance(DRAIN)
    assert second.keep() == whole.keep()


def node(name: str, generation: int, **states: NodeState) -> NodeRecord:
    """A node's report; versions as keywords with _ for -."""
    versions = {v.replace("_", "-"): VersionStatus(role="canary", state=s, reason="numbers") for v, s in states.items()}
    return NodeRecord(
        node=name, url="http://n", generation=generation, versions=versions, engine="e", started_at=0, at=0, every_s=1
    )


V1, V2, V3 = "a000001-00000001", "a000002-00000002", "a000003-00000003"


def version(name: str, against: str = BASE, **more: Any) -> VersionRecord:
    """A published version."""
    return VersionRecord(id=name, digest="d", gated_against=against, **more)


class Sim:
    """A machine, a world that can be set, and nodes that obey or not."""

    def __init__(self, config: RolloutConfig = CONFIG) -> None:
        self.config = config
        self.state = State(record=RolloutRecord(generation=1))
        self.evidence = Evidence(config, "")
        self.now = 1000.0
        self.versions: dict[str, VersionRecord] = {}
        self.nodes: list[NodeRecord] = []
        self.killed: frozenset[str] = frozenset()
        self.silence_s = 0.0
        self.invalid: dict[str, str] = {}
        self.count = 0
        self.decisions: list[tuple[str | None, str]] = []

    def fresh(self) -> str:
        """Counted ids."""
        self.count += 1
        return f"x{self.count}"

    def publish(self, *names: str, against: str = BASE) -> None:
        """Versions that learn announced."""
        for name in names:
            self.versions[name] = version(name, against)

    def obey(self, count: int = 2, state: NodeState = NodeState.READY) -> None:
        """Every node acts on the record and has everything that it names in a state."""
        roles = self.state.record.roles()
        self.nodes = [
            node(f"n{n}", self.state.record.generation, **{v.replace("-", "_"): state for v in roles})
            for n in range(count)
        ]

    def tick(self) -> State:
        """One look."""
        self.now += 1.0
        world = World(
            now=self.now, versions=self.versions, nodes=self.nodes, killed=self.killed, silence_s=self.silence_s,
            valid=self.invalid.get, fresh=self.fresh,
        )  # fmt: skip
        found = machine.tick(self.state, world, self.evidence, self.config)
        if found.state.record.rollout_id != self.state.record.rollout_id:
            self.evidence = Evidence(self.config, found.state.record.rollout_id)
        self.state = found.state
        self.decisions.append((found.decision, found.reason))
        return self.state

    def to_canary(self, name: str = V1) -> None:
        """A candidate on all nodes, first stage."""
        self.publish(name)
        self.tick()
        self.obey()
        self.tick()
        assert self.state.phase is Phase.CANARY

    def mature(self, bad: dict[str, float], count: int = 60) -> None:
        """Conversations at the present weight, all matured."""
        draw = random.Random(self.count)
        start = int(self.evidence.newest) + 1
        p = self.state.record.weight
        for number in range(start, start + count):
            arm = "candidate" if draw.random() < p else "control"
            self.evidence.expose(
                msgspec.structs.replace(exposure(number, arm, p=p), rollout_id=self.evidence.rollout_id)
            )
            if draw.random() < bad[arm]:
                self.evidence.observe(outcome(number, Metric.NEGATIVE))
        self.evidence.advance(DRAIN)


def test_rollout_promotes_a_good_candidate_stage_by_stage() -> None:
    """IDLE -> DISTRIBUTING -> 25 % -> 50 % -> PROMOTING -> SOAKING with holdback -> IDLE."""
    sim = Sim()
    sim.to_canary()
    assert sim.state.record.weight == 0.25
    sim.mature({"candidate": 0.1, "control": 0.1})
    assert sim.tick().record.weight == 0.5
    for _ in range(30):
        sim.mature({"candidate": 0.05, "control": 0.1})
        if sim.tick().phase is Phase.PROMOTING:
            break
    record = sim.state.record
    assert (record.stable, record.previous, record.canary, record.holdback) == (V1, BASE, None, 0.1)
    sim.tick()
    assert sim.state.phase is Phase.PROMOTING, "not all nodes have acted"
    sim.obey()
    assert sim.tick().phase is Phase.SOAKING
    assert record.arms() == (V1, BASE, 0.9)
    sim.now += CONFIG.soak_s
    assert sim.tick().phase is Phase.IDLE
    assert sim.state.record.holdback == 0.0


def test_rollout_rolls_back_what_harms_with_one_record() -> None:
    """Proven harm: canary gone, weight 0, denied, one generation; the same id is never proposed again."""
    sim = Sim()
    sim.to_canary()
    before = sim.state.record.generation
    sim.mature({"candidate": 0.9, "control": 0.05}, 200)
    sim.tick()
    record = sim.state.record
    assert sim.state.phase is Phase.ROLLING_BACK
    assert (record.canary, record.weight, record.deny, record.generation) == (None, 0.0, (V1,), before + 1)
    assert record.reason == "harm: negative"
    sim.tick()
    assert sim.state.phase is Phase.ROLLING_BACK, "a node still has it"
    sim.obey()
    assert sim.tick().phase is Phase.IDLE
    for _ in range(3):
        assert sim.tick().phase is Phase.IDLE


@pytest.mark.parametrize(("nodes", "refusing", "back"), [(1, 1, True), (2, 1, False), (2, 2, True), (5, 2, True)])
def test_rollout_goes_back_at_once_when_nodes_refuse(nodes: int, refusing: int, *, back: bool) -> None:
    """Tier 0: a refusal on two nodes, or on the only one."""
    sim = Sim()
    sim.publish(V1)
    sim.tick()
    key = V1.replace("-", "_")
    sim.nodes = [
        node(f"n{n}", 2, **{key: NodeState.QUARANTINED if n < refusing else NodeState.LOADING}) for n in range(nodes)
    ]
    sim.tick()
    assert (sim.state.phase is Phase.ROLLING_BACK) == back
    assert (V1 in sim.state.record.deny) == back


def test_rollout_goes_back_at_once_for_poison_and_the_kill_switch() -> None:
    """One node that served a non-finite value is enough; so is the key in Redis."""
    for poison in (True, False):
        sim = Sim()
        sim.to_canary()
        if poison:
            sim.nodes = [msgspec.structs.replace(sim.nodes[0], poisoned=(V1,)), *sim.nodes[1:]]
        else:
            sim.killed = frozenset({V1})
        sim.tick()
        assert sim.state.record.deny == (V1,)
        assert sim.state.record.reason == ("numbers" if poison else "killed")


def test_rollout_takes_a_promotion_back_while_soaking() -> None:
    """After a promotion the previous version is stable again, without a download."""
    sim = Sim()
    sim.to_canary()
    found = machine.by_hand(sim.state, "promote", "eva", sim.now)
    assert found.state.record.actor == "eva"
    sim.state = found.state
    sim.obey()
    sim.tick()
    sim.killed = frozenset({V1})
    sim.tick()
    record = sim.state.record
    assert (record.stable, record.previous, record.deny) == (BASE, None, (V1,))


def test_rollout_holds_on_silence_and_skew_and_goes_on_when_it_ends() -> None:
    """No step in HOLD; darkness takes the weight to 0; telemetry that is back brings the stage back."""
    sim = Sim()
    sim.to_canary()
    sim.mature({"candidate": 0.1, "control": 0.1})
    sim.silence_s = CONFIG.stale_s + 1
    assert sim.tick().phase is Phase.HOLD
    assert sim.tick().record.weight == 0.25
    sim.silence_s = CONFIG.dark_s + 1
    assert sim.tick().record.weight == 0.0
    sim.silence_s = 0.0
    assert sim.tick().phase is Phase.CANARY
    assert sim.state.record.weight == 0.25
    sim.evidence.srm.log_e = 10.0
    assert sim.tick().phase is Phase.HOLD
    for _ in range(3):
        assert sim.tick().phase is Phase.HOLD
    sim.mature({"candidate": 1.0, "control": 0.0}, 100)
    assert sim.tick().phase is Phase.ROLLING_BACK, "guardrails go on in HOLD"


def test_rollout_drops_what_is_not_distributed_in_time() -> None:
    """Dropped, not denied."""
    sim = Sim()
    sim.publish(V1)
    sim.tick()
    sim.now += CONFIG.distribute_timeout_s
    assert sim.tick().phase is Phase.IDLE
    assert sim.state.record.canary is None
    assert sim.state.record.deny == ()


def test_rollout_lets_only_the_newest_wait() -> None:
    """Versions published during a canary coalesce: the newest is loaded as next, older ones are superseded."""
    sim = Sim()
    sim.to_canary()
    sim.publish(V2)
    assert sim.tick().record.next == V2
    sim.publish(V3)
    assert sim.tick().record.next == V3
    assert V2 in sim.state.tried
    assert sim.state.record.canary == V1
    assert sim.state.stage == 0


def test_rollout_asks_for_a_second_gating_when_stable_has_changed() -> None:
    """A candidate that was gated against another stable is not proposed until learn sends it again."""
    sim = Sim()
    sim.to_canary()
    sim.state = machine.by_hand(sim.state, "promote", "eva", sim.now).state
    sim.publish(V2, against=BASE)
    for _ in range(3):
        sim.obey()
        sim.now += CONFIG.soak_s
        sim.tick()
    assert sim.state.phase is Phase.IDLE
    sim.tick()
    assert sim.state.phase is Phase.IDLE
    sim.publish(V2, against=V1)
    assert sim.tick().phase is Phase.DISTRIBUTING


def test_rollout_skips_candidates_that_are_invalid_or_refused() -> None:
    """A broken manifest and a refusal by the gate never become a canary."""
    sim = Sim()
    sim.versions = {V1: version(V1, decision="refuse"), V2: version(V2)}
    sim.invalid = {V2: "refused"}
    sim.tick()
    assert sim.state.phase is Phase.IDLE
    sim.tick()
    assert sim.state.record.canary is None


@pytest.mark.parametrize("gone", ["canary", "stable"])
def test_rollout_takes_withdrawn_versions_out_at_once(gone: str) -> None:
    """One record: the newest clean version is stable, else base; the withdrawn one is denied."""
    sim = Sim()
    sim.to_canary()
    if gone == "stable":
        sim.state = machine.by_hand(sim.state, "promote", "eva", sim.now).state
    sim.versions[V1] = version(V1, withdrawn=True)
    sim.tick()
    record = sim.state.record
    assert (record.stable, record.canary, record.deny) == (BASE, None, (V1,))


def test_rollout_gives_up_at_its_horizon() -> None:
    """Undecided for too long: back, or held for a person, as configured."""
    for policy, phase in (("roll_back", Phase.ROLLING_BACK), ("hold", Phase.HOLD)):
        sim = Sim(replace(CONFIG, at_horizon=policy))  # type: ignore[arg-type]
        sim.to_canary()
        sim.now += CONFIG.horizon_s
        assert sim.tick().phase is phase
        assert sim.tick().phase is phase


def test_rollout_refuses_commands_that_make_no_sense() -> None:
    """Promote and hold want a candidate; a denial cannot be lifted."""
    state = State(record=RolloutRecord(generation=1))
    for command in ("promote", "hold", "rollback", "dance"):
        with pytest.raises(ValueError, match=r".+"):
            machine.by_hand(state, command, "eva", 0.0)


class Machine(RuleBasedStateMachine):
    """Versions, node reports, evidence and faults in any order; the invariants of rollout.md 10."""

    @initialize()
    def begin(self) -> None:
        """A line on the base."""
        self.sim = Sim(replace(CONFIG, quorum=0.5))
        self.sim.obey()
        self.numbers = 0
        self.generation = 1
        self.denied: set[str] = set()

    @rule(current=st.booleans())
    def publish(self, *, current: bool) -> None:
        """The learner sends a version."""
        self.numbers += 1
        name = f"a{self.numbers:06}-0000000{self.numbers % 10}"
        self.sim.publish(name, against=self.sim.state.record.stable if current else BASE)

    @rule()
    def obey(self) -> None:
        """Nodes act."""
        self.sim.obey()

    @rule(state=st.sampled_from([NodeState.QUARANTINED, NodeState.LOADING]))
    def refuse(self, state: NodeState) -> None:
        """Nodes do not get there."""
        self.sim.obey(state=state)

    @rule()
    def vanish(self) -> None:
        """No node reports."""
        self.sim.nodes = []

    @rule(candidate=st.sampled_from([0.0, 0.1, 0.9]), count=st.integers(1, 120))
    def talk(self, candidate: float, count: int) -> None:
        """Customers."""
        if self.sim.state.record.weight > 0:
            self.sim.mature({"candidate": candidate, "control": 0.1}, count)

    @rule(seconds=st.sampled_from([0.0, 1.0, 31.0, 121.0]))
    def silence(self, seconds: float) -> None:
        """Telemetry stops or is back."""
        self.sim.silence_s = seconds

    @rule(seconds=st.sampled_from([6.0, 40.0, 700.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.sim.now += seconds

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A version is erased."""
        if self.sim.versions:
            name = data.draw(st.sampled_from(sorted(self.sim.versions)))
            self.sim.versions[name] = msgspec.structs.replace(self.sim.versions[name], withdrawn=True)

    @rule(command=st.sampled_from(["promote", "hold", "rollback"]))
    def hand(self, command: str) -> None:
        """A person."""
        before = self.sim.state
        try:
            self.sim.state = machine.by_hand(before, command, "eva", self.sim.now).state
        except ValueError:
            assert self.sim.state == before

    @rule()
    def tick(self) -> None:
        """The controller looks; in HOLD it never advances."""
        before = self.sim.state
        after = self.sim.tick()
        if before.phase is Phase.HOLD:
            assert after.stage == before.stage
            assert after.phase is not Phase.PROMOTING

    @invariant()
    def holds(self) -> None:
        """Generations rise, denied ids are denied for ever and named nowhere, stable is never empty."""
        record = self.sim.state.record
        assert record.generation >= self.generation
        assert self.denied <= set(record.deny)
        named = {record.stable, record.canary, record.next, record.previous} - {None}
        assert not named & set(record.deny)
        assert record.stable
        assert 0 <= record.weight <= 1
        assert record.canary is not None or record.weight == 0
        if self.sim.state.phase in {Phase.IDLE, Phase.SOAKING, Phase.PROMOTING, Phase.ROLLING_BACK}:
            assert record.canary is None
        self.generation, self.denied = record.generation, set(record.deny)


Machine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_rollout_states = Machine.TestCase


def test_rollout_answers_an_erasure_when_no_node_serves_what_learned_from_it() -> None:
    """After the learner's receipt, the record and the nodes; once; and not again after a restart."""
    erasures = Erasures()
    gone = {V1: version(V1, withdrawn=True)}
    erasures.ask(Erasure(erasure_id="e1", customers=("k1:x",), requested_at=0.0))
    served = RolloutRecord(generation=4, stable=V1)
    clean = RolloutRecord(generation=5, deny=(V1,))
    key = V1.replace("-", "_")
    assert erasures.due(clean, {}, []) == [], "the learner has not answered"
    erasures.hear(Receipt(erasure_id="e1", process="learn", complete=True))
    assert erasures.due(served, gone, []) == []
    assert erasures.due(clean, gone, [node("n1", 4)]) == []
    assert erasures.due(clean, gone, [node("n1", 5, **{key: NodeState.READY})]) == []
    (receipt,) = erasures.due(clean, gone, [node("n1", 5)])
    assert (receipt.process, receipt.complete, receipt.erasure_id) == ("rollout", True, "e1")
    assert erasures.due(clean, gone, [node("n1", 5)]) == []
    again = Erasures()
    again.ask(Erasure(erasure_id="e1", customers=("k1:x",), requested_at=0.0))
    again.hear(Receipt(erasure_id="e1", process="learn", complete=True))
    again.hear(receipt)
    assert again.due(clean, gone, []) == []


def controller_of(client: redis.Redis, sent: list[RolloutRecord], wall: Callable[[], float], **more: Any) -> Controller:
    """A controller on a real store."""
    return Controller(
        CONFIG, Store(client, "a"), more.get("fleet") or Fleet({}, {}), publish=sent.append,
        audit=lambda *_: None, metrics=RolloutMetrics(CollectorRegistry()), valid=lambda _: None,
        fresh=iter(f"x{n}" for n in range(10_000)).__next__, wall=wall,
    )  # fmt: skip


def test_rollout_fences_the_older_controller(redis_client: redis.Redis) -> None:
    """The one that wakes after another took over can write nothing; records stay strictly ordered."""
    sent: list[RolloutRecord] = []
    first = controller_of(redis_client, sent, lambda: 5.0)
    first.take_over(None)
    first.fleet.version(version(V1))
    second = controller_of(redis_client, sent, lambda: 5.0)
    second.take_over(sent[-1])
    with pytest.raises(Fenced):
        first.tick(0.0, 5.0, 0.0)
    assert first.state.phase is Phase.IDLE, "what was not committed was not adopted"
    second.fleet.version(version(V1))
    second.tick(0.0, 5.0, 0.0)
    assert [record.generation for record in sent] == [1, 1, 2]


def test_rollout_goes_on_from_what_a_person_wrote(redis_client: redis.Redis) -> None:
    """A command moves the record by the same compare-and-set; the controller's next write conflicts and it reloads."""
    sent: list[RolloutRecord] = []
    controller = controller_of(redis_client, sent, lambda: 5.0)
    controller.take_over(None)
    controller.fleet.version(version(V1))
    controller.tick(0.0, 5.0, 0.0)
    store = Store(redis_client, "a")
    stored = store.read()
    assert stored.checkpoint is not None
    found = machine.by_hand(stored.checkpoint.state, "rollback", "eva", 6.0)
    store.commit(stored.epoch, stored.generation, Checkpoint(state=found.state))
    store.commit(stored.epoch, stored.generation, Checkpoint(state=found.state))
    with pytest.raises(Conflict):
        controller._store.commit(stored.epoch, stored.generation, Checkpoint(state=controller.state))
    controller.reload()
    assert controller.state.record.deny == (V1,)
    assert sent[-1].actor == "eva"


def test_rollout_holds_when_redis_lost_its_tail(redis_client: redis.Redis) -> None:
    """The topic or the nodes know a higher generation than Redis: the next one is above all, and a canary is held."""
    sent: list[RolloutRecord] = []
    controller_of(redis_client, sent, lambda: 5.0).take_over(None)
    newest = RolloutRecord(generation=7, rollout_id="r7", stable=BASE, canary=V1, weight=0.25)
    fleet = Fleet({}, {"n1": (node("n1", 9), 0.0)})
    again = controller_of(redis_client, sent, lambda: 5.0, fleet=fleet)
    again.take_over(newest)
    assert again.state.phase is Phase.HOLD
    assert again.state.record.generation == 10
    assert sent[-1] == again.state.record
    assert again.evidence.rollout_id == "r7"


def as_record(event: Exposure | Outcome, offset: int) -> Record:
    """An event as its topic gives it."""
    topic = EXPOSURES if isinstance(event, Exposure) else OUTCOMES
    return Record(topic, 0, offset, b"k", encode(event), 0.0)


def run_to_the_end(
    client: redis.Redis, records: list[Record], crashes: set[int], sent: list[RolloutRecord]
) -> tuple[Controller, list[RolloutRecord]]:
    """One controller after the other over the same records; each crash loses what was not committed."""
    now = [1.0]
    fleet = Fleet({V1: version(V1)}, {})
    fleet.node(node("n1", 10**6, **{V1.replace("-", "_"): NodeState.READY}), 0.0)
    controller = controller_of(client, sent, lambda: now[0], fleet=fleet)
    starts = controller.take_over(sent[-1] if sent else None)
    for _ in range(2):
        controller.tick(0.0, now[0], 0.0)
    positions = dict.fromkeys((EXPOSURES, OUTCOMES), 0)
    for step, record in enumerate(records):
        controller.observe(record)
        positions[record.topic] = record.offset + 1
        now[0] = float(step) / 2
        controller.tick(0.0, now[0], 0.0)
        if step in crashes:
            controller = controller_of(client, sent, lambda: now[0], fleet=fleet)
            starts = controller.take_over(sent[-1])
            for old in records[: step + 1]:
                if old.offset >= starts.get((old.topic, 0), 0):
                    controller.observe(old)
    controller.tick(0.0, 10_000.0, 0.0)
    return controller, sent


def test_rollout_resumes_with_the_same_decisions_and_floats(redis_client: redis.Redis) -> None:
    """Killed again and again at different steps: the same records in the same order, the same evidence."""
    draw = random.Random(8)
    offsets = {EXPOSURES: 0, OUTCOMES: 0}
    records = []
    for number in range(1, 200):
        arm = "candidate" if draw.random() < 0.25 else "control"
        events: list[Exposure | Outcome] = [replace_rollout(exposure(number, arm, p=0.25), "x0")]
        if draw.random() < 0.2:
            events.append(outcome(number, after=0.5))
        for event in events:
            topic = EXPOSURES if isinstance(event, Exposure) else OUTCOMES
            records.append(as_record(event, offsets[topic]))
            offsets[topic] += 1
    undisturbed, one = run_to_the_end(redis_client, records, set(), [])
    redis_client.flushall()
    crashed, two = run_to_the_end(redis_client, records, {7, 40, 41, 150, 201}, [])
    assert crashed.evidence.keep() == undisturbed.evidence.keep()
    decisions = [(record.generation, record.state, record.weight, record.deny) for record in one]
    seen = [(record.generation, record.state, record.weight, record.deny) for record in two]
    assert list(dict.fromkeys(seen)) == list(dict.fromkeys(decisions))
