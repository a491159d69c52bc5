"""Find Triton on this machine, without importing anything of it.

Two kinds of place are known. A `tritonserver` on PATH is a full Triton, as in NVIDIA's container image. Otherwise the
`nvidia-pytriton` wheel carries one: the program, the Python backend, and one stub for each Python version.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from sketchbridge_server.errors import TritonNotFound

PROGRAM = "tritonserver"
WHEEL = "nvidia-pytriton"
STUB = "triton_python_backend_stub"
INSTALL_ADVICE = "Install it with `pip install 'sketchbridge[serve]'`, or use the image nvcr.io/nvidia/tritonserver."
SHELL_NOT_LOADABLE = 127


@dataclass(frozen=True)
class Installation:
    """One Triton.

    program: the tritonserver executable.
    backends: its folder of backends.
    stub: the Python backend's process of the running interpreter; None leaves the one inside `backends`.
    libraries: folders that the dynamic loader must be told of.
    description: what it is, for people.
    """

    program: Path
    backends: Path
    stub: Path | None
    libraries: tuple[Path, ...]
    description: str

    def brings(self, backend: str) -> bool:
        """Whether this Triton has a backend of that name itself, so that ours must stay out of its way."""
        folder = self.backends / backend
        return (folder / f"libtriton_{backend}.so").is_file() or (folder / "model.py").is_file()

    @property
    def has_gpu_backends(self) -> bool:
        """Whether models may run on a GPU; the wheel's Triton has the Python backend only."""
        return self.stub is None


def find_installation() -> Installation:
    """Find the Triton to start: the one on PATH, else the wheel's.

    Raises TritonNotFound if there is neither, or if a part that it needs on this machine is missing.
    """
    program = shutil.which(PROGRAM)
    return native_installation(Path(program)) if program else wheel_installation()


def native_installation(program: Path) -> Installation:
    """Describe a full Triton by its program; its backends lie in ../backends, as in NVIDIA's image."""
    resolved = program.resolve()
    backends = resolved.parent.parent / "backends"
    if not (backends / "python").is_dir():
        raise TritonNotFound(
            f"{program} has no Python backend: {backends / 'python'} is not there. "
            "Use an image with the Python backend, or take this tritonserver off PATH to use the wheel's."
        )
    return Installation(program=resolved, backends=backends, stub=None, libraries=(), description=str(program))


def wheel_installation() -> Installation:
    """Describe the Triton inside the installed nvidia-pytriton wheel.

    Raises TritonNotFound if the wheel is not installed, has no stub for this Python, or the stub cannot be loaded.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise TritonNotFound(f"there is no `{PROGRAM}` on PATH, and {WHEEL} is not installed. {INSTALL_ADVICE}")
    package = Path(next(iter(spec.submodule_search_locations)))
    root = package / "tritonserver"
    program = root / "bin" / PROGRAM
    if not program.is_file():
        raise TritonNotFound(f"{WHEEL} is installed but {program} is missing. Reinstall it: {INSTALL_ADVICE}")
    python_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / python_version / STUB
    if not stub.is_file():
        known = sorted((path.parent.name for path in stub.parents[1].glob(f"*/{STUB}")), key=_version_key)
        raise TritonNotFound(
            f"{WHEEL} has no stub for Python {python_version}, only for {', '.join(known) or 'none'}. "
            "Make the virtual environment with one of those."
        )
    installation = Installation(
        program=program,
        backends=root / "backends",
        stub=stub,
        libraries=(package.parent / "nvidia_pytriton.libs", *_interpreter_libraries()),
        description=f"{WHEEL} {importlib.metadata.version(WHEEL)}",
    )
    check_stub(stub, installation.libraries)
    return installation


def check_stub(stub: Path, libraries: tuple[Path, ...]) -> None:
    """Ask the dynamic loader whether it can start the stub; without arguments the stub itself only says so and ends.

    Raises TritonNotFound, with the package to install if libpython (or another library) is not found.
    """
    try:
        answer = subprocess.run(
            [str(stub)],
            env={"LD_LIBRARY_PATH": library_path(libraries, inherited=os.environ.get("LD_LIBRARY_PATH"))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:  # not executable, or built for another machine
        raise TritonNotFound(f"Triton's Python backend cannot start here: {exc}. {INSTALL_ADVICE}") from exc
    if answer.returncode != SHELL_NOT_LOADABLE:
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise TritonNotFound(
        f"Triton's Python backend cannot start here: {answer.stderr.strip()}. It needs the shared libpython{version} "
        f"and the libraries beside it. On Debian and Ubuntu: `apt-get install libpython{version}`; with pyenv, rebuild "
        "Python with PYTHON_CONFIGURE_OPTS=--enable-shared."
    )


def library_path(libraries: tuple[Path, ...], *, inherited: str | None) -> str:
    """The value of LD_LIBRARY_PATH: ours first, then what the caller had."""
    return os.pathsep.join([*map(str, libraries), *([inherited] if inherited else [])])


def _interpreter_libraries() -> tuple[Path, ...]:
    """The folder of the running interpreter's own libpython, so that the stub does not take another build's.

    Relocated builds carry a LIBDIR that is not there, so the interpreter's own prefix is looked at too.
    """
    name = sysconfig.get_config_var("INSTSONAME") or ""
    folders = (sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib"))
    return tuple(
        Path(folder) for folder in dict.fromkeys(folders) if folder and ".so" in name and (Path(folder) / name).exists()
    )


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
