"""`driftline rollout run|status|promote|hold|rollback`: the canary, by machine and by hand.

The hand goes through the same compare-and-set as the controller and sends the record itself: it needs no controller.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from services.rollout import machine
from services.rollout.process import client_of
from services.rollout.process import run as control
from services.rollout.store import Checkpoint, Store, StoreError
from services.rollout_records import RolloutRecord, encode
from services.topic_feed import make_producer
from streams.topics import ROLLOUT

if TYPE_CHECKING:
    from services.settings import Settings

BY_HAND = ("promote", "hold", "rollback")
DELIVERY_S = 5.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("action", choices=("run", "status", *BY_HAND), help="run it, look, or decide by hand")
    parser.add_argument("--json", action="store_true", help="status as JSON")
    parser.add_argument("--actor", default="", help="who decides (default: the login name)")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do the action. Returns 0, or 1 when it cannot be done now."""
    if args.action == "run":
        return control(settings)
    store = Store(client_of(settings), settings.rollout.line)
    if args.action == "status":
        return _status(store, as_json=args.json)
    return _decide(store, settings, args.action, args.actor or getpass.getuser())


def status(store: Store) -> dict[str, Any]:
    """The line's record, phase and evidence, as JSON values. Raises redis.RedisError."""
    stored = store.read()
    if stored.checkpoint is None:
        return {"generation": stored.generation, "phase": None}
    state, kept = stored.checkpoint.state, stored.checkpoint.evidence
    found: dict[str, Any] = {
        "phase": state.phase, "stage": state.stage, "since": state.since, "promoted": list(state.promoted),
        **msgspec.to_builtins(state.record), "generation": stored.generation, "killed": sorted(store.killed()),
    }  # fmt: skip
    if kept is not None:
        found["matured"] = kept.matured
        found["evidence"] = {
            metric: {**{k: v for k, v in harm.items() if k != "log_e"}, "log_e_harm": harm["log_e"],
                     "log_e_promotion": kept.promotion[metric]["log_e"]}
            for metric, harm in kept.harm.items()
        }  # fmt: skip
        found["srm_log_e"] = kept.srm["log_e"]
    return found


def _status(store: Store, *, as_json: bool) -> int:
    found = status(store)
    if as_json:
        print(json.dumps(found))
        return 0
    if found["phase"] is None:
        print("no controller has run yet")
        return 1
    print(f"{found['phase']}  generation {found['generation']}  stable {found['stable']}  canary {found.get('canary')}")
    for metric, values in found.get("evidence", {}).items():
        print(
            f"  {metric:10} candidate {values['candidate_bad']}/{values['candidate']}"
            f"  control {values['control_bad']}/{values['control']}"
            f"  log e harm {values['log_e_harm']:.2f}  promotion {values['log_e_promotion']:.2f}"
        )
    return 0


def _decide(store: Store, settings: Settings, action: str, actor: str) -> int:
    stored = store.read()
    if stored.checkpoint is None:
        print("driftline: no controller has run yet; driftline rollout run", file=sys.stderr)
        return 1
    now = time.time()  # noqa: TID251 - a command's own edge
    try:
        found = machine.by_hand(stored.checkpoint.state, action, actor, now)
        fresh = _with_state(stored.checkpoint, found.state)
        store.commit(stored.epoch, stored.generation, fresh)
    except (ValueError, StoreError) as error:
        print(f"driftline: {error}", file=sys.stderr)
        return 1
    delivered = _send(settings, found.state.record)
    record = found.state.record
    print(f"{action}: generation {record.generation}, stable {record.stable}, canary {record.canary}")
    if not delivered:
        print("driftline: the broker does not answer; the controller sends the record when it does", file=sys.stderr)
    return 0


def _with_state(checkpoint: Checkpoint, state: machine.State) -> Checkpoint:
    return Checkpoint(
        state=state, evidence=checkpoint.evidence, positions=checkpoint.positions, starts=checkpoint.starts
    )


def _send(settings: Settings, record: RolloutRecord) -> bool:
    producer = make_producer(settings.kafka.asked_once("rollout-command"))
    producer.produce(settings.kafka.prefix + ROLLOUT, key=record.line, value=encode(record))
    return producer.flush(DELIVERY_S) == 0
