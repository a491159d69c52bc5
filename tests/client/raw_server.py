"""A server of bare TCP, or of TLS, for what no library of servers would send."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Talk = Callable[[socket.socket], object]


@contextmanager
def raw_server(talk: Talk, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that does this with every connection, over TLS if there is a context, and then hangs up.

    Yields its port of 127.0.0.1. Of asyncio's own servers a client would not hear why it is refused.
    """

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client may be quicker to hang up
                if context is None:
                    talk(self.request)
                else:
                    _talk_securely(talk, self.request, context)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _talk_securely(talk: Talk, connection: socket.socket, context: ssl.SSLContext) -> None:
    with context.wrap_socket(connection.dup(), server_side=True, do_handshake_on_connect=False) as secured:
        try:
            secured.do_handshake()
            talk(secured)
        except ssl.SSLError:  # the client is told why; hanging up before it has read that would take it back
            connection.shutdown(socket.SHUT_WR)
            connection.recv(9999)
