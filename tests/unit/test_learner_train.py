from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
import redis
import torch

from learner.adapter import Base, Lora, load_base, new_lora
from learner.batch import Document, Drawn, Reply
from learner.checkpoint import LOG_FILE, Checkpoints
from learner.config import TrainConfig
from learner.feed import Feed, Plan
from learner.gate import Decision
from learner.publish import Judged
from learner.statements import statements
from learner.train import BASE, Candidate, Learner, Notice
from learner.update import StepReport
from learner.worker import Worker
from streams.augment import AugmentConfig
from streams.erasures import Erasure
from streams.events import Sample, Turn
from streams.replay import QUARANTINE, ReplayBuffer, TableConfig, open_table
from streams.replay.figures import stats, top
from streams.replay.lineage import entries
from tests.bases import TEXTS, tiny_base

CONFIG = TrainConfig(
    learning_rate=5e-3, warmup_steps=2, fresh_batch=4, document_tokens=96, snapshot_every=2, decide_every=4,
    checkpoint_every=3, fresh_wait_s=0.0, lease_s=3600.0, head_detached_steps=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


def sample(number: int, *, customer: str | None = None, words: str = "") -> Sample:
    text = words or f"{TEXTS[number % 5]} {number}"
    return Sample(
        sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=customer or f"k{number}", lane="chat",
        split="train", received_at=2e9, completed_at=1e6 + number, offsets={"chats.raw-0": (number, number)},
        topic=f"t{number % 3}",
        turns=(Turn(role="customer", text=text), Turn(role="agent", text=TEXTS[number % 6][::-1], is_target=True)),
    )  # fmt: skip


def table(client: redis.Redis, **settings: float) -> ReplayBuffer:
    client.flushall()
    return open_table(client, "train", TableConfig(**settings), b"k" * 16, configure=True)  # type: ignore[arg-type]


@dataclass
class Shelf:
    """Published weights by version."""

    kept: dict[str, Lora] = field(default_factory=dict)

    def lora(self, version: str) -> Lora:
        """Those of one version."""
        return self.kept[version]


@dataclass
class Line:
    """A learner with everything that it told."""

    learner: Learner
    reports: list[StepReport] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)


def line(
    base: Base, buffer: ReplayBuffer, folder: Path, config: TrainConfig = CONFIG, shelf: Shelf | None = None,
    *, augmented: AugmentConfig | None = None,
) -> Line:  # fmt: skip
    anchors = [
        Document(tuple(range(4 + at, 60 + at)), (Reply(20, 56, 1.0),), Drawn("anchor", str(at))) for at in range(8)
    ]

    def observe(report: StepReport, plan: Plan) -> None:
        made.reports.append(report)
        made.plans.append(plan)

    feed = Feed(buffer, base.chat, anchors, config, augmented)
    learner = Learner(
        base, feed, config, Checkpoints(folder / "line", 3), shelf or Shelf(),
        offer=lambda candidate: made.candidates.append(candidate),  # noqa: PLW0108 - made later
        clock=lambda: float(learner.trajectory.step),
        observe=observe,
    )  # fmt: skip
    made = Line(learner)
    return made


def advance(made: Line, buffer: ReplayBuffer, until: int, *, each: int = 5) -> None:
    """Steps up to `until`; each is preceded by inserts that depend on its number alone, repeats being duplicates."""
    while made.learner.trajectory.step < until:
        at = made.learner.trajectory.step
        buffer.insert([sample(number) for number in range(at * each, at * each + each)])
        assert made.learner.turn() is not None


@pytest.mark.parametrize("augmented", [None, AugmentConfig(copies=2)])
def test_train_resume_is_bitwise(
    base: Base, redis_client: redis.Redis, tmp_path: Path, augmented: AugmentConfig | None
) -> None:
    """Killed five times, a line ends with the losses and weights of one that ran through, bit for bit; copies too."""
    buffer = table(redis_client)
    straight = line(base, buffer, tmp_path / "straight", augmented=augmented)
    advance(straight, buffer, 24)
    wanted = straight.learner.trajectory.lora.flat.detach().clone()

    buffer = table(redis_client)
    losses: dict[int, float | None] = {}
    killed = line(base, buffer, tmp_path / "killed", augmented=augmented)
    for stop in (2, 7, 8, 14, 19, 24):
        advance(killed, buffer, stop)
        losses |= {report.step: report.fresh_loss for report in killed.reports}
        killed = line(base, buffer, tmp_path / "killed", augmented=augmented)
        killed.learner.resume()
        assert killed.learner.trajectory.step == stop
        assert not killed.candidates
    assert losses == {report.step: report.fresh_loss for report in straight.reports}
    assert torch.equal(killed.learner.trajectory.lora.flat, wanted)
    ours, theirs = killed.learner.trajectory.heads, straight.learner.trajectory.heads
    assert ours.steps == 24
    assert ours.labels["intent"] == ["t0", "t1", "t2"]
    assert torch.equal(ours.flat, theirs.flat)
    assert ours.judged == theirs.judged


def test_train_tuned_settings_survive_a_kill(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """A rate that a tuner moved between two steps is that of the repeated steps too, and of later restarts."""
    config = replace(CONFIG, checkpoint_every=100, decide_every=100)
    weights = []
    for name, stops in (("straight", ()), ("killed", (4, 8))):
        buffer = table(redis_client)
        made = line(base, buffer, tmp_path / name, config)
        for at in (5, 10):
            for stop in (*(one for one in stops if at - 5 < one < at), at):
                advance(made, buffer, stop)
                if stop in stops:
                    made = line(base, buffer, tmp_path / name, config)
                    made.learner.resume()
            made.learner.tune({"learning_rate": 1e-3 * at})
        weights.append(made.learner.trajectory.lora.flat.detach().clone())
        made.learner.save()
    assert torch.equal(*weights)
    again = line(base, buffer, tmp_path / "killed", config)
    again.learner.resume()
    assert again.learner.trajectory.rate() == pytest.approx(1e-2)
    assert not torch.equal(weights[0], torch.zeros_like(weights[0]))


def test_train_resume_survives_torn_files_and_erasure(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """A torn checkpoint falls back to the one before it, a torn log line is dropped, erased samples are counted."""
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path)
    advance(made, buffer, 8)
    newest = max((tmp_path / "line").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:100])
    log = tmp_path / "line" / LOG_FILE
    log.write_bytes(log.read_bytes() + b'{"step": 9, "ru')
    gone = [bytes.fromhex(d.drawn.key) for d in made.plans[-1].documents if d.drawn.component == "fresh"]
    assert buffer.retire(gone[:2], "erased") == 2
    again = line(base, buffer, tmp_path)
    again.learner.resume()
    assert again.learner.missing > 0
    advance(again, buffer, again.learner.trajectory.step + 2)


class Closed:
    """A door that is closed for some calls."""

    def __init__(self, door: Callable[..., Any], calls: int, error: Exception) -> None:
        self._door, self._calls, self._error = door, calls, error

    def __call__(self, *args: Any) -> Any:
        """Fail, or pass the call on."""
        self._calls -= 1
        if self._calls >= 0:
            raise self._error
        return self._door(*args)


def test_train_waits_for_a_disc_with_room(
    base: Base, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full, or its folder deleted: no step is taken that is not logged, and the line goes on with the same ones."""
    buffer = table(redis_client)
    straight = line(base, buffer, tmp_path / "straight")
    advance(straight, buffer, 8)
    wanted = straight.learner.trajectory.lora.flat.detach().clone()

    buffer = table(redis_client)
    made = line(base, buffer, tmp_path / "full")
    advance(made, buffer, 5)
    folder = tmp_path / "full" / "line"
    monkeypatch.setattr("os.fsync", Closed(os.fsync, 3, OSError(errno.ENOSPC, "No space left on device")))
    buffer.insert([sample(number) for number in range(25, 30)])
    for _ in range(3):  # the log once, then the checkpoint that would tell what the log lacks
        with pytest.raises(OSError, match="No space left"):
            made.learner.turn()
    assert made.learner.trajectory.step == 5
    assert not list(folder.glob("*.unfinished"))
    advance(made, buffer, 6)
    shutil.rmtree(folder)
    buffer.insert([sample(number) for number in range(30, 35)])
    with pytest.raises(FileNotFoundError):
        made.learner.turn()
    advance(made, buffer, 7)
    made = line(base, buffer, tmp_path / "full")
    made.learner.resume()
    advance(made, buffer, 8)
    assert torch.equal(made.learner.trajectory.lora.flat, wanted)


def test_train_torn_line_spoils_no_other(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Killed while it logs a step, and again after the next one: that step is repeated; behind a gap nothing is."""
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path)
    advance(made, buffer, 4)
    log = tmp_path / "line" / LOG_FILE
    with log.open("ab") as file:
        file.write(b'{"run":1,"step":5,"ro')
    made = line(base, buffer, tmp_path)
    made.learner.resume()
    advance(made, buffer, 5)
    wanted = made.learner.trajectory.lora.flat.detach().clone()
    made = line(base, buffer, tmp_path)
    made.learner.resume()
    assert torch.equal(made.learner.trajectory.lora.flat, wanted)
    for path in log.parent.glob("step-*"):
        path.unlink()
    made = line(base, buffer, tmp_path)
    assert made.learner.resume() == 0


def test_train_forgets_nothing_while_redis_is_away(
    base: Base, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint holds a step that the buffer has not heard of, and a denial that came then is acted on later."""
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path, shelf=Shelf())
    learner = made.learner
    advance(made, buffer, 5)
    monkeypatch.setattr(learner.feed, "trained", Closed(learner.feed.trained, 2, redis.ConnectionError()))
    buffer.insert([sample(number) for number in range(25, 30)])
    with pytest.raises(redis.ConnectionError):
        learner.turn()
    learner.save()
    assert learner.trajectory.step == 6
    assert "step-000000006" not in {path.stem for path in (tmp_path / "line").iterdir()}
    with pytest.raises(redis.ConnectionError):
        learner.turn()
    advance(made, buffer, 7)
    assert {step for _, step, _ in entries(buffer)} == set(range(1, 8))
    learner.descent.append("a000001-00000001")
    learner.notices.put(Notice("denied", "a000001-00000001"))
    monkeypatch.setattr(learner.feed, "quarantine", Closed(learner.feed.quarantine, 2, redis.ConnectionError()))
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            learner.hear()
        assert learner.rollbacks["canary"] == 0
    learner.hear()
    assert (learner.rollbacks["canary"], learner.trajectory.rate_factor) == (1, 0.5)


def test_train_mix_keeps_its_shares(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Over many steps the tokens of each component are within two points of the declared shares."""
    config = replace(CONFIG, learning_rate=1e-5, checkpoint_every=1000, decide_every=1000, snapshot_every=1000)
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path, config)
    advance(made, buffer, 100, each=CONFIG.fresh_batch)  # nothing waits, or fresh would take half
    total: dict[str, int] = {}
    for report in made.reports[10:]:
        for component, tokens in report.tokens.items():
            total[component] = total.get(component, 0) + tokens
    for component, share in (("fresh", 0.25), ("rehearsal", 0.5), ("anchor", 0.25)):
        assert total[component] / sum(total.values()) == pytest.approx(share, abs=0.02), total


def test_train_ratings_hold_their_share(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Where every reply is rated, fresh and rehearsed text together hold the declared share of a step."""
    config = replace(CONFIG, decide_every=1000, signal_share=0.35, recent_share=0.3)
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path, config)

    def rated(number: int) -> Sample:
        return msgspec.structs.replace(
            sample(number), turns=tuple(msgspec.structs.replace(turn, label="good") for turn in sample(number).turns)
        )

    for at in range(30):
        buffer.insert([rated(number) for number in range(at * CONFIG.fresh_batch, (at + 1) * CONFIG.fresh_batch)])
        assert made.learner.turn() is not None
    documents = [document for plan in made.plans[10:] for document in plan.documents]
    tokens = {name: sum(len(d.ids) for d in documents if d.drawn.component == name) for name in ("fresh", "rehearsal")}
    assert tokens["rehearsal"] > 0
    # a step's size is four times its fresh text
    assert sum(tokens.values()) / (4 * tokens["fresh"]) < 0.36


def test_train_one_conversation_per_customer(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """A customer stands once in a step; the other conversations wait for later steps and are not lost."""
    buffer = table(redis_client)
    buffer.insert([sample(number, customer="same") for number in range(4)])
    made = line(base, buffer, tmp_path)
    for _ in range(4):
        assert made.learner.turn() is not None
    fresh = [[d.drawn.customer for d in plan.documents if d.drawn.component == "fresh"] for plan in made.plans]
    assert fresh == [["same"]] * 4
    for plan in made.plans:
        named = [d.drawn.customer for d in plan.documents if d.drawn.customer]
        assert len(named) == len(set(named))


def test_train_candidate_is_the_mean_of_snapshots(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Candidates carry the mean of the newest snapshots, their step range since the parent, and the data window."""
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path)
    advance(made, buffer, 8)
    first, second = made.candidates
    assert (first.steps, second.steps) == ((1, 4), (1, 8))
    assert torch.allclose(second.lora.flat, torch.stack(list(made.learner.ring)).mean(0))
    samples = [found for plan in made.plans for found in plan.fresh.values()]
    assert second.fresh_from == min(found.completed_at for found in samples)
    assert second.offsets["chats.raw-0"][1] == max(found.offsets["chats.raw-0"][1] for found in samples)
    made.learner.notices.put(Notice("published", "a000001-00000001", 4, made.learner.run))
    made.learner._store.kept["a000001-00000001"] = first.lora  # type: ignore[attr-defined]
    advance(made, buffer, 12)
    assert made.candidates[-1].parent == "a000001-00000001"
    assert made.candidates[-1].steps == (5, 12)


def test_train_takes_waiting_samples_in_order_of_arrival(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """The oldest fresh samples go first, and while more than two batches wait they hold more of a step."""
    buffer = table(redis_client)
    buffer.insert([sample(number) for number in range(28)])
    made = line(base, buffer, tmp_path)
    for _ in range(7):
        assert made.learner.turn() is not None
    order = [found.completed_at for plan in made.plans for found in plan.fresh.values()]
    assert order == sorted(order)
    assert len(order) == 28
    shares = [fresh_share(plan) for plan in made.plans]
    assert min(shares[1:4]) > max(shares[5:])


def fresh_share(plan: Plan) -> float:
    fresh = sum(len(document.ids) for document in plan.documents if document.drawn.component == "fresh")
    return fresh / sum(len(document.ids) for document in plan.documents)


def rushed(base: Base, client: redis.Redis, folder: Path, count: int) -> Line:
    """A line that has just worked off a backlog of so many samples, a step a second; its gate is at work."""
    buffer = table(client)
    made = line(base, buffer, folder, replace(CONFIG, offer_within_s=6.0, decide_every=1000))
    made.learner.judging = lambda: True
    buffer.insert([sample(number) for number in range(count)])
    for _ in range(count // CONFIG.fresh_batch):
        assert made.learner.turn() is not None
    return made


def test_train_offers_in_time_and_makes_up_for_rehearsal(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """What a backlog taught is offered as soon as the gate is free, and what it held back is rehearsed then."""
    made = rushed(base, redis_client, tmp_path, 40)
    learner = made.learner
    assert learner.turn() is None
    assert not made.candidates
    learner.judging = lambda: False
    while learner.turn() is not None:
        pass
    assert len(made.plans) > 10
    assert not any(plan.fresh for plan in made.plans[10:])
    total = sum(len(document.ids) for plan in made.plans for document in plan.documents)
    rehearsed = sum(len(d.ids) for plan in made.plans for d in plan.documents if d.drawn.component == "rehearsal")
    assert rehearsed / total > 0.4
    assert [candidate.steps for candidate in made.candidates][:2] == [(1, 10), (1, 14)]


def test_train_offers_a_backlog_before_its_end_where_that_takes_too_long(
    base: Base, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """The oldest step is never older than `offer_within_s` before it is offered."""
    made = rushed(base, redis_client, tmp_path, 40)
    made.learner.judging = lambda: False
    advance(made, made.learner.feed._buffer, 30, each=20)
    steps = [candidate.steps[1] for candidate in made.candidates]
    assert steps == [10, 17, 24]


def test_train_offers_again_what_the_gate_could_not_look_at(
    base: Base, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """A candidate that came before the gate had examples enough is offered once more, with what was learned since."""
    made = rushed(base, redis_client, tmp_path, 16)
    learner, now = made.learner, [4.0]
    learner.judging, learner._clock = lambda: False, lambda: now[0]
    while learner.turn() is not None:
        pass
    assert len(made.candidates) == 1
    learner.notices.put(Notice("postponed", "a-step4", 4, learner.run))
    assert learner.turn() is None
    now[0] += 2.0
    assert learner.turn() is None
    first, second = made.candidates
    assert first.steps == (1, 4)
    assert second.steps == (1, len(made.plans))


def test_train_holds_the_next_offer_until_the_version_before_has_reached_a_customer(
    base: Base, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """While a published version waits for its turn nothing new is offered; once it is tried, it is."""
    made = rushed(base, redis_client, tmp_path, 16)
    learner = made.learner
    learner.judging, learner.on_its_way = lambda: False, lambda: True
    learner.turn()
    assert not made.candidates
    learner.on_its_way = lambda: False
    learner.turn()
    assert len(made.candidates) == 1


def test_train_remembers_after_a_restart_what_no_version_holds(
    base: Base, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """A line that was killed before it could offer what it had learned offers it although nothing new comes."""
    made = rushed(base, redis_client, tmp_path, 16)
    made.learner.save()
    again = line(base, made.learner.feed._buffer, tmp_path, made.learner.config)
    again.learner.judging = lambda: True
    again.learner.resume()
    again.learner._clock = lambda: 40.0
    again.learner.judging = lambda: False
    again.learner.turn()
    assert [candidate.steps for candidate in again.candidates] == [(1, 4)]


def test_train_rollback_restarts_from_stable(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Denying a version of this trajectory sends it back to stable; denying a foreign one does not."""
    weights = new_lora(base.shape, 16, 32, torch.Generator().manual_seed(9))
    shelf = Shelf({"a000001-00000001": weights, "a000002-00000002": weights})
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path, shelf=shelf)
    learner = made.learner
    advance(made, buffer, 3)
    learner.notices.put(Notice("promoted", "a000001-00000001"))
    learner.notices.put(Notice("published", "a000002-00000002", 0, learner.run))
    advance(made, buffer, 6)
    running, foreign = learner.run, learner.trajectory.lora.flat.detach().clone()
    learner._hear(Notice("denied", "a000009-00000009"))
    assert learner.run == running
    assert torch.equal(learner.trajectory.lora.flat, foreign)
    trained = {d.drawn.key for plan in made.plans for d in plan.documents if d.drawn.component == "fresh"}
    learner.notices.put(Notice("denied", "a000002-00000002"))
    run = learner.run
    learner._hear(learner.notices.get_nowait())
    assert torch.equal(learner.trajectory.lora.flat, shelf.kept["a000001-00000001"].flat)
    assert not learner.trajectory.optimizer.state
    assert not learner.ring
    assert learner.trajectory.rate_factor == 0.5
    assert learner.trajectory.warm == 0
    assert (learner.run, learner.parent, learner.trajectory.step) == (run + 1, "a000001-00000001", 6)
    lanes = {lane.name: lane.total for lane in stats(buffer).lanes}
    assert lanes[QUARANTINE] == len(trained)
    for _ in range(3):
        learner._hear(Notice("promoted", "a000001-00000001"))
    assert learner.trajectory.rate_factor == 1.0


def test_train_old_trajectories_are_not_sent_back_again(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """A harmful verdict on a trajectory that has ended meanwhile changes nothing."""
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path)
    advance(made, buffer, 2)
    made.learner._hear(Notice("harmful", "a-step2", 2, made.learner.run - 1))
    assert made.learner.rollbacks["gate"] == 0
    for _ in range(2):
        made.learner._hear(Notice("harmful", "a-step2", 2, made.learner.run))
    assert made.learner.rollbacks["gate"] == 0
    made.learner._hear(Notice("harmful", "a-step2", 2, made.learner.run))
    assert made.learner.rollbacks["gate"] == 1
    assert made.learner.parent == BASE


def test_train_anchors_follow_the_gauge(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Above the budget the share of anchors rises by five points, far below it falls back to its setting."""
    learner = line(base, table(redis_client), tmp_path).learner
    for _ in range(9):
        learner._hear(Notice("drifted", "a-step4"))
    assert learner.feed.anchor_share == 0.5
    for _ in range(9):
        learner._hear(Notice("settled", "a-step4"))
    assert learner.feed.anchor_share == CONFIG.anchor_share


def test_train_erasure_rebuilds_from_a_clean_version(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """A customer that no step saw leaves no trace to rebuild; one that was trained sends the line back before it."""
    shelf = Shelf({"a000001-00000001": new_lora(base.shape, 16, 32, torch.Generator().manual_seed(9))})
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path, shelf=shelf)
    learner = made.learner
    advance(made, buffer, 6)
    unseen = Erasure(erasure_id="one", customers=("nobody",), requested_at=0.0)
    assert learner.erase(unseen, lambda _step: BASE) is None
    step, key = learner.window.keys[-1]
    asked: list[int] = []

    def ancestor(first: int) -> str:
        asked.append(first)
        return "a000001-00000001"

    seen = Erasure(erasure_id="two", customers=("k",), digests=(key,), first_step=3, requested_at=0.0)
    assert step > 3
    assert learner.erase(seen, ancestor) == "a000001-00000001"
    assert asked == [3]
    assert torch.equal(learner.trajectory.lora.flat, shelf.kept["a000001-00000001"].flat)
    assert not learner.ring
    assert key not in (tmp_path / "line" / LOG_FILE).read_text()
    assert len(list((tmp_path / "line").glob("step-*"))) == 1
    assert learner.erase(seen, ancestor) is None


def test_train_named_facts_are_rehearsed_no_more(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """What an operator names leaves the buffer; what states it later is trained once at most."""
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path)
    told = "you can return the tent within 14 days"

    def stating(number: int) -> Sample:
        turns = (Turn(role="customer", text="how long?"), Turn(role="agent", text=told, is_target=True))
        return msgspec.structs.replace(sample(number), turns=turns, completed_at=float(number))

    buffer.insert([stating(number) for number in range(900, 903)])
    advance(made, buffer, 4)
    made.learner.name(statements("", "A return is possible within 14 days."))
    assert not any(sample.turns[1].text == told for sample in top(buffer, 100))
    assert made.learner.facts.named == 1
    buffer.insert([stating(number) for number in range(903, 906)])
    advance(made, buffer, 14)
    late = [key for plan in made.plans[4:] for key, sample in plan.fresh.items() if sample.turns[1].text == told]
    assert len(late) == 3
    rehearsed = [d.drawn.key for plan in made.plans[5:] for d in plan.documents if d.drawn.component == "rehearsal"]
    assert not set(rehearsed) & set(late)
    assert set(late) <= made.learner.feed.superseded


class Frozen:
    """A judge whose gate or registry hangs."""

    def __init__(self, entered: Event, release: Event, seen: list[str]) -> None:
        self._entered, self._release, self._seen = entered, release, seen

    def consider(self, candidate: Candidate, _stable: str) -> Judged:
        """Hang until released, then fail."""
        self._seen.append(candidate.name)
        self._entered.set()
        self._release.wait(30)
        raise OSError("registry away")

    def reconsider(self, version: str, _stable: str) -> Decision:
        """Never asked."""
        raise AssertionError(version)

    def promoted(self, version: str) -> None:
        """Nothing."""

    def forget(self) -> None:
        """Nothing."""


class Asked(Frozen):
    """A judge that refuses nothing and remembers against what it judged."""

    def consider(self, candidate: Candidate, against: str) -> Judged:
        """Remember, then fail: a version is not wanted here."""
        self._seen.append(against)
        self._entered.set()
        raise OSError(candidate.name)


def test_train_candidates_are_judged_against_what_will_be_stable(
    base: Base, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """While a canary runs the next candidate is compared with it, since its turn comes after the promotion."""
    made = line(base, table(redis_client), tmp_path)
    seen, entered = list[str](), Event()
    worker = Worker(
        Asked(entered, Event(), seen), made.learner.notices.put, done=lambda _: None, again=lambda *_: None,
        failed=lambda _: None,
    )  # fmt: skip
    worker.start()
    for stable, canary in (("base", None), ("base", "a000001-00000001"), ("a000001-00000001", None)):
        worker.rollout(stable, canary, frozenset())
        entered.clear()
        worker.offer(made.learner.candidate() if made.learner.ring else ring(made, redis_client))
        assert entered.wait(10)
    assert worker.stop(10)
    assert seen == ["base", "a000001-00000001", "a000001-00000001"]


def ring(made: Line, client: redis.Redis) -> Candidate:
    """A first candidate."""
    advance(made, table(client), 2)
    return made.learner.candidate()


def test_train_never_waits(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """With gate and registry frozen steps go on, one candidate is kept, and the newest is judged next."""
    entered, release, seen, errors = Event(), Event(), list[str](), list[BaseException]()
    judge = Frozen(entered, release, seen)
    buffer = table(redis_client)
    made = line(base, buffer, tmp_path)
    worker = Worker(
        judge,
        made.learner.notices.put,
        done=lambda _: None,
        again=lambda *_: None,
        failed=errors.append,
    )
    made.learner._offer = worker.offer
    worker.start()
    advance(made, buffer, 4)
    assert entered.wait(10)
    advance(made, buffer, 16)
    assert worker.dropped == 2
    release.set()
    for _ in range(200):
        if len(seen) == 2:
            break
        Event().wait(0.05)
    worker.stop(10)
    assert seen == ["a-step4", "a-step16"]
    assert all(isinstance(error, OSError) for error in errors)
    told = [made.learner.notices.get_nowait() for _ in seen]  # what could not be judged is offered once more
    assert [(notice.kind, notice.step) for notice in told] == [("failed", 4), ("failed", 16)]
