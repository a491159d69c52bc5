"""What the Python models of the repository have in common: one request in, one answer or one clear error out.

A model says how one picture is answered; this loop does the rest. A bad picture fails its own request and no other, as
INVALID_ARGUMENT; anything unforeseen becomes INTERNAL with a sentence, and its traceback goes to the server's log, not
to the caller. Requests of a batch are worked on side by side: OpenCV leaves the interpreter lock while it works.

A request whose caller has left, or whose time is over, before its turn comes is not worked on (`turns`). A step of an
ensemble is not told of a caller that left early; the ensemble then ends after that step.

A model whose configuration has an output `timings` tells in it what the request went through so far (`step_times`).
"""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from sketchbridge_preprocess import PreprocessError, RequestOptions, read_options
from sketchbridge_server.step_times import OUTPUT as TIMINGS
from sketchbridge_server.turns import Turns

logger = logging.getLogger(__name__)

Answer = Mapping[str, bytes | NDArray[np.uint8]]
"""Output name to one picture: bytes for a BYTES output, an array for a UINT8 output."""


class PictureStep(ABC):
    """A Triton Python model that answers pictures one by one.

    input_name: its only input, (N, 1) BYTES or (N, H, W, 3) UINT8. Bytes come from callers, so a step that takes them
    is the first of its ensembles: it notes how long each request has, and times begin with it.
    """

    input_name: str

    @abstractmethod
    def answer(self, picture: Any, options: RequestOptions, wanted: set[str]) -> Answer:
        """Answer one picture: bytes from a BYTES input, (H, W, 3) uint8 from a UINT8 input.

        wanted: the outputs the request asks for; others need not be computed. Raises PreprocessError for what the
        caller can mend.
        """

    def initialize(self, arguments: Mapping[str, str]) -> None:
        """Called by Triton once, when the model is loaded."""
        inputs = json.loads(arguments["model_config"])["input"]
        takes_bytes = any(item["data_type"] == "TYPE_STRING" for item in inputs)
        self._turns = Turns(model=arguments["model_name"], is_first=takes_bytes)
        self._opencv_threads = cv2.getNumThreads()
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Called by Triton with every request of a batch; answers each, in order."""
        began_ns = self._turns.begin(requests)
        if len(requests) == 1:
            cv2.setNumThreads(self._opencv_threads)
            responses = [self._respond(requests[0], began_ns)]
        else:
            cv2.setNumThreads(1)  # the pool is the parallelism now; a second one within it would only be in its way
            responses = list(self._pool.map(self._respond, requests, repeat(began_ns)))
        self._turns.end(requests, began_ns)
        return responses

    def finalize(self) -> None:
        """Called by Triton when the model is unloaded."""
        self._pool.shutdown()

    def _respond(self, request: Any, began_ns: int) -> Any:
        refusal = self._turns.refusal(request)
        if refusal is not None:
            return refusal
        try:
            options = read_options(json.loads(request.parameters() or "{}"))
            wanted = set(request.requested_output_names())
            pictures = pb_utils.get_input_tensor_by_name(request, self.input_name).as_numpy()
            answers = []
            for number, picture in enumerate(pictures):
                item = picture[0] if picture.dtype == object else picture
                try:
                    answers.append(self.answer(item, options, wanted))
                except PreprocessError as exc:
                    if len(pictures) == 1:
                        raise
                    return _failure(f"Picture {number} of {len(pictures)} (from 0): {exc}")
            tensors = [_tensor(name, answers) for name in answers[0] if name in wanted]
            if TIMINGS in wanted:
                text = self._turns.told(request, began_ns)
                tensors.append(_tensor(TIMINGS, [{TIMINGS: text}] * len(answers)))
            return pb_utils.InferenceResponse(tensors)
        except PreprocessError as exc:
            return _failure(str(exc))
        except Exception as exc:
            logger.exception("step failed input=%s", self.input_name)
            return _failure(f"The server failed on this picture ({type(exc).__name__}).", pb_utils.TritonError.INTERNAL)


def _tensor(name: str, answers: Sequence[Answer]) -> Any:
    values = [answer[name] for answer in answers]
    if isinstance(values[0], bytes):
        return pb_utils.Tensor(name, np.array(values, dtype=object).reshape(-1, 1))
    return pb_utils.Tensor(name, np.stack([np.asarray(value) for value in values]))


def _failure(message: str, code: Any = None) -> Any:
    code = pb_utils.TritonError.INVALID_ARG if code is None else code
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
