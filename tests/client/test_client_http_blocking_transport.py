"""The blocking HTTP transport alone: connections and flights, giving up, closing, processes that fork or end."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.messages import Failed
from sketchbridge_client.targets import Tls
from tests.client.http_transports import LIVE, infer, send_blocking, target_of
from tests.client.raw_server import raw_server
from tests.client.scripted_http import ScriptedHttpServer
from tests.client.waiting import wait_for


def answer_once(connection: socket.socket) -> None:
    connection.recv(9999)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_cookies_are_not_kept(scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply(headers={"Set-Cookie": "a=b"})
    transport = HttpTransport(target_of(scripted_http.url), None)
    assert [transport.send(LIVE, 20.0, ()) for _ in range(2)] == [True, True]
    transport.close()
    assert [request.headers.get("Cookie") for request in scripted_http.came] == [None, None]
    assert len(set(scripted_http.ports)) == 1  # the connection is kept


def test_a_question_survives_that_the_server_gave_up_the_connection_it_kept() -> None:
    with raw_server(answer_once) as port:
        transport = HttpTransport(target_of(f"http://127.0.0.1:{port}"), None)
        assert [transport.send(LIVE, 20.0, ()) for _ in range(20)] == [True] * 20
        transport.close()


def test_a_picture_is_not_sent_a_second_time_by_the_transport_itself() -> None:
    came: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        answer_once(connection)
        came.append(connection.recv(9999))  # and hang up

    with raw_server(talk) as port:
        transport = HttpTransport(target_of(f"http://127.0.0.1:{port}"), None)
        assert transport.send(LIVE, 20.0, ()) is True
        with pytest.raises(Failed, match="UNAVAILABLE"):
            transport.send(infer(b""), 20.0, ())
        transport.close()
    assert [data[:5] for data in came] == [b"POST "]


def test_the_address_that_answers_is_found_behind_one_that_does_not(
    scripted_http: ScriptedHttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_http.reply()
    found = socket.getaddrinfo
    with socket.socket() as deaf, socket.socket() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting.setblocking(False)
        waiting.connect_ex(deaf.getsockname())  # fills its queue, so that the next is left without an answer

        def both(host: str, port: int, **options: Any) -> list[Any]:
            if host != "two.example":
                return found(host, port, **options)
            if options.get("flags"):
                raise socket.gaierror
            return found(*deaf.getsockname(), **options) + found("127.0.0.1", port, **options)

        monkeypatch.setattr(socket, "getaddrinfo", both)
        assert send_blocking(scripted_http.url.replace("localhost", "two.example"), LIVE, timeout_s=4.0) is True


def test_the_time_is_over_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def look_up(*_: Any, flags: int = 0, **__: Any) -> list[Any]:
        if not flags:
            over.wait(20)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    transport = HttpTransport(target_of("http://slow.example"), None)
    with pytest.raises(Failed, match="DEADLINE_EXCEEDED"):
        transport.send(LIVE, 0.2, ())
    flight = transport.begin(LIVE, None, ())
    transport.renew()
    outcome = flight.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code == "UNAVAILABLE"
    over.set()
    transport.close()


def test_an_address_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no address"):
        HttpTransport(target_of(f"http://{'a' * 70}é.example"), None)


def test_a_name_that_no_certificate_can_have_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="expected the name of a host"):
        HttpTransport(target_of("https://127.0.0.1"), Tls(server_name="a..b"))


def test_a_connection_that_was_closed_on_this_side_is_not_the_fault_of_the_request(
    scripted_http: ScriptedHttpServer,
) -> None:
    scripted_http.reply()
    transport = HttpTransport(target_of(scripted_http.url), None)
    assert transport.send(LIVE, 20.0, ()) is True
    transport._idle[0][0].close()
    with pytest.raises(Failed, match="closed on this side") as caught:
        transport.send(LIVE, 20.0, ())
    assert caught.value.code == "UNAVAILABLE"
    transport.close()


def test_only_what_the_head_cannot_hold_is_the_fault_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> list[Any]:
        raise ValueError("elsewhere")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    transport = HttpTransport(target_of("http://some.example"), None)
    with pytest.raises(Failed, match="HTTP cannot carry") as caught:
        transport.send(LIVE, 20.0, (("a", "b\n"),))
    assert caught.value.code is None
    with pytest.raises(ValueError, match="elsewhere"):
        transport.send(LIVE, 20.0, ())
    transport.close()


# Giving up


def test_a_flight_can_be_given_up(scripted_http: ScriptedHttpServer) -> None:
    transport = HttpTransport(target_of(scripted_http.url), None)
    flight = transport.begin(infer(b""), None, ())
    done = threading.Event()
    flight.when_done(done.set)
    wait_for(scripted_http.arrived)
    assert not done.is_set()
    flight.cancel()
    outcome = flight.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code == "CANCELLED"
    wait_for(done)
    wait_for(scripted_http.left)
    transport.close()


def test_who_waits_for_a_flight_is_told_though_it_landed_long_ago(scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply()
    transport = HttpTransport(target_of(scripted_http.url), None)
    flight = transport.begin(LIVE, 20.0, ())
    assert flight.outcome() is True
    told: list[bool] = []
    flight.when_done(lambda: told.append(True))
    assert told == [True]
    flight.cancel()
    assert flight.outcome() is True  # too late
    transport.close()


def test_a_callback_can_begin_the_next_flight(scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply()
    transport = HttpTransport(target_of(scripted_http.url), None)
    flights = [transport.begin(LIVE, 20.0, ())]
    begun = threading.Event()

    def begin() -> None:
        flights.append(transport.begin(LIVE, 20.0, ()))
        begun.set()

    flights[0].when_done(begin)
    wait_for(begun)
    assert flights[1].outcome() is True
    transport.close()


def test_control_c_gives_the_request_up(scripted_http: ScriptedHttpServer) -> None:
    transport = HttpTransport(target_of(scripted_http.url), None)

    def interrupt() -> None:
        wait_for(scripted_http.arrived)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        transport.send(infer(b""), None, ())
    thread.join()
    wait_for(scripted_http.left)
    transport.close()


def test_renewing_ends_what_is_on_its_way_and_connects_anew(scripted_http: ScriptedHttpServer) -> None:
    transport = HttpTransport(target_of(scripted_http.url), None)
    transport.renew()  # nothing to renew yet
    flight = transport.begin(infer(b""), None, ())
    wait_for(scripted_http.arrived)
    transport.renew()
    outcome = flight.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code == "UNAVAILABLE"
    wait_for(scripted_http.left)
    scripted_http.reply()
    assert transport.send(LIVE, 20.0, ()) is True
    transport.renew()
    assert transport.send(LIVE, 20.0, ()) is True
    transport.close()
    transport.renew()
    assert len(set(scripted_http.ports)) == 3


def test_renewing_ends_what_is_still_connecting() -> None:
    greeted, over = threading.Event(), threading.Event()

    def be_silent(connection: socket.socket) -> None:
        connection.recv(9999)
        greeted.set()
        over.wait(60)

    with raw_server(be_silent) as port:
        transport = HttpTransport(target_of(f"https://127.0.0.1:{port}"), None)
        flight = transport.begin(LIVE, None, ())
        wait_for(greeted)
        transport.renew()
        outcome = flight.outcome()
        over.set()
        transport.close()
    assert isinstance(outcome, Failed)
    assert outcome.code == "UNAVAILABLE"


def test_closing_ends_what_is_on_its_way_and_what_comes_after(scripted_http: ScriptedHttpServer) -> None:
    transport = HttpTransport(target_of(scripted_http.url), None)
    flight = transport.begin(infer(b""), None, ())
    wait_for(scripted_http.arrived)
    transport.close()
    transport.close()
    for outcome in (flight.outcome(), transport.begin(LIVE, 20.0, ()).outcome()):
        assert isinstance(outcome, Failed)
        assert outcome.code == "CANCELLED"
    wait_for(scripted_http.left)
    for thread in threading.enumerate():
        if thread.name == "sketchbridge-http":
            thread.join(20)
            assert not thread.is_alive()


def test_a_transport_that_nobody_holds_hangs_up() -> None:
    gone = threading.Event()

    def talk(connection: socket.socket) -> None:
        answer_once(connection)
        connection.recv(1)
        gone.set()

    with raw_server(talk) as port:
        transport = HttpTransport(target_of(f"http://127.0.0.1:{port}"), None)
        assert transport.send(LIVE, 20.0, ()) is True
        del transport
        gc.collect()
        wait_for(gone)


# Processes


PREPARED = """
import asyncio, gc, os, sys
from sketchbridge_client.http_aio_transport import HttpAsyncTransport
from sketchbridge_client.http_blocking_transport import HttpTransport
from sketchbridge_client.messages import Ask, Question
from sketchbridge_client.targets import parse_targets
live, target = Ask(Question.SERVER_LIVE), parse_targets(sys.argv[1], None)[0]
"""


def run_script(script: str, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", PREPARED + textwrap.dedent(script), url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_a_forked_child_connects_on_its_own_and_leaves_the_parents_connection_alone(
    scripted_http: ScriptedHttpServer,
) -> None:
    scripted_http.reply()
    said = run_script(
        """
        import warnings
        warnings.simplefilter("ignore")  # of forking with threads, and of what is left behind
        transport = HttpTransport(target, None)
        print("parent", transport.send(live, 20.0, ()), flush=True)
        if not (child := os.fork()):
            print("child", transport.send(live, 20.0, ()), flush=True)
            transport.close()
            del transport
            gc.collect()
            sys.exit()
        os.waitpid(child, 0)
        if not (child := os.fork()):
            sys.exit()  # without having used it
        os.waitpid(child, 0)
        print("parent", transport.send(live, 5.0, ()))
        transport.close()
        """,
        scripted_http.url,
    )
    assert said.split("\n")[:-1] == ["parent True", "child True", "parent True"]
    assert scripted_http.ports[0] == scripted_http.ports[2] != scripted_http.ports[1]


def test_a_program_may_end_without_closing(scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply()
    script = """
    transport = HttpTransport(target, None)
    print(transport.send(live, 20.0, ()))
    """
    assert run_script(script, scripted_http.url) == "True\n"


def test_a_program_may_end_while_it_waits(scripted_http: ScriptedHttpServer) -> None:
    script = """
    transport = HttpTransport(target, None)
    transport.begin(live, None, ())
    """
    assert run_script(script, scripted_http.url) == ""


def test_aiohttp_is_not_imported_by_code_that_blocks(scripted_http: ScriptedHttpServer) -> None:
    scripted_http.reply()
    script = """
    transport = HttpTransport(target, None)
    print(transport.send(live, 20.0, ()), 'aiohttp' in sys.modules)
    """
    assert run_script(script, scripted_http.url) == "True False\n"
