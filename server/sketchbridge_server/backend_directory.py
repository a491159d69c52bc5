"""Assemble the folder of backends that Triton is started with.

Triton takes `<folder>/<name>/libtriton_<name>.so` for a backend, and where there is none `<folder>/<name>/model.py`,
run by the Python backend. So a model whose configuration says `backend: "onnxruntime"` needs no change to run without
the native backend: our `backends/onnxruntime/model.py` is put beside the Python backend, and so is `openvino`'s.
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

    An installation that brings all of the backends that we have keeps its own folder, and `folder` stays empty; one
    that brings some keeps those and gets ours for the rest.
    """
    missing = [
        drop_in.parent
        for drop_in in sorted(DROP_IN_BACKENDS.glob("*/model.py"))
        if not installation.brings(drop_in.parent.name)
    ]
    if not missing:
        return installation.backends
    ours = {drop_in.name for drop_in in missing}
    for backend in sorted(installation.backends.iterdir()):
        if backend.is_dir() and backend.name != "python" and backend.name not in ours:
            (folder / backend.name).symlink_to(backend)
    python = folder / "python"
    # Copied, not linked: for a backend made of a model.py Triton refuses a library whose real path is elsewhere.
    shutil.copytree(installation.backends / "python", python, ignore=shutil.ignore_patterns("__pycache__"))
    if installation.stub is not None:
        (python / STUB).symlink_to(installation.stub)
    for drop_in in missing:
        (folder / drop_in.name).symlink_to(drop_in)
    return folder
