"""A TCP link with a given round trip and rate. It can also harm HTTP answers. Runs as a process of its own.

    python tools/remote_link/link.py PORT --rtt-ms 50 --rate 100e6

It prints its own port. Then it reads commands as lines of JSON from standard input, and answers each with its counts.
It ends when standard input is closed. All keys are optional:

    {"rtt_ms": 50, "rate": 100e6}                   change the link
    {"harm": "cut", "share": 0.1, "after": 4096}    harm a share of the answers; after: bytes of the body, else half
    {"harm": null}                                  stop that
    {"reset": true}                                 set the counts to 0 after they are answered

Model of the link:

- A chunk of bytes arrives half a round trip after it was sent. Chunks do not wait for each other (a pipeline).
- All connections share the rate, separately for each direction. They take turns, 64 KB each, like a router with fair
  queues. So a short answer does not wait behind all bytes of the long ones.
- The first bytes of a connection leave one round trip late, for the handshake of TCP.
- There is no TLS, no slow start and no loss.
- Bytes on the way are at most WINDOW for each connection; then the server is not read from.

Every answer is harmed, or not, by a random generator with a fixed seed. Kinds of harm:

- 500, 503: the request is answered with this status, and does not reach the server.
- cut: the connection is reset in the middle of the body.
- truncate: the connection is closed in the middle of the body.
- short: the header names the half as the length, and the rest does not come.
- stall: the rest of the body never comes, and the connection stays open.
- corrupt: a byte in the middle of the body is changed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import sys
from collections import deque
from typing import Any

# ruff: noqa: D102 - the methods of a protocol are asyncio's

CHUNK = 64 << 10
WINDOW = 16 << 20  # of each connection: a round trip of 150 ms at 100 MB/s
TICK = 0.002  # seconds; at 100 MB/s three chunks
HARMS = ("500", "503", "cut", "truncate", "short", "stall", "corrupt")


class Shaper:
    """One direction of the link. It delays chunks, and limits the rate of all connections together."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[Flow] = deque()  # flows with chunks that are not yet sent; they take turns
        self._under_way: deque[tuple[float, Flow, bytes | None]] = deque()  # in the order of arrival
        self._free_at = 0.0  # when the link has sent everything so far
        self._ticking = False

    def add(self, flow: Flow) -> None:
        """Give a turn to a flow that has chunks waiting."""
        if not self._waiting:
            self._free_at = max(self._free_at, self._link.loop.time())
        self._waiting.append(flow)
        if not self._ticking:
            self._ticking = True
            self._tick()

    def _tick(self) -> None:
        """Send what the rate allows, and deliver what has arrived.

        A tick may be late: times are computed from the moment when the link is free, not from the tick.
        """
        loop = self._link.loop
        now = loop.time()
        rate, delay = self._link.rate, self._link.rtt / 2
        while self._waiting and self._free_at <= now:
            flow = self._waiting.popleft()
            chunk = flow.queue.popleft()
            if flow.queue:
                self._waiting.append(flow)
            else:
                flow.waiting = False
            self._free_at = self._free_at + len(chunk or b"") / rate if rate else now
            self._under_way.append((self._free_at + delay, flow, chunk))
        while self._under_way and self._under_way[0][0] <= now + TICK / 2:
            _, flow, chunk = self._under_way.popleft()
            flow.deliver(chunk)
        if self._waiting:
            loop.call_later(max(TICK, self._free_at - now), self._tick)
        elif self._under_way:
            loop.call_later(max(TICK / 2, self._under_way[0][0] - now - TICK / 4), self._tick)
        else:
            self._ticking = False


class Flow:
    """Bytes of one connection in one direction. None among the chunks is the end of the stream."""

    def __init__(self, shaper: Shaper, source: asyncio.Transport | None = None) -> None:
        self.queue: deque[bytes | None] = deque()
        self.waiting = False
        self.source = source
        self.target: asyncio.Transport | None = None
        self.blocked = False  # True: the target does not take bytes at present
        self.resets = False  # True: the end of the stream is a reset
        self._shaper = shaper
        self._bytes = 0
        self._paused = False

    def send(self, data: bytes | None) -> None:
        """Put bytes on the way, or the end of the stream."""
        if data is None or len(data) <= CHUNK:
            self.queue.append(data)
        else:
            self.queue.extend(data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
        self._bytes += len(data or b"")
        self.regulate()
        if not self.waiting:
            self.waiting = True
            self._shaper.add(self)

    def deliver(self, chunk: bytes | None) -> None:
        """Give a chunk that has arrived to the target."""
        self._bytes -= len(chunk or b"")
        if self.target is not None and not self.target.is_closing():
            if chunk is None and self.resets:
                linger = struct.pack("ii", 1, 0)  # close() then sends RST
                self.target.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.target.abort()
            elif chunk is None:
                self.target.close()
            else:
                self.target.write(chunk)
        self.regulate()

    def regulate(self) -> None:
        """Stop reading from the source while too many bytes are under way."""
        if self.source is None or self.source.is_closing():
            return
        full = self.blocked or self._bytes > (WINDOW // 2 if self._paused else WINDOW)
        if full != self._paused:
            self._paused = full
            (self.source.pause_reading if full else self.source.resume_reading)()


class Requests:
    """Find the heads of requests in the bytes of a connection. What follows a head is skipped by its length."""

    def __init__(self) -> None:
        self._head = b""
        self._body = 0

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Divide bytes into pieces: (piece, whether a whole head ends the piece)."""
        pieces = []
        while data:
            if self._body:
                piece, data = data[: self._body], data[self._body :]
                self._body -= len(piece)
                pieces.append((piece, False))
                continue
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                break
            head, data, self._head = self._head[: end + 4], self._head[end + 4 :], b""
            self._body = length_of(head) or 0
            pieces.append((head, True))
        return pieces


class Client(asyncio.Protocol):
    """A connection of a client to the link. It opens one to the server, and counts requests."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._requests = Requests()
        self._refused = False  # the request under way was answered here
        self._early: list[bytes | None] | None = []  # what came before there was a connection to the server
        self._server = Server(self)

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        self._link.counts["connections"] += 1
        self.up = Flow(self._link.upwards, transport)
        self.down = Flow(self._link.downwards)
        self.down.target = transport
        self._link.loop.create_task(self._connect())

    async def _connect(self) -> None:
        """Connect to the server. What the client sends leaves a round trip later than it came."""
        started = self._link.loop.time()
        try:
            await self._link.loop.create_connection(lambda: self._server, "127.0.0.1", self._link.port)
        except OSError:
            self.transport.abort()
            return
        if self.transport.is_closing():
            self._server.abort()
        await asyncio.sleep(max(0.0, self._link.rtt - (self._link.loop.time() - started)))
        early, self._early = self._early, None
        for data in early or ():
            self._send(data)

    def data_received(self, data: bytes) -> None:
        self._link.counts["bytes_up"] += len(data)
        for piece, is_head in self._requests.feed(data):
            if is_head:
                self._begin(piece)
            if not self._refused:
                self._send(piece)

    def _begin(self, head: bytes) -> None:
        """Count a request, and decide whether its answer is harmed."""
        self._link.count(head)
        harm = self._link.draw()
        self._refused = harm in ("500", "503")
        if self._refused:
            # It comes after the delay of both ways and, if the connection is new, of its start.
            late = self._link.rtt / 2 + (self._link.rtt if self._early is not None else 0)
            self._link.loop.call_later(late, self.down.send, refusal(harm))
        else:
            self._server.begin(harm)

    def _send(self, data: bytes | None) -> None:
        if self._early is not None:
            self._early.append(data)
        else:
            self.up.send(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._server.abort()

    def pause_writing(self) -> None:
        self.down.blocked = True
        self.down.regulate()

    def resume_writing(self) -> None:
        self.down.blocked = False
        self.down.regulate()


class Server(asyncio.Protocol):
    """The connection to the server that belongs to a client. It harms answers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._harm = ""
        self._head = b""
        self._left = -1  # bytes of the body until the harm; -1: its head has not come yet
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._client.down.source = transport
        self._client.up.target = transport

    def abort(self) -> None:
        """Close the connection, if it is there."""
        if self._transport is not None:
            self._transport.abort()

    def begin(self, harm: str) -> None:
        """Do this harm to the next answer."""
        self._harm, self._head, self._left = harm, b"", -1

    def data_received(self, data: bytes) -> None:
        counts = self._client._link.counts
        counts["bytes_down"] += len(data)
        if self._harm:
            data = self._harmed(data)
        if data:
            self._client.down.send(data)

    def _harmed(self, data: bytes) -> bytes:
        """Return what the client gets of these bytes of an answer."""
        before = b""
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return b""
            before, data = self._head[: end + 4], self._head[end + 4 :]
            length = length_of(before) or 0
            after = self._client._link.after
            self._left = length // 2 if after is None else min(after, length)
            if self._harm == "short":
                before = re.sub(rb"(?i)(\r\ncontent-length: *)\d+", rb"\g<1>%d" % self._left, before)
            if not length:  # an answer to HEAD, or without a body
                self._harm = ""
                return before
        if len(data) < self._left or (self._left == len(data) and self._harm in ("short", "corrupt")):
            self._left -= len(data)
            return before + data
        kept, rest = data[: self._left], data[self._left :]
        return before + kept + self._do(rest)

    def _do(self, rest: bytes) -> bytes:
        """Do the harm. Return what the client gets of the rest of the answer."""
        client, self._left = self._client, 0
        if self._harm == "corrupt" and rest:
            self._harm = ""
            return bytes([rest[0] ^ 0xFF]) + rest[1:]
        if self._harm in ("truncate", "cut"):
            client.down.resets = self._harm == "cut"
            client._link.loop.call_soon(client.down.send, None)
        self._harm = "stall" if self._harm in ("truncate", "cut") else self._harm  # nothing more is delivered
        return b""

    def connection_lost(self, error: Exception | None) -> None:
        if not self._client.transport.is_closing():
            self._client.down.send(None)

    def pause_writing(self) -> None:
        self._client.up.blocked = True
        self._client.up.regulate()

    def resume_writing(self) -> None:
        self._client.up.blocked = False
        self._client.up.regulate()


class Link:
    """The state of the link, and its counts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int, rtt: float, rate: float) -> None:
        self.loop = loop
        self.port = port
        self.rtt = rtt
        self.rate = rate
        self.harm = ""
        self.share = 0.0
        self.after: int | None = None
        self.counts = self._zero()
        self.upwards = Shaper(self)
        self.downwards = Shaper(self)
        self._random = random.Random(0)

    def count(self, head: bytes) -> None:
        """Count a request by its method."""
        self.counts["requests"] += 1
        method = head.split(b" ", 1)[0].decode("ascii", "replace")
        self.counts["methods"][method] = self.counts["methods"].get(method, 0) + 1

    def draw(self) -> str:
        """Return the harm to do to the next answer, or ""."""
        if not self.harm or self._random.random() >= self.share:
            return ""
        self.counts["harmed"] += 1
        return self.harm

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out a command. Return the counts."""
        self.rtt = command.get("rtt_ms", self.rtt * 1e3) / 1e3
        self.rate = command.get("rate", self.rate)
        if "harm" in command:
            self.harm = command["harm"] or ""
            self.share = command.get("share", 1.0)
            self.after = command.get("after")
            self._random.seed(command.get("seed", 0))
        counts = self.counts
        if command.get("reset"):
            self.counts = self._zero()
        return counts

    @staticmethod
    def _zero() -> dict[str, Any]:
        return {"requests": 0, "connections": 0, "bytes_up": 0, "bytes_down": 0, "harmed": 0, "methods": {}}


def length_of(head: bytes) -> int | None:
    """Return the Content-Length of a head, or None if it has none."""
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else None


def refusal(status: str) -> bytes:
    text = {"500": "Internal Server Error", "503": "Service Unavailable"}[status]
    return f"HTTP/1.1 {status} {text}\r\nContent-Length: 0\r\n\r\n".encode()


async def serve(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    link = Link(loop, arguments.port, arguments.rtt_ms / 1e3, arguments.rate)
    server = await loop.create_server(lambda: Client(link), "127.0.0.1", arguments.listen, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(link.obey(json.loads(line))), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A link to a port of this machine.")
    parser.add_argument("port", type=int, help="the port of the server")
    parser.add_argument("--listen", type=int, default=0, help="port of the link (any free one)")
    parser.add_argument("--rtt-ms", type=float, default=50)
    parser.add_argument("--rate", type=float, default=100e6, help="bytes a second in each direction; 0: no limit")
    arguments = parser.parse_args()
    run = asyncio.run
    with contextlib.suppress(ImportError):  # without uvloop it takes more of a core
        import uvloop

        run = uvloop.run
    run(serve(arguments))


if __name__ == "__main__":
    main()
