"""Triton's log, line by line: what is worth passing on, and why a model did not load."""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import re
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from sketchbridge_server.errors import InvalidConfiguration

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

NO_GPU = "No GPU: serving on the CPU."
KEPT_LINES = 400

_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
_LINE = re.compile(
    r"(?P<severity>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (?P<source>[^\s\]:]+):\d+\] +(?P<message>.*)", re.DOTALL
)
# What Triton 2.51 says, at warning or error level, on a machine without a GPU. Each is harmless there.
_NO_GPU_MESSAGES = re.compile(
    r"CUDA driver version is insufficient|no CUDA-capable device|CudaDriverHelper has not been initialized"
    r"|no pinned memory pool|pinned memory pool will not be available|CUDA memory pool disabled"
    r"|DCGM unable to start|Failed to initialize NVML|Cannot get CUDA device count|GPU metrics will not be available"
)
_LOAD_FAILURES = (
    re.compile(r"^failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.*)", re.DOTALL),
    re.compile(r"^Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.*)", re.DOTALL),
    re.compile(r"^failed to load model '(?P<model>[^']+)': (?P<reason>.*)", re.DOTALL),
    re.compile(r"^[^:]+: (?P<reason>ensemble '?(?P<model>[^' ]+)'? .*)", re.DOTALL),
)
# Said once more, with the model's name, by one of the above; or nothing that they don't say.
_REPEATED = re.compile(r"^(?:ERROR: )?Failed to create instance: |^Internal: failed to load all models")
_PARSE_ERROR = re.compile(r"^\[libprotobuf ERROR [^\]]*\] (?P<reason>Error parsing text-format .*)")


@dataclass(frozen=True)
class LogLine:
    """One line of the log.

    level: of the logging module; DEBUG for the tables and blank lines that frame Triton's start.
    message: without quotes and escapes.
    """

    level: int
    message: str

    @property
    def is_no_gpu(self) -> bool:
        """Whether the line only says that this machine has no GPU."""
        return _NO_GPU_MESSAGES.search(self.message) is not None


def parse_line(text: str) -> LogLine:
    """Read one line of Triton's output, which may also be a model's `print` or a library's own message."""
    match = _LINE.match(text.rstrip("\n"))
    if match is None:
        level = logging.DEBUG if not text.strip() or text[0] in "+|" else logging.INFO
        return LogLine(level, text.rstrip("\n"))
    message = match["message"]
    try:
        unquoted = json.loads(message)
    except ValueError:  # the stub of the Python backend does not quote
        unquoted = message
    message = unquoted if isinstance(unquoted, str) else message
    return LogLine(_LEVELS[match["severity"]] if message.strip() else logging.DEBUG, message)


def load_failure(line: LogLine) -> tuple[str, str] | None:
    """The model that the line says could not be loaded, and Triton's reason; None for any other line."""
    for pattern in _LOAD_FAILURES:
        match = pattern.match(line.message)
        if match is not None:
            return match["model"], match["reason"].strip()
    return None


def open_log(path: Path) -> IO[str]:
    """Open a file to append a log to, line by line. Raises InvalidConfiguration if it cannot be written."""
    try:
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as exc:
        raise InvalidConfiguration(f"the log file {path} cannot be written: {exc.strerror}") from exc


class LogReader:
    """Reads a server's output in a thread until it ends.

    Warnings and errors go to this module's logger, the rest there at INFO level; messages that only say that there is
    no GPU become one sentence. The last lines and the reasons of models that did not load are kept.
    """

    def __init__(self, stream: IO[str], *, log_file: IO[str] | None = None) -> None:
        """Start reading.

        stream: the server's output; closed at its end.
        log_file: gets every line as it is, until it cannot be written any more (a full disk); closed then too.
        """
        self._stream = stream
        self._log_file = log_file
        self._lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._parse_error: str | None = None
        self.has_no_gpu = False
        self.load_failures: dict[str, str] = {}
        self._thread = threading.Thread(target=self._read, name="triton-log", daemon=True)
        self._thread.start()

    def last_lines(self, count: int) -> list[str]:
        """Up to `count` of the last messages that say something, oldest first."""
        lines = (parse_line(text) for text in tuple(self._lines))
        return [line.message for line in lines if line.level > logging.DEBUG and not line.is_no_gpu][-count:]

    def join(self, timeout_s: float) -> None:
        """Wait until the output has been read to its end."""
        self._thread.join(timeout_s)

    def _read(self) -> None:
        try:
            for text in self._stream:
                self._keep(text)
                self._lines.append(text)
                self._take(parse_line(text))
        finally:
            self._close_log_file()
            self._stream.close()

    def _keep(self, text: str) -> None:
        if self._log_file is None:
            return
        try:
            self._log_file.write(text)
        except OSError as exc:
            logger.warning("the log file %s ends here: %s", self._log_file.name, exc.strerror)
            self._close_log_file()

    def _close_log_file(self) -> None:
        if self._log_file is not None:
            with contextlib.suppress(OSError):  # what is still in its buffer
                self._log_file.close()
            self._log_file = None

    def _take(self, line: LogLine) -> None:
        if line.is_no_gpu:
            if not self.has_no_gpu:
                logger.info(NO_GPU)
            self.has_no_gpu = True
            return
        parse_error = _PARSE_ERROR.match(line.message)
        if parse_error is not None:
            self._parse_error = parse_error["reason"]  # says which field of the configuration the next line means
        failure = load_failure(line)
        if failure is not None:
            model, reason = failure
            if self._parse_error is not None:
                reason, self._parse_error = f"{reason}: {self._parse_error}", None
            self.load_failures.setdefault(model, reason)
        if failure is not None or _REPEATED.match(line.message):
            logger.debug("triton: %s", line.message)  # told once, in plain words, by ModelLoadFailed
            return
        logger.log(line.level, "triton: %s", line.message)
