"""Makes one picture: sends the input, writes what comes back, and describes it for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sketchbridge_cli.folders import STREAM
from sketchbridge_cli.journal import Journal, Stamp, stamp_of
from sketchbridge_cli.plan import Job

if TYPE_CHECKING:
    from sketchbridge_client import Client, Picture

    Send = Callable[[Client, bytes | str], Mapping[str, Picture]]
    """Sends one picture, a path or bytes, and gives back each output by name."""


@dataclass(frozen=True)
class Task:
    """One picture. number: from 1, in the order of starting. place: among all inputs. journal: where it is noted."""

    number: int
    place: int
    job: Job
    journal: Journal | None


@dataclass(frozen=True)
class Made:
    """What is kept of a picture that was made, its pixels being on the disk.

    record: as in the JSON answer. stamp: of the input, where there is a journal. for_stdout: bytes to be printed.
    """

    record: Mapping[str, Any]
    stamp: Stamp | None
    for_stdout: bytes | None


def make(task: Task, client: Client, send: Send, *, stdin: bytes, abandoned: Callable[[], bool]) -> Made | Exception:
    """Send one picture and write its outputs; what goes wrong with it is returned. Threads may share everything here.

    stdin: the picture that the input `-` stands for. abandoned: asked before writing; if true, nothing is written.
    """
    from sketchbridge_client import SketchbridgeError  # noqa: PLC0415  heavy

    job = task.job
    try:
        stamp = None if task.journal is None else stamp_of(job.source)  # first, so that a change from now on is noticed
        pictures = send(client, stdin if job.source == STREAM else job.source)
        if not abandoned():
            _save(job, pictures)
    except (SketchbridgeError, OSError) as exc:
        return exc
    for_stdout = next((pictures[name].bytes for name, target in job.targets.items() if target is None), None)
    return Made(_record(job, pictures), stamp, for_stdout)


def described(job: Job) -> dict[str, Any]:
    """The input and the outputs, as in the JSON answer."""
    return {"input": job.source, "outputs": {name: str(target) for name, target in job.targets.items()}}


def sentence(past: str, job: Job, record: Mapping[str, Any]) -> str:
    """One line about a picture that was made. past: of the verb, as "painted"."""
    written = ", ".join(f"`{target}`" for target in job.files)
    return f"{past} `{job.source}` with {record['model']} in {record['elapsed_s']:.2f} s, wrote: {written}"


def _save(job: Job, pictures: Mapping[str, Picture]) -> None:
    for name, target in job.targets.items():
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            pictures[name].save(target)


def _record(job: Job, pictures: Mapping[str, Picture]) -> dict[str, Any]:
    made = next(iter(pictures.values()))
    return {
        **described(job),
        "format": made.format,
        "model": made.model,
        "model_version": made.model_version,
        "request_id": made.request_id,
        "elapsed_s": round(made.elapsed_s, 6),
        "steps": [asdict(step) for step in made.timings.steps],
    }
