"""All of driftline on one machine: which processes, on which ports, with which settings."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import redis

from services.local import redis_server
from services.local.supervisor import ChildFailed, Spec, Supervisor, free_port
from services.settings import Settings, child_environment, load

Section = Mapping[str, object]
_START_S = 60.0


class Stack:
    """The processes of one machine, from `start` to `stop`; `settings` is what they run with."""

    def __init__(self, directory: Path, profile: Mapping[str, Section], *, nodes: int = 2) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.urls: dict[str, str] = {}
        self.targets: dict[str, str] = {}
        self._profile = profile
        self._nodes = nodes
        self._values: dict[str, dict[str, object]] = {name: dict(section) for name, section in profile.items()}
        for folder in (directory, directory / "logs", directory / "redis"):
            folder.mkdir(parents=True, exist_ok=True)
        self.supervisor = Supervisor(directory / "logs")

    @property
    def settings(self) -> Settings:
        """What a process outside the stack needs to join it."""
        return load(environment=self.environment())

    def start(self, say: Callable[[str], None]) -> None:
        """Start everything and return once every process is ready. Raises `ChildFailed`."""
        say("broker and redis-server")
        self._start_broker()
        self._start_redis()
        self._put(
            "keys", ring={"k1": secrets.token_hex(32)}, fixed=secrets.token_hex(32), admin_token=secrets.token_hex(16)
        )
        self._put("registry", directory=self.store, key=self.directory / "signing.key")
        self._put("train", directory=self.directory / "learner")
        say("stream worker, learner, nodes, router and rollout controller")
        names = ["clean", "learn", "rollout"]
        for name, arguments in (("clean", ["clean"]), ("rollout", ["rollout", "run"]), ("learn", ["learn"])):
            self._start(name, arguments)
        for number in range(1, self._nodes + 1):
            name, port = f"node-{number}", free_port()
            node = {"name": name, "port": port, "directory": self.directory / name}
            self._start(name, ["node"], {"node": node})
            self.urls[name] = f"http://127.0.0.1:{port}"
            names.append(name)
        port = free_port()
        self._start("router", ["router"], {"router": {"port": port, "spool": self.directory / "router"}})
        self.urls["router"] = f"http://127.0.0.1:{port}"
        self._write_run_file()
        self.supervisor.wait_ready([*names, "router"], _START_S)

    def redis(self) -> redis.Redis:
        """A client of the stack's redis-server."""
        return redis_server.client(str(self._values["redis"]["url"]))

    def stop(self) -> None:
        """End every process."""
        self.supervisor.stop()

    def _start_broker(self) -> None:
        address = self.directory / "broker.json"
        address.unlink(missing_ok=True)
        command = [sys.executable, "-m", "services.local.broker", str(address)]
        self.supervisor.start(Spec("broker", command, child_environment({}), restart=False))
        self._wait(address.exists, "broker")
        found = json.loads(address.read_text())
        self._put("kafka", bootstrap=found["bootstrap"], epoch=found["epoch"], embedded=True)

    def _start_redis(self) -> None:
        port = free_port()
        command = redis_server.command(port, self.directory / "redis")
        pid = self.supervisor.start(Spec("redis", command, child_environment({}), restart=False))
        url = f"redis://127.0.0.1:{port}/0"
        self._put("redis", url=url)
        self._wait(lambda: redis_server.ready(url, pid), "redis")

    def _start(self, name: str, arguments: Sequence[str], more: Mapping[str, Section] | None = None) -> None:
        port = free_port()
        environment = self.environment({"admin": {"port": port}, **(more or {})})
        command = [sys.executable, "-m", "services.cli", *arguments]
        if name == "learn":  # chats and answers never wait for learning, where they share cores
            command = ["nice", "-n", "5", *command]
        self.supervisor.start(Spec(name, command, environment, port))
        self.targets[name] = f"127.0.0.1:{port}"

    def environment(self, more: Mapping[str, Section] | None = None) -> dict[str, str]:
        """What a process of this stack finds its settings in."""
        values = {name: dict(section) for name, section in self._values.items()}
        for name, section in (more or {}).items():
            values.setdefault(name, {}).update(section)
        # one thread each: the processes share the cores, and spinning OpenMP workers would starve them
        limits = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
        return {**child_environment(values), **limits}

    def _put(self, section: str, **values: object) -> None:
        self._values.setdefault(section, {}).update(values)

    def _wait(self, condition: Callable[[], bool], name: str) -> None:
        pause = threading.Event()
        for _ in range(600):
            if condition():
                return
            if self.supervisor.failed:
                break
            pause.wait(0.05)
        raise ChildFailed(f"{name} did not start; see {self.supervisor.log_file(name)}")

    def _write_run_file(self) -> None:
        ours = child_environment(self._values)
        run = {
            "kafka": self._values["kafka"]["bootstrap"], "epoch": self._values["kafka"]["epoch"],
            "redis": self._values["redis"]["url"], "store": str(self.store), "urls": self.urls,
            "pids": self.supervisor.pids(), "settings": {k: v for k, v in ours.items() if k.startswith("DRIFTLINE_")},
        }  # fmt: skip
        file = self.directory / "run.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(run, indent=1))
        jobs = [
            {"targets": [target], "labels": {"job": f"driftline-{name.split('-')[0]}"}}
            for name, target in self.targets.items()
        ]
        (self.directory / "targets.json").write_text(json.dumps(jobs, indent=1))
