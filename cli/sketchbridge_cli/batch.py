"""Works off the planned pictures, a few at a time: skips what is done, reports what is made, stops when told to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sketchbridge_cli.folders import STREAM, Source
from sketchbridge_cli.journal import Journal
from sketchbridge_cli.making import Made, Task, described, make, sentence
from sketchbridge_cli.plan import Plan
from sketchbridge_cli.progress import Progress, make_progress
from sketchbridge_cli.report import Report
from sketchbridge_cli.workers import Finished, Started, Workers

if TYPE_CHECKING:
    from sketchbridge_cli.making import Send
    from sketchbridge_client import Client

FINISHING_S = 3.0
"""How long a batch that is stopped waits for what the server is working on, since its journal will count that."""
CLOSING_S = 1.0
"""How long the threads get to notice that the client has been closed."""
HOPELESS_BEYOND_JOBS = 4
"""So many more failures in a row than there are requests at a time mean that the next would fail too."""


@dataclass(frozen=True)
class Batch:
    """What is to be done.

    journal_of: the journal that a picture goes into, None if it goes into none. options: what pictures are made with,
    canonical JSON. past: of the verb, for the report, as "painted". jobs: requests at a time. again: make anew what was
    made before. as_json: keep a record of everything, and print no line for each picture.
    """

    sources: Sequence[Source]
    plan: Plan
    journal_of: Callable[[Source], Journal | None]
    options: str
    past: str
    jobs: int
    again: bool
    as_json: bool

    @property
    def has_folder(self) -> bool:
        """Whether a folder is among the inputs. Only then there are journals, and may be very many pictures."""
        return any(source.root is not None for source in self.sources)


def run_batch(batch: Batch, client: Client, send: Send) -> Report:
    """Make every picture that is not done yet. One that fails stops no other, unless none can succeed any more.

    Ctrl-C and SIGTERM are let through once what is in flight is finished, or `FINISHING_S` seconds have passed.
    The client is closed at the end. Raises OSError if a journal cannot be written.
    """
    run = _Run(batch, client, send)
    try:
        run.work_off()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*run.how_to_go_on()) from None  # whoever catches it prints it
    except SystemExit:
        sys.stderr.writelines(f"{line}\n" for line in run.how_to_go_on())
        raise
    finally:
        client.close()  # ends the requests that are still in flight
        run.workers.join(wait_s=CLOSING_S)
    return run.report


class _Run:
    """One run of a batch. Everything but `make` happens in the thread that made it."""

    def __init__(self, batch: Batch, client: Client, send: Send) -> None:
        from sketchbridge_client import (  # noqa: PLC0415  heavy
            MAX_IMAGE_BYTES,
            AccessDenied,
            ConnectionFailed,
            ModelNotFound,
        )

        self.batch = batch
        self.report = Report(len(batch.sources), keep=batch.as_json)
        self.todo = self.not_done()
        # Read here, since a thread that waits for stdin could not be ended. One byte more tells a picture too large.
        has_stream = any(source.path == STREAM for source in batch.sources)
        stdin = sys.stdin.buffer.read(MAX_IMAGE_BYTES + 1) if has_stream else b""
        self.workers: Workers[Task, Made | Exception] = Workers(
            self.tasks(),
            partial(make, client=client, send=send, stdin=stdin, abandoned=lambda: self.workers.abandoned),
            threads=max(1, min(batch.jobs, len(self.todo))),
        )
        self.hopeless_errors = (ConnectionFailed, ModelNotFound, AccessDenied)
        self.hopeless_in_a_row = 0
        self.last_words = ""  # of the failure before

    def not_done(self) -> list[int]:
        """The places of the inputs to work on: with --again all of them, and the journals no longer say done."""
        todo = []
        for place, source in enumerate(self.batch.sources):
            journal = self.batch.journal_of(source)
            if journal is not None:
                job = self.batch.plan.job(source)
                if self.batch.again:
                    journal.begin(job.source, job.files)
                elif journal.is_done(job.source, job.files, self.batch.options):
                    self.report.add_skipped(place, described(job))
                    continue
            todo.append(place)
        return todo

    def tasks(self) -> Iterator[Task]:
        """Each picture when a thread is free for it; its journal notes that it is begun."""
        for number, place in enumerate(self.todo, start=1):
            source = self.batch.sources[place]
            task = Task(number, place, self.batch.plan.job(source), self.batch.journal_of(source))
            if task.journal is not None:
                task.journal.begin(task.job.source, task.job.files)
            yield task

    def work_off(self) -> None:
        if self.report.skipped:
            sys.stderr.write(f"skipped {self.report.skipped} done before; --again makes them anew\n")
        as_bar = len(self.todo) > 1 and sys.stderr.isatty()
        # Where a bar tells of all, a line for each of very many pictures would only push it down.
        quiet = self.batch.as_json or (as_bar and self.batch.has_folder and sys.stdout.isatty())
        with make_progress(len(self.todo), as_bar=as_bar) as progress:
            try:
                for report in self.workers.reports():
                    if isinstance(report, Started):
                        progress.started(report.item.number, report.item.job.source)
                    else:
                        self.take(report, progress, quiet=quiet)
                    if self.hopeless_in_a_row >= self.batch.jobs + HOPELESS_BEYOND_JOBS:
                        break
            finally:
                for finished in self.workers.stop(wait_s=FINISHING_S if self.batch.has_folder else 0.0):
                    self.take(finished, progress, quiet=quiet)
        if self.report.left:
            sys.stderr.write(
                f"stopped: {self.hopeless_in_a_row} in a row failed alike, so {self.report.left} were not tried"
                f"{'; the same command goes on from there' if self.batch.has_folder else ''}\n"
            )

    def take(self, finished: Finished[Task, Made | Exception], progress: Progress, *, quiet: bool) -> None:
        """Journal and report what became of one picture."""
        task, result = finished.item, finished.result
        if isinstance(result, Exception):
            self.hopeless_in_a_row = self.hopeless_in_a_row + 1 if isinstance(result, self.hopeless_errors) else 0
            self.take_failure(task, result, progress)
            return
        self.hopeless_in_a_row = 0
        if task.journal is not None and result.stamp is not None:
            task.journal.finish(
                task.job.source, task.job.files, self.batch.options, result.stamp, result.record["model_version"]
            )
        self.report.add_done(task.place, result.record)
        progress.finished(failed=False)
        if result.for_stdout is not None:
            sys.stdout.buffer.write(result.for_stdout)
        elif not quiet:
            progress.print(sentence(self.batch.past, task.job, result.record), sys.stdout)

    def take_failure(self, task: Task, error: Exception, progress: Progress) -> None:
        from sketchbridge_client import InvalidArgument, ServerError  # noqa: PLC0415  heavy

        callers_fault = isinstance(error, InvalidArgument) and not isinstance(error, ServerError)
        self.report.add_failed(task.place, task.job.source, error, callers_fault=callers_fault)
        progress.finished(failed=True)
        words, last_words = f"{error}", self.last_words
        self.last_words = words
        if len(self.batch.sources) == 1:
            progress.print(f"error: {words}", sys.stderr)
            return
        if words == last_words:
            words = "the same"
        progress.print(f"failed: `{task.job.source}`: {words}", sys.stderr)

    def how_to_go_on(self) -> list[str]:
        """What to say when the run was interrupted: nothing if the next one cannot go on from there."""
        if not self.batch.has_folder:
            return []
        command = "the same command without --again" if self.batch.again else "the same command"
        made, failed, left = self.report.done, self.report.failed, self.report.left
        return [f"{made} done, {failed} failed, {left} left; {command} goes on from there"]
