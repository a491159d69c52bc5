"""Assemble the folder of backends that Triton is started with.

Triton takes `<folder>/<name>/libtriton_<name>.so` for a backend, and where there is none `<folder>/<name>/model.py`,
run by the Python backend. So a model whose configuration says `backend: "onnxruntime"` needs no change to run without
the native backend: our `backends/onnxruntime/model.py` is put beside the Python backend.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sketchbridge_server.installation import STUB

if TYPE_CHECKING:
    from sketchbridge_server.installation import Installation

DROP_IN_BACKENDS = Path(__file__).with_name("backends")


def assemble(installation: Installation, folder: Path) -> Path:
    """Fill `folder` (which exists, is empty and is the caller's to remove) and return the folder to give to Triton.

    An installation with the native ONNX Runtime backend keeps its own folder, and `folder` stays empty.
    """
    if installation.has_native_onnx_runtime:
        return installation.backends
    for backend in sorted(installation.backends.iterdir()):
        if backend.is_dir() and backend.name != "python":
            (folder / backend.name).symlink_to(backend)
    python = folder / "python"
    # Copied, not linked: for a backend made of a model.py Triton refuses a library whose real path is elsewhere.
    shutil.copytree(installation.backends / "python", python, ignore=shutil.ignore_patterns("__pycache__"))
    if installation.stub is not None:
        (python / STUB).symlink_to(installation.stub)
    for drop_in in sorted(DROP_IN_BACKENDS.glob("*/model.py")):
        target = folder / drop_in.parent.name
        if not target.exists():
            target.symlink_to(drop_in.parent)
    return folder
