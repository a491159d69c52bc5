"""Reading an answer of HTTP/1.1 from a socket: in time, no more of it than is taken, and wary of what it says."""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Any, cast

from sketchbridge_client.http_failures import compressed, too_large
from sketchbridge_client.http_messages import MAX_ANSWER_BYTES, MAX_ERROR_BYTES
from sketchbridge_client.sockets import LeftS, receive_some

_MAX_HEAD_BYTES = 64 * 1024
_BUFFER_BYTES = 16 * 1024  # what is larger goes past it
_PIECE_BYTES = 1024 * 1024  # of an answer whose size is not said

_STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?")
_FIELD = re.compile(r"([^\s:]+):[ \t]*(.*?)[ \t]*")
_WITHOUT_BODY = {HTTPStatus.SWITCHING_PROTOCOLS, HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


class Fields(Mapping[str, str]):
    """The headers of an answer, by names of any case. What came twice is one, with a comma between."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def add(self, name: str, value: str) -> None:
        """Add one more."""
        name = name.lower()
        self._values[name] = f"{self._values[name]}, {value}" if name in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came. can_go_on: whether the connection can carry another request."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    can_go_on: bool


class Incoming(io.RawIOBase):
    """What comes over a connection.

    left_s: gives the time that is left, as a socket takes it, or raises TimeoutError. has_come: whether anything has.
    """

    def __init__(self, connection: socket.socket, left_s: LeftS) -> None:
        self._connection = connection
        self._left_s = left_s
        self._limit = self._most = 2 * MAX_ANSWER_BYTES  # with what is read past: headers, sizes of chunks
        self.has_come = False

    def makefile(self, *_: object) -> io.BufferedReader:
        """As of a socket, for http.client."""
        return io.BufferedReader(self, _BUFFER_BYTES)

    def readable(self) -> bool:
        """As of a file."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of a file. Raises OSError, or Failed for what is too much."""
        count = receive_some(self._connection, buffer, self._left_s)
        self.has_come = self.has_come or count > 0
        self._most -= count
        if self._most < 0:
            raise too_large(self._limit)
        return count


def read_answer(incoming: Incoming, method: str) -> Answer:
    """Read the answer to a request; of an error what is of use.

    Raises Failed for an answer that is not taken, OSError if the connection fails, HTTPException for what is no HTTP.
    """
    response = _Response(cast("socket.socket", incoming), method=method)
    try:
        response.begin()
        body = _body(response)
        return Answer(response.status, response.fields, body, response.isclosed() and not response.will_close)
    except ValueError as exc:  # of the size of a chunk that is none
        raise HTTPException(str(exc)) from exc
    finally:
        response.close()


class _Response(HTTPResponse):
    """http.client's, but for the head: that gives it to a parser of e-mail, which takes a tenth of a small call."""

    fields: Fields

    def begin(self) -> None:
        """Read the head of the answer, past those that come before it (1xx)."""
        while True:
            minor, status, fields = _head(self.fp)
            if status >= HTTPStatus.OK or status == HTTPStatus.SWITCHING_PROTOCOLS:
                break
        self.status, self.fields = status, fields
        self.chunked, self.chunk_left, self.length = False, None, None
        wishes = fields.get("connection", "").lower()
        self.will_close = "close" in wishes or (minor == 0 and "keep-alive" not in wishes)
        encoding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if status in _WITHOUT_BODY:
            self.length = 0
            self.will_close = self.will_close or status == HTTPStatus.SWITCHING_PROTOCOLS
        elif encoding is not None:
            if encoding.lower() != "chunked":
                raise HTTPException(f"Transfer-Encoding is {encoding}")
            self.chunked = True
        elif length is not None:
            if not re.fullmatch("[0-9]{1,18}", length):
                raise HTTPException(f"Content-Length is {length}")
            self.length = int(length)
        else:
            self.will_close = True


def _head(file: io.BufferedIOBase) -> tuple[int, int, Fields]:
    """The second number of the version, the status, the headers."""
    left = _MAX_HEAD_BYTES
    first = file.readline(left)
    if not first:
        raise RemoteDisconnected("the server hung up without an answer")
    found = _STATUS_LINE.fullmatch(_line(first))
    if found is None:
        raise HTTPException(f"it begins with {first[:40]!r}")
    fields = Fields()
    left -= len(first)
    while text := _line(raw := file.readline(left)):
        one = _FIELD.fullmatch(text)
        if one is None:
            raise HTTPException(f"one of its headers is {raw[:40]!r}")
        fields.add(one[1], one[2])
        left -= len(raw)
    return int(found[1]), int(found[2]), fields


def _line(raw: bytes) -> str:
    if not raw.endswith(b"\n"):
        raise HTTPException("its headers do not end")
    return raw.decode("latin-1").rstrip("\r\n")


def _body(response: _Response) -> bytes:
    well = response.status == HTTPStatus.OK
    encoding = response.fields.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        if well:
            raise compressed(encoding)
        return b""
    limit = MAX_ANSWER_BYTES if well else MAX_ERROR_BYTES
    if response.length is not None and response.length <= limit:
        return response.read()
    if response.length is not None and well:
        raise too_large(limit)
    pieces, size = [], 0
    while size <= limit and (piece := response.read(min(_PIECE_BYTES, limit + 1 - size))):
        pieces.append(piece)
        size += len(piece)
    if well and size > limit:
        raise too_large(limit)
    return b"".join(pieces)
