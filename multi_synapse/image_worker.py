"""Decodes images for a shard, in a process of its own: what a hostile image costs, or breaks, ends with this process.

It is a child of the shard, and speaks with it over the socket that is its standard input (docs/isolation.md, *Images*).
A message is four bytes of length (big-endian) and JSON; `open` brings the image's open file with it, and `scale` and `crop`
are answered with the image's bytes after the JSON, their number in `bytes`. An operation that fails is answered with
`{"error": …}`. It holds one image at a time.

The image is decoded by Synapse's own `Thumbnailer`, so that each release makes its own thumbnails.
"""

from __future__ import annotations

import io
import json
import os
import resource
import socket
import struct
import sys
from typing import Any, BinaryIO

from PIL import Image
from synapse.media.thumbnailer import Thumbnailer

from . import lifetime

#: Beyond what the process has when it begins: an image of 33 million pixels is 130 MiB with transparency, and is held up to three times.
MEMORY_BYTES = 640 * 1024 * 1024
LENGTH = struct.Struct("!I")
_LONGEST_MESSAGE = 64 * 1024
#: Above the shard's own limit (`images.OPERATION_SECONDS`), for when the shard has been killed during an operation.
_MOST_SECONDS = 40


def receive(stream: socket.socket) -> tuple[dict[str, Any] | None, int | None]:
    """The next message and the file that came with it; (None, None) at the end. @raises OSError, ValueError"""
    head, files, _flags, _address = socket.recv_fds(stream, LENGTH.size, 1)
    while head and len(head) < LENGTH.size:
        head += _exactly(stream, LENGTH.size - len(head))
    if not head:
        return None, None
    (length,) = LENGTH.unpack(head)
    if length > _LONGEST_MESSAGE:
        raise ValueError(f"a message of {length} bytes")
    return json.loads(_exactly(stream, length)), files[0] if files else None


def send(stream: socket.socket, message: dict[str, Any], file: int | None = None, content: bytes = b"") -> None:
    data = json.dumps(message).encode()
    head = LENGTH.pack(len(data))
    if file is None:
        stream.sendall(head)
    else:
        socket.send_fds(stream, [head], [file])
    stream.sendall(data + content)


def _exactly(stream: socket.socket, count: int) -> bytes:
    parts = []
    while count > 0:
        part = stream.recv(min(count, 1024 * 1024))
        if not part:
            raise OSError("the other end is gone")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


receive_content = _exactly


#: A ninth of the processor time that the others get who want it too.
_NICENESS = 10


def main() -> None:
    stream = socket.socket(fileno=os.dup(0))
    # What a library prints must not get among the messages.
    os.dup2(2, 1)
    _load_codecs()
    _limit_memory()
    # Where processors are few, an image waits for the shard and its database, not they for the image.
    os.nice(_NICENESS)
    send(stream, {"ready": True})
    thumbnailer: Thumbnailer | None = None
    while True:
        message, file = receive(stream)
        if message is None:
            return
        try:
            with lifetime.at_most(_MOST_SECONDS):
                if message["do"] == "open":
                    if thumbnailer is not None:
                        thumbnailer.close()
                        thumbnailer = None
                    assert file is not None
                    # It closes the file with the image.
                    thumbnailer = _open(os.fdopen(file, "rb"), message["pixels"])
                    answer, content = _facts(thumbnailer), b""
                else:
                    assert thumbnailer is not None
                    answer, content = _carry_out(thumbnailer, message)
        except (Exception, MemoryError) as error:
            answer, content = {"error": f"{type(error).__name__}: {error}"[:300]}, b""
        send(stream, {**answer, "bytes": len(content)}, content=content)


def _open(file: BinaryIO, pixels: int) -> Thumbnailer:
    Image.MAX_IMAGE_PIXELS = pixels
    thumbnailer = Thumbnailer(file)  # type: ignore[arg-type]
    if thumbnailer.width * thumbnailer.height > pixels:
        thumbnailer.close()
        raise ValueError(f"{thumbnailer.width} by {thumbnailer.height} pixels, more than {pixels}")
    return thumbnailer


def _facts(thumbnailer: Thumbnailer) -> dict[str, Any]:
    return {
        "width": thumbnailer.width,
        "height": thumbnailer.height,
        "transpose": thumbnailer.transpose_method,
        "animated": getattr(thumbnailer, "is_animated", False),
    }


def _carry_out(thumbnailer: Thumbnailer, message: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    do = message["do"]
    if do == "transpose":
        thumbnailer.transpose()
        return _facts(thumbnailer), b""
    if do == "transparency":
        return {"transparent": bool(thumbnailer.has_transparency)}, b""
    if do in ("scale", "crop"):
        arguments = [message["width"], message["height"], message["type"], *([True] if message["animated"] else [])]
        made = getattr(thumbnailer, do)(*arguments)
        return _facts(thumbnailer), made.getvalue()
    raise ValueError(f"nothing is known of {do}")


def _load_codecs() -> None:
    """All that is loaded on use, while memory and files are there without limits."""
    Image.init()
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        with io.BytesIO() as file:
            Image.new("RGB", (2, 2)).save(file, kind)
            file.seek(0)
            with Image.open(file) as image:
                image.resize((1, 1), Image.Resampling.LANCZOS).tobytes()


def _limit_memory() -> None:
    with open("/proc/self/statm", "rb") as statm:
        present = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (present + MEMORY_BYTES, present + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # It writes no file; what it has to say goes through its socket.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt):
        sys.exit(0)  # The shard is gone, or ends.
