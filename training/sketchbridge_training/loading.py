"""Batches of pairs, drawn ahead of the training by other processes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sketchbridge_training.errors import DataInvalid, TrainingError
from sketchbridge_training.pairs import PairStream

Pair = tuple[Tensor, Tensor]


def load_batches(stream: PairStream, *, batch_size: int, first: int, stop: int, workers: int) -> Iterator[Pair]:
    """Batches number `first` to `stop` - 1 of the stream; batch i holds the pairs from i * batch_size on.

    workers: processes that draw; 0 draws in this one, one batch at a time. The batches are the same for any number.
    They are started afresh, not forked: a fork of a process in which OpenCV or OpenMP has threads can hang for ever.
    So a script that asks for workers needs its `if __name__ == "__main__":`. Ctrl-C and SIGTERM don't reach them.
    Yields (sketches, photos), both (batch_size, 3, S, S) float32 in [-1, 1]. Takes no numbers from torch's global
    random state. Raises DataInvalid, naming the file, when a photo can't be read, OSError when a mask can't be written,
    TrainingError when a process that draws was killed.
    """
    loader = DataLoader(
        _Outcomes(stream),
        batch_size=batch_size,
        sampler=range(first * batch_size, stop * batch_size),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_prepare_worker,
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),  # its own, or starting the loader would draw from the global one
    )
    with _signals_left_alone():
        outcomes = iter(loader)
    try:
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome
    except (RuntimeError, EOFError, ConnectionError) as exc:  # the latter if it was killed while it sent a batch
        if isinstance(exc, RuntimeError) and "exited unexpectedly" not in str(exc):
            raise
        raise TrainingError(
            f"A process that draws was killed ({str(exc) or 'it fell silent'}), most likely because memory ran out: "
            "each keeps up to half a gigabyte of photos. Use fewer --workers, or a larger /dev/shm in a container."
        ) from exc
    finally:
        del outcomes  # ends the workers now, not when a traceback that holds this frame is forgotten


class _Outcomes(Dataset["Pair | DataInvalid | OSError"]):
    """Pairs or the reason why there is none: raised in a worker, an error would come home as a traceback in text."""

    def __init__(self, stream: PairStream) -> None:
        self._stream = stream

    def __getitem__(self, index: int) -> Pair | DataInvalid | OSError:
        try:
            return self._stream[index]
        except (DataInvalid, OSError) as exc:
            return exc


def _collate(outcomes: list[Pair | DataInvalid | OSError]) -> Pair | DataInvalid | OSError:
    pairs: list[Pair] = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            return outcome
        pairs.append(outcome)
    sketches, photos = zip(*pairs, strict=True)
    return torch.stack(sketches), torch.stack(photos)


@contextlib.contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C as long as they live; whoever trains may want to finish a step.

    Nor does torch's handler of SIGCHLD stay, which raises amid a step when one of them ends: it is missed soon enough.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may say so
        yield
        return
    children = signal.getsignal(signal.SIGCHLD)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGCHLD, children)


def _prepare_worker(_worker: int) -> None:
    """One thread, and no end by SIGTERM, which `timeout` sends to a whole group: whoever trains ends its workers."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # here, because torch handles it from a worker's start on
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
