"""`driftline topics`: the table of topics, and with --acls each process's rights; --apply puts them on the cluster.

Run it once as a user that may create topics and ACLs; the processes themselves then need neither right. It adds what
is missing and takes nothing away.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

from services.settings import Settings, SettingsError


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to show, and whether to apply it."""
    parser.add_argument("--acls", action="store_true", help="each process's rights, as arguments of kafka-acls")
    parser.add_argument("--user", default="driftline-{process}", help="name of a process's user (%(default)s)")
    parser.add_argument("--apply", action="store_true", help="create the topics, and with --acls the rights")
    parser.add_argument("--replication", type=int, default=-1, help="of new topics; -1 takes the broker's default")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """0 when printed and applied; 1 when the cluster refuses or its topics contradict the table."""
    if "{process}" not in args.user:
        raise SettingsError(f"--user {args.user}: wants {{process}} in it, or all processes would share their rights")
    sys.stdout.writelines(f"{line}\n" for line in _shown(args, settings))
    return _applied(args, settings) if args.apply else 0


def _shown(args: argparse.Namespace, settings: Settings) -> Iterator[str]:
    from streams.acls import command_line, grants  # noqa: PLC0415 - with the command
    from streams.topics import TOPICS  # noqa: PLC0415 - with it

    prefix = settings.kafka.prefix
    if args.acls:
        for grant in grants(prefix, settings.stream.group):
            user = args.user.format(process=grant.process)
            yield json.dumps({**asdict(grant), "user": user}) if args.json else command_line(grant, user)
        return
    for topic in TOPICS:
        keep = "compacted" if topic.compacted else f"{topic.retention_s // 3600} h"
        row = f"{prefix + topic.name:24} {topic.partitions:>2} partitions  {keep:10} key: {topic.key}"
        yield json.dumps({**asdict(topic), "name": prefix + topic.name}) if args.json else row


def _applied(args: argparse.Namespace, settings: Settings) -> int:
    from confluent_kafka import KafkaException  # noqa: PLC0415 - with the command

    from streams.acls import grants  # noqa: PLC0415 - with the command
    from streams.admin import TopicsDiffer, allow, ensure_topics  # noqa: PLC0415 - confluent-kafka

    kafka = settings.kafka
    config = replace(settings.stream, bootstrap=kafka.bootstrap, prefix=kafka.prefix, extra=kafka.extra)
    try:
        warnings = ensure_topics(config, replication=args.replication)
        if args.acls:
            allow(config, grants(kafka.prefix, config.group), args.user)
    except (TopicsDiffer, KafkaException) as error:
        sys.stderr.write(f"driftline topics: {error}\n")
        return 1
    sys.stderr.writelines(f"driftline topics: {warning}\n" for warning in warnings)
    return 0
