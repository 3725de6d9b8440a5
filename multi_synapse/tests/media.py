"""A real S3 server for tests, and a wire to it that can fail."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from pathlib import Path

from .watching import files_under, wait_for

VERSION = "1.8.0"
ROOT_ACCESS, ROOT_SECRET = "root", "root-secret-of-the-tests"


def program() -> Path:
    """versitygw; tests/kubernetes/images/build --binaries makes it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "synapse-shards-test" / f"versitygw-{VERSION}"


class S3Server:
    """versitygw with one directory, which it keeps when it is stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        for name in ("iam", "meta", "buckets"):
            (folder / name).mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options: list[str | Path] = ["--quiet", "--port", f"127.0.0.1:{self.port}", "--access", ROOT_ACCESS, "--secret", ROOT_SECRET]
        data: list[str | Path] = ["--iam-dir", self.folder / "iam", "posix", "--sidecar", self.folder / "meta", self.folder / "buckets"]
        self._process = subprocess.Popen([program(), *options, *data], stdout=subprocess.DEVNULL)
        wait_for(self._answers, lambda: "versitygw did not come up")

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "versitygw has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def admin(self, *arguments: str) -> None:
        login = ["admin", "--access", ROOT_ACCESS, "--secret", ROOT_SECRET, "--endpoint-url", f"http://127.0.0.1:{self.port}"]
        subprocess.run([program(), *login, *arguments], check=True, capture_output=True)

    def create_bucket(self, owner: str, bucket: str) -> None:
        """A bucket, and a user that may use it: with the secret `secret-of-OWNER`."""
        self.admin("create-user", "-a", owner, "-s", f"secret-of-{owner}", "-r", "user")
        self.admin("create-bucket", "--owner", owner, "--bucket", bucket)

    def files(self, bucket: str) -> list[Path]:
        return files_under(self.folder / "buckets" / bucket)


class Wire:
    """Forwards connections, until told otherwise: `silent` ones are accepted and get nothing; `cut` ends those that bring an answer."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.silent = False
        #: Bytes of an answer after which its connection is cut.
        self.cut_after: int | None = None
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connections.append(client)
                if self.silent:
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                self._connections.append(server)
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        brought = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.silent:
                    return
                brought += len(data)
                if is_answer and self.cut_after is not None and brought > self.cut_after:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
