"""The embedded broker: librdkafka's in-process cluster in a process of its own.

    python -m services.local.broker ADDRESS_FILE

It speaks the Kafka protocol to every client on this machine, keeps records in memory only, has four
partitions a topic and begins again at offset 0 after a restart, so its address file carries a random epoch.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import threading
from pathlib import Path

from confluent_kafka import Producer

from streams.topics import TOPICS

_ADDRESS_WAIT_S = 10.0


def serve(address_file: Path, stop: threading.Event) -> int:
    """Run the broker until `stop`; its address and epoch are in the file once all topics exist."""
    owner = Producer({"test.mock.num.brokers": 1, "client.id": "driftline-broker", "log_level": 3})
    metadata = owner.list_topics(timeout=_ADDRESS_WAIT_S)
    broker = next(iter(metadata.brokers.values()))
    bootstrap = f"{broker.host}:{broker.port}"
    client = Producer({"bootstrap.servers": bootstrap, "allow.auto.create.topics": True, "log_level": 3})
    for topic in TOPICS:
        # a topic appears on first use; the reader of an absent one would wait for its next metadata refresh
        client.list_topics(topic.name, timeout=_ADDRESS_WAIT_S)
    temporary = address_file.with_suffix(".tmp")
    temporary.write_text(json.dumps({"bootstrap": bootstrap, "epoch": secrets.token_hex(8)}))
    temporary.rename(address_file)
    while not stop.wait(0.2):
        owner.poll(0)
    return 0


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    return serve(Path(argv[0]), stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
