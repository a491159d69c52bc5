"""OpenVINO without its telemetry: `import openvino` alone reports to Google Analytics, from a forked process.

Its package for that is kept out, which OpenVINO takes for not installed; so everything of ours imports it from here.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an import of it fails

import openvino  # noqa: E402, TID251

__all__ = ["openvino"]
