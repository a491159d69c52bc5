"""A TCP proxy that stands between a client and a server and harms their connections on demand.

It knows nothing of what it carries, and lives on an event loop in a thread of its own, so that a plain test can use it:

    with FaultProxy(server.endpoints.grpc_url) as proxy, Client(proxy.url) as client:
        proxy.inject(CutAfter(Side.SERVER, 1000, Ending.RST))

What to know before reading a result:

- HTTP/2 servers speak first, so CutAfter(Side.SERVER, 0, ...) cuts a new gRPC connection in its handshake.
  CutAfter(Side.CLIENT, 0, ...) may cut it before gRPC has put a call on it; such a call goes on over a new connection.
- Refuse() leaves open connections alone. A dead server is Refuse() and then cut_all().
- What was swallowed stays lost. To heal BlackHole() or HalfOpen(), inject PassThrough() and then cut_all().
- A gRPC call made right after a cut may still be given to the dead connection, even with wait_for_ready.
- gRPC channels of one process share connections. Where connections are counted, give each channel the option
  ("grpc.use_local_subchannel_pool", 1).
"""

from __future__ import annotations

import asyncio
import enum
import fcntl
import socket
import struct
import termios
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

_HOST = "127.0.0.1"
_CHUNK_BYTES = 64 * 1024
_DRIP_PERIOD_S = 0.05
_DELIVERY_S = 1.0  # how long a cut waits for a peer that does not take the bytes it was promised
_CALL_S = 10.0  # far more than any step on the loop takes
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST

_Result = TypeVar("_Result")


class Side(enum.Enum):
    """Where bytes come from."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> Side:
        """The side that the bytes go to."""
        return Side.SERVER if self is Side.CLIENT else Side.CLIENT


class Ending(enum.Enum):
    """How a connection is ended, towards the client and the server alike."""

    FIN = "fin"  # as by a program that closes in order
    RST = "rst"  # as by a kernel that knows nothing of the connection


@dataclass(frozen=True)
class PassThrough:
    """Carry everything, both ways."""


@dataclass(frozen=True)
class CutAfter:
    """Carry `count` bytes from `side`, counted on each connection since the fault was injected, and cut it there.

    Exactly `count` bytes arrive, and nothing more of the other side. With 0 the cut comes when the side first speaks.
    times: how many connections are cut before everything passes through again; None for every one.
    """

    side: Side
    count: int
    ending: Ending
    times: int | None = 1

    def __post_init__(self) -> None:
        if self.count < 0 or (self.times is not None and self.times < 1):
            raise ValueError(f"{self}: `count` is 0 or more bytes, `times` 1 or more connections or None for all.")


@dataclass(frozen=True)
class BlackHole:
    """Accept every connection, forward nothing either way, close nothing. Hang-ups are passed on once it is over."""


@dataclass(frozen=True)
class HalfOpen:
    """Treat what comes from `silent` as BlackHole() does, and carry the other direction."""

    silent: Side


@dataclass(frozen=True)
class Drip:
    """Carry at most `bytes_per_s` each way on each connection."""

    bytes_per_s: float

    def __post_init__(self) -> None:
        if not self.bytes_per_s > 0:
            raise ValueError(f"{self}: `bytes_per_s` is more than 0. To carry nothing, take BlackHole().")


@dataclass(frozen=True)
class ResetStorm:
    """Accept each new connection and reset it at once. Open ones go on."""


@dataclass(frozen=True)
class Refuse:
    """Stop listening, so that the kernel refuses new connections. Open ones go on, and the port stays ours."""


Fault: TypeAlias = PassThrough | CutAfter | BlackHole | HalfOpen | Drip | ResetStorm | Refuse


@dataclass(frozen=True)
class Counts:
    """What the proxy has seen since it started. What Refuse() turns away never reaches it and is not counted."""

    accepted: int = 0
    refused: int = 0  # of those accepted, the ones reset at once: by ResetStorm(), or for want of an upstream
    cuts: int = 0  # connections ended by CutAfter() or cut_all()
    live: int = 0  # connections open now
    from_client_bytes: int = 0  # read, whatever became of them
    from_server_bytes: int = 0
    to_client_bytes: int = 0  # sent on
    to_server_bytes: int = 0


class FaultProxy:
    """Listens on a free port of 127.0.0.1 while its `with` block lasts, and carries each connection to `upstream`.

    upstream: the server, as (host, port) or "host:port", IPv4. It may be changed at any time, for new connections.
    The methods may be called from any thread but the proxy's own.
    """

    def __init__(self, upstream: tuple[str, int] | str) -> None:
        self.upstream = upstream
        self._fault: Fault = PassThrough()
        self._cuts_left: int | None = None
        self._counts = Counts()
        self._counted = threading.Condition()
        self._links: dict[_Link, asyncio.Task[None]] = {}

    def __enter__(self) -> Self:
        self._listener = _bound(0)
        self._port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._changed: asyncio.Future[None] = self._loop.create_future()  # done, and replaced, when the fault changes
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fault-proxy-{self._port}", daemon=True)
        self._thread.start()
        self.inject(PassThrough())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def upstream(self) -> tuple[str, int]:
        """Host and port of the server that new connections are carried to."""
        return self._upstream

    @upstream.setter
    def upstream(self, address: tuple[str, int] | str) -> None:
        if isinstance(address, str):
            host, _, port = address.rpartition(":")
            address = (host, int(port))
        self._upstream = address

    @property
    def url(self) -> str:
        """Where clients connect, such as "127.0.0.1:43211". The same for as long as the proxy lives."""
        return f"{_HOST}:{self._port}"

    @property
    def fault(self) -> Fault:
        """The fault of now; PassThrough() once a CutAfter has cut its `times` connections."""
        return self._fault

    @property
    def counts(self) -> Counts:
        """The counters of now."""
        return self._counts

    def inject(self, fault: Fault) -> None:
        """Behave like this from now on, towards bytes not yet read and connections not yet accepted."""
        self._call(self._inject(fault))

    def cut_all(self, ending: Ending = Ending.RST) -> int:
        """End every open connection. Returns how many there were, once they are closed."""
        return self._call(self._cut_all(ending))

    def wait_until(self, predicate: Callable[[Counts], bool], timeout_s: float) -> Counts:
        """Wait for counts that satisfy `predicate`, and return them. Raises TimeoutError, with the counts reached."""
        with self._counted:
            if not self._counted.wait_for(lambda: predicate(self._counts), timeout_s):
                raise TimeoutError(f"Waited {timeout_s:g} s for other counts than {self._counts}.")
            return self._counts

    def _call(self, step: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(_CALL_S)

    # From here on everything runs on the loop, in the proxy's thread.

    async def _inject(self, fault: Fault) -> None:
        if isinstance(fault, Refuse):
            self._stop_listening()
            self._listener = _bound(self._port)  # bound and not listening: nobody else gets the port meanwhile
        else:
            self._listener.listen()
            # A callback and no task: a task that is cancelled while it accepts may lose the connection it was given.
            self._loop.add_reader(self._listener, self._accept)
        for link in self._links:
            link.passed = 0
        self._set_fault(fault)

    def _set_fault(self, fault: Fault) -> None:
        self._fault = fault
        self._cuts_left = fault.times if isinstance(fault, CutAfter) else None
        self._changed.set_result(None)
        self._changed = self._loop.create_future()
        for link in self._links:
            link.wake()

    def _stop_listening(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def _stop(self) -> None:
        self._stop_listening()
        await self._end_all(Ending.RST)

    async def _cut_all(self, ending: Ending) -> int:
        for link in self._links:
            link.condemned = True
        return await self._end_all(ending)

    async def _end_all(self, ending: Ending) -> int:
        links = dict(self._links)
        for link in links:
            link.end(ending)
        await asyncio.gather(*links.values())
        return len(links)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it hung up before we came
            return
        if isinstance(self._fault, ResetStorm):
            self._tally(accepted=1, refused=1)
            _close(client, Ending.RST)
            return
        link = _Link(client)
        self._links[link] = self._loop.create_task(self._serve(link))
        self._tally(accepted=1, live=1)

    async def _serve(self, link: _Link) -> None:
        """Carry both ways until something ends the link, and close it that way."""
        carrying = asyncio.create_task(self._carry(link))
        carrying.add_done_callback(lambda _: link.end(Ending.FIN))
        ending = await link.ended
        carrying.cancel()
        (problem,) = await asyncio.gather(carrying, return_exceptions=True)
        del self._links[link]
        self._tally(live=-1, cuts=1 if link.condemned else 0)
        for end in link.sockets.values():
            _close(end, ending)
        if isinstance(problem, Exception):
            raise problem  # a mistake of ours; the loop logs it

    async def _carry(self, link: _Link) -> None:
        try:
            await self._loop.sock_connect(link.sockets[Side.SERVER], self._upstream)
        except OSError:
            await self._until_heard(Side.SERVER)
            self._tally(refused=1)
            link.end(Ending.RST)
        else:
            await asyncio.gather(*(self._pump(link, side) for side in Side))

    async def _pump(self, link: _Link, side: Side) -> None:
        """Carry what comes from `side` to the other side until it hangs up, and then tell the other side."""
        try:
            while data := await self._receive(link, side):
                while data:
                    data = await self._pass_on(link, side, data)
            await self._until_heard(side)
            with _breaking(side.other):
                link.sockets[side.other].shutdown(socket.SHUT_WR)
        except _Broken as broken:
            await self._until_heard(broken.side)
            link.end(Ending.RST)

    async def _pass_on(self, link: _Link, side: Side, data: bytes) -> bytes:
        """Do to `data` what the fault of now asks for. Returns what is left to do."""
        fault, portion = self._fault, data
        if link.condemned or self._swallows(side):
            return b""
        if isinstance(fault, Drip):
            portion = data[: max(1, int(fault.bytes_per_s * _DRIP_PERIOD_S))]
            if await link.is_woken_within(len(portion) / fault.bytes_per_s):
                return data
        elif isinstance(fault, CutAfter) and fault.side is side:
            portion = data[: fault.count - link.passed]
            link.passed += len(portion)
            if link.passed == fault.count:
                await self._send_last(link, side.other, portion, fault.ending)
                return b""
        await self._send(link, side.other, portion)
        return data[len(portion) :]

    async def _send_last(self, link: _Link, side: Side, data: bytes, ending: Ending) -> None:
        link.condemned = True  # this and the count come before the first await, so that no other link takes the turn
        if self._cuts_left is not None:
            self._cuts_left -= 1
            if self._cuts_left == 0:
                self._set_fault(PassThrough())
        await self._send(link, side, data)
        await _delivered(link.sockets[side])
        link.end(ending)

    def _swallows(self, side: Side) -> bool:
        fault = self._fault
        return isinstance(fault, BlackHole) or (isinstance(fault, HalfOpen) and fault.silent is side)

    async def _until_heard(self, side: Side) -> None:
        while self._swallows(side):
            await asyncio.wait({self._changed})  # awaited itself, it would be cancelled together with one waiter

    async def _receive(self, link: _Link, side: Side) -> bytes:
        with _breaking(side):
            data = await self._loop.sock_recv(link.sockets[side], _CHUNK_BYTES)
        self._tally(**{f"from_{side.value}_bytes": len(data)})
        return data

    async def _send(self, link: _Link, side: Side, data: bytes) -> None:
        self._tally(**{f"to_{side.value}_bytes": len(data)})  # first, so that whoever reads them finds them counted
        with _breaking(side):
            await self._loop.sock_sendall(link.sockets[side], data)

    def _tally(self, **more: int) -> None:
        with self._counted:
            self._counts = replace(self._counts, **{name: getattr(self._counts, name) + n for name, n in more.items()})
            self._counted.notify_all()


class _Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket) -> None:
        self.sockets = {Side.CLIENT: client, Side.SERVER: socket.socket(socket.AF_INET, socket.SOCK_STREAM)}
        for end in self.sockets.values():
            end.setblocking(False)  # noqa: FBT003  takes no keyword
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.passed = 0  # bytes that count for the CutAfter of now
        self.condemned = False  # its cut is decided; nothing more is carried
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()
        self._woken = asyncio.Event()

    async def is_woken_within(self, seconds: float) -> bool:
        # Each link has an event of its own: thousands that wait for one are slow to stop waiting.
        with suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self._woken.wait(), seconds)
        return False

    def end(self, ending: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(ending)


class _Broken(Exception):
    """The peer of this side is gone without a goodbye."""

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self.side = side


@contextmanager
def _breaking(side: Side) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise _Broken(side) from exc


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the port may still be open
    bound.setblocking(False)  # noqa: FBT003  takes no keyword
    bound.bind((_HOST, port))
    return bound


async def _delivered(end: socket.socket) -> None:
    """Wait until the peer's kernel has everything: what still waits in ours is thrown away by a reset."""
    for _ in range(round(_DELIVERY_S / 0.005)):
        (waiting_bytes,) = struct.unpack("i", fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)))
        if not waiting_bytes:
            return
        await asyncio.sleep(0.005)


def _close(end: socket.socket, ending: Ending) -> None:
    if ending is Ending.RST:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    else:
        with suppress(OSError):  # it may be gone already
            end.shutdown(socket.SHUT_WR)  # close() alone sends RST in place of FIN if anything is unread
    end.close()
