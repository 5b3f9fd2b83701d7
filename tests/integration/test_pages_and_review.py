"""Pages become samples that are trained on, and a reviewer's decisions change them: the commands, Kafka and Redis."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import redis

from learner.adapter import load_base
from learner.batch import Document, Drawn, Reply
from learner.config import TrainConfig
from learner.feed import Feed, Plan
from learner.select import ReviewQueue, SelectConfig, item
from services import ingest, review
from streams.events import Sample
from streams.replay import Tables, open_tables
from streams.replay.config import QUARANTINE
from streams.replay.figures import in_lane, top
from streams.scrub.identity import ledger_key
from tests.bases import tiny_base
from tests.stream_workers import Workers, until

GOODS = ("kettle", "lamp", "tent", "radio", "stove", "chair", "bicycle", "mattress", "blender", "camera")
MARKDOWN = "# Help\n\n" + "\n".join(
    f"## How long is the guarantee on a {name}?\n\nWe repair every {name} free of charge within {at + 11} months.\n"
    for at, name in enumerate(GOODS)
)
HTML = (
    "<!doctype html><html><body><nav>Home</nav><h1>Goods</h1>"
    + "".join(
        f"<h2>Where do I return a broken {name}?</h2><p>Bring the <b>{name}</b> to hall {at + 40}, please.</p>"
        for at, name in enumerate(GOODS)
    )
    + "</body></html>"
)


@pytest.fixture(name="workers")
def ready(workers: Workers) -> Workers:
    """One ready worker."""
    workers.start()
    return workers


def ingested(workers: Workers, client: redis.Redis, folder: Path) -> Tables:
    """Both pages by the command, stored as samples."""
    for name, page in (("help.md", MARKDOWN), ("goods.html", HTML)):
        (folder / name).write_text(page)
        assert call(ingest, workers, str(folder / name), "--format", "faq") == 0
    settings = workers.settings
    tables = open_tables(client, settings.replay, ledger_key(settings.keys.keys()), settings.kafka.epoch)
    assert until(lambda: len(stored(tables)) == 2 * len(GOODS), 40), (len(stored(tables)), workers.log()[-2000:])
    return tables


def call(command: ModuleType, workers: Workers, *words: str) -> int:
    """A command of driftline as the command line runs it; its exit code."""
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return int(command.run(parser.parse_args(words), workers.settings))


def stored(tables: Tables) -> list[Sample]:
    return [sample for table in tables.all for sample in in_lane(table, "faq", 100)]


def test_pages_of_markdown_and_html_are_trained_on(workers: Workers, redis_client: redis.Redis, tmp_path: Path) -> None:
    """Every question and answer of both pages is one sample of the lane `faq`; those of `train` reach a step."""
    tables = ingested(workers, redis_client, tmp_path)
    said = {sample.turns[0].text: sample.turns[1] for sample in stored(tables)}
    assert len(said) == 2 * len(GOODS)
    reply = said["Where do I return a broken lamp?"]
    assert (reply.text, reply.role, reply.is_target) == ("Bring the lamp to hall 41, please.", "agent", True)
    assert said["How long is the guarantee on a tent?"].text == "We repair every tent free of charge within 13 months."
    base = load_base(tiny_base(tmp_path / "base"))
    anchor = Document(tuple(range(4, 60)), (Reply(20, 56, 1.0),), Drawn("anchor", "0"))
    config = TrainConfig(fresh_batch=4, fresh_wait_s=0.0, document_tokens=256, step_tokens=100_000)
    feed = Feed(tables.train, base.chat, [anchor], config)
    plans: list[Plan] = []
    while (plan := feed.gather(1, len(plans) + 1, float(len(plans)))) is not None:
        feed.trained(plan, {}, 1, ())
        plans.append(plan)
    learned = {sample.turns[0].text for plan in plans for sample in plan.fresh.values()}
    assert learned == {sample.turns[0].text for sample in in_lane(tables.train, "faq", 100)}
    assert all(document.targets for plan in plans for document in plan.documents)


MANUAL = "Robot R2\n\nCharging\nPut the robot on its base. The light is green after 4 hours.\n"
MAIL = (
    "From a Thu Jan  1 10:00:00 2026\nFrom: ann@home.example\nMessage-ID: <1@x>\n\nMy lamp is dark. What now?\n\n"
    "From b Thu Jan  1 11:00:00 2026\nFrom: eve@shop.example\nMessage-ID: <2@x>\nIn-Reply-To: <1@x>\n\n"
    "Please turn the bulb to the left, then it comes out.\n\n> My lamp is dark. What now?\n"
)


def test_documents_and_mails_are_stored_in_their_lanes(
    workers: Workers, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """What was read of a manual, a FAQ as JSON and a mailbox is stored with its source, in a lane of its own."""
    for name, text in (
        ("manual.txt", MANUAL), ("mails.mbox", MAIL),
        ("faq.json", json.dumps([{"q": "Can I pay by card?", "a": "Yes, by every card that has a chip."}])),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        assert call(ingest, workers, str(tmp_path / name), "--agents", "shop.example") == 0
    settings = workers.settings
    tables = open_tables(redis_client, settings.replay, ledger_key(settings.keys.keys()), settings.kafka.epoch)

    def found() -> dict[str, tuple[str, str]]:
        held = [
            one for table in tables.all for lane in ("faq", "documents", "email") for one in in_lane(table, lane, 9)
        ]
        return {sample.lane: (sample.source, sample.turns[-1].text) for sample in held}

    wanted = {
        "documents": ("document", "Put the robot on its base. The light is green after 4 hours."),
        "email": ("email", "Please turn the bulb to the left, then it comes out."),
        "faq": ("faq", "Yes, by every card that has a chip."),
    }
    assert until(lambda: found() == wanted, 40), (found(), workers.log()[-2000:])


def test_review_decisions_reach_the_stored_samples(
    workers: Workers, redis_client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reviewer lists, looks, rates, approves, edits and rejects; weights, labels and the edit's pair are stored."""
    tables = ingested(workers, redis_client, tmp_path)
    held = in_lane(tables.train, "faq", 100)[:5]
    queue = ReviewQueue(redis_client, SelectConfig())
    queue.add(item(sample, "uncertain", 0.9 - at / 10) for at, sample in enumerate(held))
    capsys.readouterr()
    assert call(review, workers, "list", "--json") == 0
    listed = [json.loads(line)["sample_id"] for line in capsys.readouterr().out.splitlines()]
    assert listed == [sample.sample_id for sample in held]
    assert call(review, workers, "show", listed[0]) == 0
    assert held[0].turns[1].text in capsys.readouterr().out
    better = "We repair it free of charge; call +1 202 555 0143 or write to sam.lee@example.org."
    for words in (
        ("rate", listed[0], "5"), ("rate", listed[1], "1"), ("approve", listed[2]), ("reject", listed[3]),
        ("edit", listed[4], better),
    ):  # fmt: skip
        assert call(review, workers, *words, "--reviewer", "ann") == 0
        assert capsys.readouterr().out == f"{words[0]} {words[1]}\n"
    assert call(review, workers, "approve", listed[0]) == 1
    assert queue.list(9) == []
    wanted = {listed[0]: ("good", 1.5), listed[1]: ("bad", 0.0), listed[2]: ("good", 1.5), listed[3]: ("bad", 0.0)}

    def now() -> dict[str, tuple[str, float]]:
        turns = {sample.sample_id: sample.turns[-1] for sample in in_lane(tables.train, "faq", 100)}
        return {name: (turns[name].label, turns[name].weight) for name in wanted if name in turns}

    assert until(lambda: now() == wanted, 40), (now(), workers.log()[-2000:])
    assert until(lambda: any(sample.kind == "edit" for sample in top(tables.train, 100)), 40)
    edit = next(sample for sample in top(tables.train, 100) if sample.kind == "edit")
    assert edit.pair is not None
    assert edit.pair.draft == held[4].turns[1].text
    assert edit.pair.final.startswith("We repair it free of charge; call <")
    assert "555" not in edit.pair.final
    assert "@" not in edit.pair.final


def test_review_lets_samples_out_of_quarantine_or_deletes_them(
    workers: Workers, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """What was set apart comes back to its own lane when it is approved, and is deleted when rejected."""
    tables = ingested(workers, redis_client, tmp_path)
    good, bad = in_lane(tables.train, "faq", 100)[:2]
    keys = [tables.train.operations.coder.sample_digest(sample) for sample in (good, bad)]
    assert tables.train.relane(keys, QUARANTINE) == 2
    queue = ReviewQueue(redis_client, SelectConfig())
    apart = in_lane(tables.train, QUARANTINE, 9)
    queue.add(msgspec.structs.replace(item(sample, "loss", 1.0), lane=QUARANTINE) for sample in apart)
    assert call(review, workers, "approve", good.sample_id) == 0
    assert call(review, workers, "reject", bad.sample_id) == 0
    assert until(lambda: not in_lane(tables.train, QUARANTINE, 9), 40), workers.log()[-2000:]
    assert good.sample_id in {sample.sample_id for sample in in_lane(tables.train, "faq", 100)}
    assert bad.sample_id not in {sample.sample_id for sample in top(tables.train, 100)}
