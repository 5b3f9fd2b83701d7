"""The part of `driftline tune` that loads models."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any

import redis
import torch

from learner import search
from learner.account import LineAccount
from learner.adapter import Base, load_base
from learner.batch import Document, Drawn, documents
from learner.config import LIVE, TrainConfig, tuned
from learner.full import FullConfig, fine_tune
from learner.records import Records
from learner.search import EarlyStop, Params
from learner.shape import base_folder
from learner.traffic import Traffic
from learner.tune import Budget, Population, exhaust, halve
from services.chat_files import read_chats
from services.local import redis_server
from services.search_space import points_of, space_of
from streams.replay import open_tables
from streams.scrub.identity import ledger_key

if TYPE_CHECKING:
    from services.settings import Settings

POLL_S = 2.0
"""Pause between two looks at the traffic, seconds."""

HELD_SHARE = 10
"""Every tenth chat is kept back when a whole base is fine-tuned."""


def searched(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Run the search that was asked for and record it. Raises OSError, ValueError, ImportError (Optuna)."""
    torch.set_num_threads(settings.train.threads)
    chats = read_chats(args.data, args.format, scrubbed=True)[: args.limit]
    base = load_base(args.base_model or base_folder(settings.train.base))
    config, space = readable(settings.train, base), space_of(args.space)
    budget = Budget(fresh=config.fresh_batch, window=args.window, schedule=args.schedule, seed=config.seed)
    found: dict[str, Any] = {
        "data": args.data.name, "chats": len(chats), "search": args.search, "schedule": args.schedule,
    }  # fmt: skip
    if args.search == "optuna":

        def objective(point: Params) -> float:
            stop = EarlyStop(args.patience) if args.patience else None
            return exhaust(base, config, point, chats, budget, stop=stop)

        found["best"] = search.optimise(objective, space, args.trials, config.seed)
    else:
        points = points_of(args, config, space)
        told = _progress(-(-len(chats) // budget.fresh), quiet=args.json)
        found |= halve(base, config, points, chats, budget, told=told).to_object()
    _recorded(args, found, args.data.name.split(".")[0])
    return found


def followed(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Shadow adapters on a share of the traffic, until one is left, the time is up or a signal comes; recorded.

    The winner's hyper-parameters may move to the line, never its weights. Raises ValueError, OSError, redis.RedisError,
    ReplayError.
    """
    torch.set_num_threads(settings.train.threads)
    config, space, stop = settings.train, space_of(args.space), Event()
    client = redis_server.client(settings.redis.url, settings.redis.timeout_s)
    tables = open_tables(client, settings.replay, ledger_key(settings.keys.keys()), settings.kafka.epoch)
    base = load_base(args.base_model or base_folder(config.base))
    config = readable(config, base)
    budget = Budget(fresh=config.fresh_batch, window=args.window, schedule=args.schedule, seed=config.seed)
    account = LineAccount(client, config.line)
    config = tuned(config, account.tuned())
    population = Population(base, config, points_of(args, config, space), budget)
    with stopped_by_signals(stop):
        seen = follow(
            population, base, Traffic(tables.of(config.line), config.line, args.share), config, stop,
            most_s=60 * args.minutes if args.minutes else math.inf, told=_progress(None, quiet=args.json),
        )  # fmt: skip
    found = population.result().to_object() | {
        "data": "live traffic", "chats": seen, "search": args.search, "line": config.line, "share": args.share,
    }  # fmt: skip
    if args.apply and population.decided:
        found["applied"] = {name: value for name, value in found["best"].items() if name in LIVE}
        account.tune(found["applied"])
    _recorded(args, found, f"live-{config.line}")
    return found


def readable(config: TrainConfig, base: Base) -> TrainConfig:
    """The settings with documents that the base can read."""
    return replace(config, document_tokens=min(config.document_tokens, base.shape.context))


def follow(
    population: Population, base: Base, traffic: Traffic, config: TrainConfig, stop: Event, *,
    most_s: float, told: Callable[[int, Mapping[str, float]], None], pause_s: float = POLL_S,
) -> int:  # fmt: skip
    """Feed a population from the traffic until it is decided; gives how many chats it saw. An error of Redis waits."""
    waiting: dict[str, list[Document]] = {}
    seen, until = 0, time.monotonic() + most_s
    while not (population.decided or stop.is_set()) and time.monotonic() < until:
        try:
            fresh = traffic.newest()
        except redis.RedisError:
            fresh = {}
        population.keep(traffic.stored)
        waiting |= {
            key: documents(base.chat, sample, Drawn("fresh", key, lane=sample.lane), config)
            for key, sample in fresh.items()
        }
        waiting = {key: made for key, made in waiting.items() if made and key in traffic.stored}
        while len(waiting) >= config.fresh_batch and not population.decided:
            chosen = [waiting.pop(key) for key in list(waiting)[: config.fresh_batch]]
            seen += len(chosen)
            told(population.steps, population.advance([document for made in chosen for document in made]))
        stop.wait(pause_s)
    if not population.decided:
        population.halving.close()
    return seen


@contextmanager
def stopped_by_signals(stop: Event) -> Iterator[None]:
    """SIGTERM and SIGINT end what waits for `stop`; what was found by then still counts."""
    old = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def fine_tuned(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Fine-tune a whole base on nine of ten chats, judged on the tenth. Raises OSError, ValueError."""
    torch.set_num_threads(settings.train.threads)
    chats = read_chats(args.data, args.format, scrubbed=True)[: args.limit]
    source = args.base_model or base_folder(settings.train.base)
    train = [chat for at, chat in enumerate(chats) if at % HELD_SHARE]
    config = replace(FullConfig(), learning_rate=settings.train.learning_rate / 10, patience=args.patience or 2)
    losses = fine_tune(source, args.full, train, chats[::HELD_SHARE], config)
    found = {
        "data": args.data.name, "chats": len(chats), "search": "full", "base": str(args.full), "held_out": losses,
    }  # fmt: skip
    _recorded(args, found, args.data.name.split(".")[0])
    return found


def _recorded(args: argparse.Namespace, found: Mapping[str, Any], source: str) -> None:
    if args.record:
        Records(args.record).run(f"tune-{source}-{found['search']}", found)


def _progress(steps: int | None, *, quiet: bool) -> Any:  # a callback for halve and follow
    def told(step: int, losses: Mapping[str, float]) -> None:
        if not quiet:
            shown = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            sys.stderr.write(f"step {step + 1}{f'/{steps}' if steps else ''}  {shown}\n")

    return told
