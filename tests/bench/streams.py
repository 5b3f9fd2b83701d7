"""The worker's shape against a raw loop and plain Faust: messages passed on, CPU and wall, interleaved, medians.

    driftline bench streams [--messages N] [--rounds R]

Over the embedded broker on this machine. Stock Faust's last column counts hand-over to its producer, not delivery, so
it is flattered.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median

from confluent_kafka import Producer

from streams.topics import CHATS_RAW, TOPICS
from tests.bench._heading import heading, table
from tests.bench._stream_shapes import SHAPES, SURE

ROOT = Path(__file__).resolve().parents[2]
STOCK = "Faust, event + topic.send"
BODY = b'{"event_id":"%06d","type":"message","conversation_id":"c","seq":0,"role":"agent","text":"as you asked"}'
RUN_S = 120


def main(argv: list[str]) -> int:
    """Measure every shape and print the table."""
    parser = argparse.ArgumentParser(prog="driftline bench streams")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "broker.json"
        broker = subprocess.Popen([sys.executable, "-m", "services.local.broker", str(address)], cwd=ROOT)
        try:
            pause = threading.Event()
            while not address.exists():
                pause.wait(0.05)
            bootstrap = json.loads(address.read_text())["bootstrap"]
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in SHAPES}
            for number in range(args.rounds):
                for name in SHAPES:
                    prefix = f"r{number}s{list(SHAPES).index(name)}."
                    found[name].append(_measure(name, bootstrap, prefix, args.messages))
        finally:
            broker.terminate()
            broker.wait(10)
    base = median(cpu for _, cpu in found[STOCK])
    rows = [["shape, pass-through", "CPU us/message", "messages/s", "stock's CPU / its"]]
    for name, runs in found.items():
        wall, cpu = (median(values) / args.messages for values in zip(*runs, strict=True))
        rows.append([name, f"{cpu * 1e6:.0f}", f"{1 / wall:,.0f}", f"{base / args.messages / cpu:.1f}"])
    sys.stdout.write(f"{heading('streams', argv)}\n{table(rows)}\n")
    return 0


def _measure(shape: str, bootstrap: str, prefix: str, messages: int) -> tuple[float, float]:
    """Wall and CPU seconds of one run on topics of its own."""
    producer = Producer({"bootstrap.servers": bootstrap, "allow.auto.create.topics": True, **SURE})
    for topic in TOPICS:
        producer.list_topics(prefix + topic.name, timeout=10)
    for number in range(messages):
        producer.produce(prefix + CHATS_RAW, value=BODY % number, key=b"%d" % (number % 997))
        producer.poll(0)
    producer.flush()
    command = [sys.executable, "-m", "tests.bench._stream_shapes", shape, bootstrap, prefix, str(messages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=RUN_S, check=False)
    if not done.stdout:
        raise RuntimeError(f"{shape}: {done.stderr.decode()[-2000:]}")
    row = json.loads(done.stdout.splitlines()[0])
    return float(row["wall"]), float(row["cpu"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
