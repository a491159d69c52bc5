"""Runs a build of TensorRT so that it can be watched and stopped: steps, bars on a terminal, and Ctrl-C."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tqdm

_POLL_S = 0.1


@dataclass(frozen=True)
class Step:
    """How far a phase of the build is; phases nest, and the library makes their names up."""

    phase: str
    parent: str | None
    done: int
    steps: int


def run_build(native: Any, network: Any, config: Any, monitor: Any) -> Any:
    """The serialised network, or None if the library failed.

    The library works in a thread of its own and lets go of Python meanwhile, so that Ctrl-C arrives here: it is passed
    on through the progress monitor, and raised again once the library has stopped.
    """
    config.progress_monitor = monitor
    results: list[Any] = []
    finished = threading.Event()

    def work() -> None:
        try:
            results.append(native.build_serialized_network(network, config))
        finally:
            finished.set()

    thread = threading.Thread(target=work)
    thread.start()
    interrupted: KeyboardInterrupt | None = None
    while not finished.is_set():  # not `join`, which may take a running thread for ended once it was interrupted
        try:
            finished.wait(_POLL_S)
        except KeyboardInterrupt as exc:  # noqa: PERF203 - it is the loop that waits for it
            interrupted = exc
            monitor.cancelled = True
    thread.join()
    if interrupted is not None:
        raise interrupted
    if monitor.fault is not None:
        raise monitor.fault
    return results[0] if results else None


def make_monitor(library: Any, report: Callable[[Step], None]) -> Any:
    """An IProgressMonitor of `library` that reports each step.

    Setting its `cancelled` ends the build; its `fault` is what `report` raised.
    """

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]  # found at run time
        """Counts the steps of each phase. The library calls from threads of its own, one at a time a phase."""

        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.fault: Exception | None = None
            self._phases: dict[str, Step] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._report(Step(phase_name, parent_phase, 0, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            known = self._phases.get(phase_name)
            if known is not None:
                self._report(Step(phase_name, known.parent, step + 1, known.steps))
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            known = self._phases.pop(phase_name, None)
            if known is not None and not self.cancelled:
                self._report(Step(phase_name, known.parent, known.steps, known.steps))

        def _report(self, step: Step) -> None:
            if step.done < step.steps:
                self._phases[step.phase] = step
            try:
                report(step)
            except Exception as exc:  # noqa: BLE001 - an exception can't pass through the library; it is raised later
                self.cancelled, self.fault = True, self.fault or exc

    return Monitor()


class Bars:
    """Passes steps on to the caller, or shows one bar a phase on a terminal, below each other as they nest."""

    def __init__(self, progress: Callable[[Step], None] | None) -> None:
        self._progress = progress
        self._bars: dict[str, Any] = {}
        self._shown = progress is None and sys.stderr.isatty()

    def __enter__(self) -> Callable[[Step], None]:
        return self._show

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def _show(self, step: Step) -> None:
        if self._progress is not None:
            self._progress(step)
        if not self._shown:
            return
        bar = self._bars.get(step.phase)
        if bar is None:
            bar = tqdm.tqdm(desc=step.phase, total=step.steps, leave=step.parent is None, file=sys.stderr)
            self._bars[step.phase] = bar
        bar.update(step.done - bar.n)
        if step.done == step.steps:
            self._bars.pop(step.phase).close()
