"""`driftline COMMAND`: one line per command; the module of a command is imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from services.remedies import remedy
from services.settings import Settings, SettingsError, load, with_run_file

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("services.demo", "the whole loop on this machine in under three minutes"),
    "up": ("services.up", "the same processes, kept running to try"),
    "clean": ("services.clean", "the stream worker: scrub, assemble, judge, store"),
    "status": ("services.status", "what runs and where it stands: processes, lag, buffer, rollout, versions"),
    "reconcile": ("services.reconcile", "what became of every event of a file"),
    "topics": ("services.topics", "the topics and each process's rights on Kafka, to print or to apply"),
    "replay-dead-letters": ("services.dead_letters", "run the records behind dead letters again, once"),
    "node": ("services.node.process", "an inference node: verified adapters behind an allow-list door"),
    "router": ("services.router.process", "the customers' door: OpenAI's chat API over a sticky canary split"),
    "filter": ("services.filter", "what the quality filter would do to a history of chats"),
    "review": ("services.review", "the replies that a person should look at"),
    "console": ("services.console.process", "pages for people: review, versions, answers, state"),
    "gateway": ("services.gateway.process", "the HTTP door: events, webhooks, capture proxy"),
    "ingest": ("services.ingest", "files of chats onto chats.raw, once, with progress"),
    "simulate": ("services.simulate", "synthetic traffic with its ground truth"),
    "rollout": ("services.rollout.commands", "the canary: run the controller, or promote, hold, roll back by hand"),
    "buffer": ("services.buffer", "what the replay buffer holds; curated examples"),
    "forget": ("services.forget", "erase a customer everywhere, with a receipt"),
    "facts": ("services.facts", "name a fact that has changed, so that nothing teaches the old one"),
    "adapters": ("services.adapters", "which versions there are and why; the card of one; freeing old files"),
    "explain": ("services.explain", "an answer's trail: version, training steps, chats, the filter's decisions"),
    "evaluate": ("services.evaluate", "a version, or the base, on a file of chats, with confidence intervals"),
    "learn": ("services.learn", "the online learner: replay buffer to versions"),
    "base": ("services.base", "train the demo's small base model again"),
    "condition": ("services.condition", "a base whose replies are conditioned on how they were received"),
    "tune": ("services.tune", "hyper-parameters: shadow adapters, grid, random, Optuna; or a whole base offline"),
    "scrub": ("services.scrub", "a dry run of the scrubber on a file of your own"),
    "bench": ("services.bench", "tables of numbers, from a checkout"),
}


STARTING = {"demo", "up"}
"""Commands that begin a run of this folder, whatever an earlier one left."""


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit code: 0 done, 1 it found a problem, 2 it could not be started."""
    parser = _parser()
    arguments = sys.argv[1:] if argv is None else argv
    name = next((a for a in arguments if not a.startswith("-")), None)
    if name not in COMMANDS:
        parser.parse_args(arguments)
        parser.print_help()
        return 2
    module = importlib.import_module(COMMANDS[name][0])
    command = argparse.ArgumentParser(prog=f"driftline {name}", description=COMMANDS[name][1])
    command.add_argument("--config", type=Path, help="settings file (default: driftline.toml if it exists)")
    module.arguments(command)
    rest = list(arguments)
    rest.remove(name)
    args = command.parse_args(rest)
    try:
        settings = load(args.config)
        chosen = settings if name in STARTING else with_run_file(settings, args.config)
    except SettingsError as error:
        print(f"driftline: {error}", file=sys.stderr)
        return 2
    return _run(name, module, args, chosen)


def _run(name: str, module: ModuleType, args: argparse.Namespace, settings: Settings) -> int:
    try:
        code: int = module.run(args, settings)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has gone; nothing may be written to it at the end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        line = remedy(error, settings, vars(args).values())
        if line is None or settings.admin.level == "debug":
            raise
        print(f"driftline {name}: {line}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="driftline",
        description="Online learning for support chat: streams, replay, adapters, canary rollout.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:20} {text}" for name, (_, text) in COMMANDS.items()),
    )
    parser.add_argument("command", choices=sorted(COMMANDS), metavar="COMMAND")
    return parser


if __name__ == "__main__":
    sys.exit(main())
