"""OpenVINO and NNCF without their telemetry: `import openvino` alone reports to Google Analytics, in a forked process.

Their package for that is kept out, which they take for not installed; so everything of ours imports them from here.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from typing import Any

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an import of it fails

import openvino  # noqa: E402, TID251

__all__ = ["openvino", "quiet_nncf"]


@contextlib.contextmanager
def quiet_nncf() -> Iterator[Any]:
    """The nncf package, which takes seconds to import. Meanwhile nothing is written to stdout, where answers go."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import nncf  # noqa: PLC0415, TID251

        nncf.set_log_level(40)  # errors; logging.ERROR
        yield nncf
