"""A dedicated Synapse with workers under test: a Redis, the main process and workers, as the chart runs them in one pod."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from .dedicated import Dedicated, free_port
from .shard import request
from .watching import wait_for

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")


class Team:
    """`duties` are options of homeserver.yaml that name workers, such as stream_writers."""

    def __init__(
        self, python: Path, folder: Path, assignment: dict[str, Any], *options: str, workers: list[str], duties: dict[str, Any]
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._redis_port = free_port()
        self._redis: subprocess.Popen[bytes] | None = None
        ports = {name: free_port() for name in ["main", *workers]}
        places = {name: {"host": "127.0.0.1", "port": port} for name, port in ports.items()}
        shared = {"redis": {"enabled": True, "port": self._redis_port}, "instance_map": places, **duties}
        crew = f"--crew={folder / 'crew'}"
        self.main = Dedicated(python, folder / "main", assignment, crew, *options)
        self.workers = {
            name: Dedicated(python, folder / name, assignment, crew, f"--worker={name}", *options, worker=name) for name in workers
        }
        self._metrics_port = free_port()
        self.main.add_config({"enable_metrics": True})
        self.main.add_listener({"port": self._metrics_port, "bind_addresses": ["127.0.0.1"], "type": "metrics"})
        for name, process in [("main", self.main), *self.workers.items()]:
            process.add_config(shared)
            between = {"port": ports[name], "bind_addresses": ["127.0.0.1"], "type": "http", "resources": [{"names": ["replication"]}]}
            process.add_listener(between)

    def start(self) -> Team:
        assert REDIS is not None
        arguments = [REDIS, "--bind", "127.0.0.1", "--port", str(self._redis_port), "--save", "", "--appendonly", "no"]
        self._redis = subprocess.Popen(arguments, cwd=self.folder, stdout=subprocess.DEVNULL)
        for process in self.processes:
            process.start()
        return self

    @property
    def processes(self) -> list[Dedicated]:
        return [self.main, *self.workers.values()]

    def expect_healthy(self) -> Team:
        for process in self.processes:
            process.expect_healthy()
        return self

    def workers_cpu_seconds(self) -> float:
        """As the main process tells it; 0 where Synapse answers with 500, as it does now and then while it starts."""
        answer = request(f"127.0.0.1:{self._metrics_port}", "GET", "/_synapse/metrics")
        if answer.status == 500:
            return 0.0
        (line,) = [line for line in answer.body.decode().splitlines() if line.startswith("multi_synapse_workers_cpu_seconds_total ")]
        return float(line.split()[1])

    def signal(self, number: int) -> None:
        for process in self.processes:
            process.signal(number)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()

    def expect_unhealthy(self) -> None:
        for process in self.processes:
            wait_for(lambda process=process: not process.is_healthy())  # type: ignore[misc]
