"""One Triton process: started, waited for until every model is ready, stopped without losing a request."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, cast

from sketchbridge_server import deadlines, guardian, step_times
from sketchbridge_server.advice import explain_all
from sketchbridge_server.backend_directory import assemble
from sketchbridge_server.config import check_repositories, command_line
from sketchbridge_server.errors import (
    ModelLoadFailed,
    ServeError,
    ServerDied,
    StartCancelled,
    StartFailed,
)
from sketchbridge_server.health import READY, is_model_ready, repository_index, served_models
from sketchbridge_server.installation import Installation, find_installation, library_path
from sketchbridge_server.log import LogReader, open_log
from sketchbridge_server.plans import check_plans
from sketchbridge_server.ports import reserve_endpoints
from sketchbridge_server.stubs import dead_stubs, find_stubs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from sketchbridge_server.config import Endpoints, ServerConfig
    from sketchbridge_server.health import IndexEntry, ServedModel

logger = logging.getLogger(__name__)

POLL_S = 0.1
SHOWN_LOG_LINES = 15
_TABLES = {  # by the variable that tells models of a table: how it is made, and what is without it
    deadlines.VARIABLE: (deadlines.create_table, "steps of ensembles will work on requests whose time is over"),
    step_times.VARIABLE: (step_times.create_table, "steps will tell no times but their own"),
}
UNLOAD_TIME_S = 15.0  # Triton unloads its models after its own exit timeout, a second or two each


def _never() -> bool:
    return False


@dataclass
class _Running:
    """What exists only while the process does."""

    process: subprocess.Popen[str]
    guardian: subprocess.Popen[bytes]
    guardian_pipe: IO[bytes]
    log: LogReader
    endpoints: Endpoints
    folder: Path
    shared_memory_prefix: str
    stubs: dict[int, str]


class TritonServer:
    """A Triton serving the repositories of `config`, as a child of this process that does not outlive it.

        with TritonServer(ServerConfig(repositories=(Path("model_repository"),), http_port=0)) as server:
            ...  # every model is ready; server.endpoints.grpc_url

    `start` and `wait_until_ready` can be called one by one instead. A server can be started again after `stop`.
    Not for use by several threads at a time.
    """

    def __init__(self, config: ServerConfig, *, installation: Installation | None = None) -> None:
        """Keep the settings; nothing is looked for or started yet.

        installation: the Triton to run; None finds one (`find_installation`).
        """
        self.config = config
        self._installation = installation
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """Where the server is reached, with the real port numbers. Raises ServeError if it is not running."""
        return self._require_running().endpoints

    @property
    def process_id(self) -> int:
        """Of the tritonserver process. Raises ServeError if it is not running."""
        return self._require_running().process.pid

    @property
    def has_no_gpu(self) -> bool:
        """Whether Triton said that it found no GPU."""
        return self._require_running().log.has_no_gpu

    def start(self) -> None:
        """Start the process and come back at once; the models still load then.

        Raises InvalidConfiguration, TritonNotFound, PortUnavailable, or ModelLoadFailed for TensorRT plans that are for
        other machines, before anything is started.
        """
        if self._running is not None:
            raise ServeError(f"this server runs already, as process {self._running.process.pid}; stop it first")
        check_repositories(self.config.repositories)
        installation = self._installation or find_installation()
        version_compatible_plans = self.config.model_config_name is not None and check_plans(
            self.config.repositories, config_name=self.config.model_config_name, backends=installation.backends
        )
        endpoints = reserve_endpoints(self.config)
        log_file = open_log(self.config.log_path) if self.config.log_path else None
        folder = Path(tempfile.mkdtemp(prefix="sketchbridge-serve-"))
        prefix = f"sketchbridge_{secrets.token_hex(6)}_"
        try:
            self._running = self._launch(
                installation, endpoints, folder, prefix, log_file, version_compatible_plans=version_compatible_plans
            )
        except BaseException:
            if log_file is not None:
                log_file.close()
            guardian.remove_leftovers(folder, prefix)
            raise
        logger.info("started %s as process %d", installation.description, self._running.process.pid)

    def wait_until_ready(self, *, cancelled: Callable[[], bool] = _never) -> list[ServedModel]:
        """Wait until every model of every repository is ready, and return them.

        cancelled: asked a few times a second; once it says True the wait ends.
        Raises ModelLoadFailed, StartFailed or StartCancelled; the server is stopped then.
        """
        try:
            index = self._wait(cancelled)
            running = self._require_running()
            running.stubs = find_stubs(running.process.pid)
            return served_models(running.endpoints.http_url, index)
        except BaseException:  # Ctrl-C in a program of the caller's too
            self.stop(grace_period_s=0)
            raise

    def check_alive(self) -> None:
        """Raise ServerDied if the process, or the Python process of any model, has ended by itself."""
        running = self._require_running()
        if running.process.poll() is not None:
            running.log.join(timeout_s=1.0)
            raise ServerDied(
                f"Triton ended by itself with exit code {running.process.returncode}.{self._quoted_log(running)}"
            )
        dead = dead_stubs(running.stubs)
        if dead:
            raise ServerDied(
                f"the Python process of {', '.join(dead)} died, and Triton does not restart it. "
                f"Start the server again.{self._quoted_log(running)}"
            )

    def stop(self, *, grace_period_s: int | None = None, hurried: Callable[[], bool] = _never) -> bool:
        """Let requests in flight finish, then end the server and its stubs, and remove its files.

        Triton takes no new requests from here on. What still runs after the grace period is killed.
        grace_period_s: in whole seconds, 0 kills at once; None takes that of the configuration, and Triton's time to
            unload its models on top.
        hurried: asked a few times a second; once it says True everything is killed at once.
        Returns whether the server ended by itself with every request answered. A server that does not run is stopped
        already: True.
        """
        running, self._running = self._running, None
        if running is None:
            return True
        limit_s = self.config.grace_period_s + UNLOAD_TIME_S if grace_period_s is None else grace_period_s
        give_up = time.monotonic() + limit_s
        with contextlib.suppress(ProcessLookupError):
            running.process.terminate()
        while (ended := running.process.poll() is not None) is False and time.monotonic() < give_up and not hurried():
            time.sleep(POLL_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)  # whatever is left of the group: stubs too
        running.process.wait()
        running.log.join(timeout_s=1.0)
        with contextlib.suppress(BrokenPipeError):
            running.guardian_pipe.write(b".")
            running.guardian_pipe.close()
        running.guardian.wait()
        guardian.remove_leftovers(running.folder, running.shared_memory_prefix)
        if not ended and limit_s:
            logger.warning("the server did not end in time and was killed")
        return ended and running.process.returncode == 0  # 1 if Triton's own patience ran out

    def _launch(
        self,
        installation: Installation,
        endpoints: Endpoints,
        folder: Path,
        prefix: str,
        log_file: IO[str] | None,
        *,
        version_compatible_plans: bool,
    ) -> _Running:
        backends, working_folder = folder / "backends", folder / "empty"
        backends.mkdir()
        # A stub imports from its working folder first: an empty one keeps the caller's files out of that.
        working_folder.mkdir()
        command = command_line(
            self.config,
            endpoints,
            program=installation.program,
            backend_directory=assemble(installation, backends),
            shared_memory_prefix=prefix,
            has_gpu_backends=installation.has_gpu_backends,
            version_compatible_plans=version_compatible_plans,
        )
        process = subprocess.Popen(
            command,
            cwd=working_folder,
            env=server_environment(installation, dict(os.environ), self._make_tables(prefix)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C in a terminal must reach us alone, so that it drains
            restore_signals=False,  # SIGPIPE stays ignored: it must finish its requests even when nobody reads its log
        )
        try:
            watcher = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", guardian.__file__),
                    *(str(process.pid), str(self.config.grace_period_s + int(UNLOAD_TIME_S)), str(folder), prefix),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # it outlives us, and must not hold our reader's pipe open
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        return _Running(
            process=process,
            guardian=watcher,
            guardian_pipe=cast("IO[bytes]", watcher.stdin),
            log=LogReader(cast("IO[str]", process.stdout), log_file=log_file),
            endpoints=endpoints,
            folder=folder,
            shared_memory_prefix=prefix,
            stubs={},
        )

    def _make_tables(self, prefix: str) -> dict[str, str]:
        """Make what models share of requests, which goes with the shared memory: environment variable to its path.

        A table that is not to be, or can't be made, is left out.
        """
        tables: dict[str, str] = {}
        for variable, (create, without) in _TABLES.items():
            if variable == deadlines.VARIABLE and not self.config.refuse_expired:
                continue
            path = guardian.SHARED_MEMORY / f"{prefix}{variable.removeprefix('SKETCHBRIDGE_').lower()}"
            try:
                create(path)
            except OSError as exc:
                logger.warning("%s: cannot make %s: %s", without, path, exc)
            else:
                tables[variable] = str(path)
        return tables

    def _wait(self, cancelled: Callable[[], bool]) -> list[IndexEntry]:
        """The index once every model is ready; raises as `wait_until_ready` does, and stops nothing."""
        running = self._require_running()
        give_up = time.monotonic() + self.config.ready_timeout_s
        while (index := repository_index(running.endpoints.http_url)) is None or self._is_loading(index):
            if running.process.poll() is not None:
                raise self._start_failed(f"Triton ended with exit code {running.process.returncode} while starting")
            if cancelled():
                raise StartCancelled("asked to stop before the server was ready")
            if time.monotonic() > give_up:
                raise self._start_failed(
                    f"the models were not ready after {self.config.ready_timeout_s:g} s; raise --ready-timeout if "
                    "this machine needs longer"
                )
            time.sleep(POLL_S)
        reasons = self._load_failures(index)
        if reasons:
            raise ModelLoadFailed(explain_all(reasons), reasons=reasons)
        return index

    def _require_running(self) -> _Running:
        if self._running is None:
            raise ServeError("the server is not running; call start() first")
        return self._running

    def _is_loading(self, index: list[IndexEntry]) -> bool:
        """Whether Triton is still busy; a model that is READY in the index but does not answer counts as loading."""
        if any(entry.state not in {READY, "UNAVAILABLE", ""} for entry in index):
            return True
        url = self._require_running().endpoints.http_url
        return any(entry.state == READY and not is_model_ready(url, entry.name) for entry in index)

    def _load_failures(self, index: list[IndexEntry]) -> dict[str, str]:
        """Why each model failed: what the index says, else the log (which alone knows models without a version)."""
        log = self._require_running().log
        reasons = dict(log.load_failures)
        for entry in index:
            if entry.state == READY:
                continue
            if entry.reason and entry.reason != "unloaded":
                reasons[entry.name] = entry.reason
            else:
                reasons.setdefault(entry.name, "Triton gave no reason; --verbose shows its log")
        return reasons

    def _start_failed(self, what: str) -> StartFailed:
        running = self._require_running()
        if running.process.poll() is not None:
            running.log.join(timeout_s=1.0)
        return StartFailed(f"{what}.{self._quoted_log(running)}")

    @staticmethod
    def _quoted_log(running: _Running) -> str:
        lines = running.log.last_lines(SHOWN_LOG_LINES)
        return "\nTriton's last messages:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def server_environment(
    installation: Installation, inherited: dict[str, str], tables: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The environment of the server and its stubs, from that of the caller.

    A stub embeds Python, which looks for `python3` on PATH and takes the environment that it belongs to: with the
    folder of the running interpreter first, a virtual environment's packages are found, editable ones too.
    PYTHONHOME would override that, and point a virtual environment's stub at packages it does not have.
    tables: environment variable -> path of what models share; those of another server are not passed on.
    """
    ours = {"PYTHONHOME", *_TABLES}
    environment = {name: value for name, value in inherited.items() if name not in ours} | dict(tables)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # a repository may be read-only, and is not ours to write to
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
    if installation.libraries:
        environment["LD_LIBRARY_PATH"] = library_path(
            installation.libraries, inherited=inherited.get("LD_LIBRARY_PATH")
        )
    return environment
