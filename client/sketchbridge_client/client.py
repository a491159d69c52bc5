"""The blocking client."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sketchbridge_client.arrays import Inference
from sketchbridge_client.batches import PictureBatch
from sketchbridge_client.calls import (
    Fit,
    Normalise,
    paint_call,
    painted,
    roundtrip_call,
    sketch_call,
    sketched,
    there_and_back,
)
from sketchbridge_client.connecting import Url, blocking_driver, prepare
from sketchbridge_client.conversation import Hedge
from sketchbridge_client.core import DEFAULT_TIMEOUT_S, DEFAULT_URL
from sketchbridge_client.formats import OutputFormat
from sketchbridge_client.inputs import PictureInput
from sketchbridge_client.live_drawing import DEFAULT_SIZE_PX, LiveDrawing, live_paint
from sketchbridge_client.messages import Parameter
from sketchbridge_client.metrics import ClientMetrics
from sketchbridge_client.models import ModelDetails, ModelInfo, ModelStats
from sketchbridge_client.pictures import Picture, Roundtrip
from sketchbridge_client.programs import Program
from sketchbridge_client.retries import DEFAULT_RETRY, Retry
from sketchbridge_client.targets import Tls, Token
from sketchbridge_client.timeouts import UNSET, Timeout

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class Client:
    """The way to one Sketchbridge server, or to several that serve the same models.

    Threads may share it, and a forked child may go on with it. Close it, or use it in a `with` block. Nothing is sent
    before the first call, so a Client can be made before its server is up.

    url: `host:port` or `grpcs://host:port` for gRPC, `http://host:port` or `https://host` for HTTP (AsyncClient: with
    the extra `http`), `dns:///name:port` for all addresses of a name, `unix:/path`; or a list of addresses, which are
    taken in turns; or a testing.FakeServer.
    timeout_s: seconds each call may take unless it says otherwise, all its tries and pauses included; None waits
    without limit. The server works on no request whose time is over before its turn comes.
    retry: how often and how long a request that failed is sent again; NEVER for once, as for `infer` on a model that
    keeps state. All other verbs are idempotent.
    hedge: send a second copy of a request that takes unusually long; None for no. Not with retry=NEVER.
    tls: how to trust the server, and how to be trusted; without it grpcs:// and https:// trust the system's
    authorities.
    token: a bearer token, or a function that returns the present one. api_key: sent as `x-api-key`. headers: sent with
    every request.
    plaintext_credentials: send these to an address that is neither encrypted nor on this machine, where something else
    encrypts the way; without it, a token, a key or a header that is known to hold one is refused for such an address.
    metrics: where to count what is sent and how it went.

    None of the credentials is ever shown.

    Every verb takes a picture as a path, the bytes of a file, a binary file object, a Pillow image, a Picture that
    another verb gave, or a uint8 array of (H, W, 3) RGB or (H, W) gray in [0, 255]. With bgr=True an array is BGR, as
    OpenCV has it. Given a list of pictures, or an (N, H, W, 3) array, a verb gives a list in the same order; it sends
    as many in one request as the model takes. If some fail it raises BatchFailed, which has the results of the others.

    Every verb may raise any error of `errors.py`, and what the function given as `token` raises, and no other.
    """

    def __init__(
        self,
        url: Url = DEFAULT_URL,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        retry: Retry = DEFAULT_RETRY,
        hedge: Hedge | None = None,
        tls: Tls | None = None,
        token: Token | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        plaintext_credentials: bool = False,
        metrics: ClientMetrics | None = None,
    ) -> None:
        self._core, credentials = prepare(
            url,
            timeout_s=timeout_s,
            retry=retry,
            hedge=hedge,
            tls=tls,
            token=token,
            api_key=api_key,
            headers=headers,
            plaintext_credentials=plaintext_credentials,
            metrics=metrics,
        )
        self._driver = blocking_driver(url, self._core.servers, tls, credentials)
        self._close = weakref.finalize(self, self._driver.close)

    def __repr__(self) -> str:
        return f"Client({self._core.servers.urls!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Calls still waiting in other threads end with ConnectionFailed. Closing twice does nothing."""
        self._close()

    @overload
    def paint(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        sketch: PictureInput,
        /,
        *,
        model: str = ...,
        fit: Fit | None = ...,
        normalise: Normalise | None = ...,
        output_format: OutputFormat | None = ...,
        quality: int | None = ...,
        bgr: bool = ...,
        timeout_s: Timeout = ...,
    ) -> Picture: ...

    @overload
    def paint(
        self,
        sketch: PictureBatch,
        /,
        *,
        model: str = ...,
        fit: Fit | None = ...,
        normalise: Normalise | None = ...,
        output_format: OutputFormat | None = ...,
        quality: int | None = ...,
        bgr: bool = ...,
        timeout_s: Timeout = ...,
    ) -> list[Picture]: ...

    def paint(
        self,
        sketch: PictureInput | PictureBatch,
        /,
        *,
        model: str = "shoes",
        fit: Fit | None = None,
        normalise: Normalise | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        bgr: bool = False,
        timeout_s: Timeout = UNSET,
    ) -> Picture | list[Picture]:
        """Paint a photo from a drawing.

        sketch: the drawing, any size; dark lines on light paper or the reverse. model: a painter, see `models()`.
        fit: how a drawing that is not square is brought to the model's size. normalise: "off" only fits the drawing and
        does not redraw its lines. output_format, quality: of the photo; quality is 1 to 100 and no matter for PNG. What
        is None is left to the server. timeout_s: seconds for this call; None waits without limit.
        """
        call = paint_call(model=model, fit=fit, normalise=normalise, output_format=output_format, quality=quality)
        return self._run(self._core.pictures(call, sketch, bgr, timeout_s, painted))

    @overload
    def sketch(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        photo: PictureInput,
        /,
        *,
        method: str | None = ...,
        output_format: OutputFormat | None = ...,
        quality: int | None = ...,
        bgr: bool = ...,
        timeout_s: Timeout = ...,
        **parameters: Parameter,
    ) -> Picture: ...

    @overload
    def sketch(
        self,
        photo: PictureBatch,
        /,
        *,
        method: str | None = ...,
        output_format: OutputFormat | None = ...,
        quality: int | None = ...,
        bgr: bool = ...,
        timeout_s: Timeout = ...,
        **parameters: Parameter,
    ) -> list[Picture]: ...

    def sketch(
        self,
        photo: PictureInput | PictureBatch,
        /,
        *,
        method: str | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        bgr: bool = False,
        timeout_s: Timeout = UNSET,
        **parameters: Parameter,
    ) -> Picture | list[Picture]:
        """Draw the lines of a photo: dark lines on white.

        method: "canny", "laplacian", "dodge" or "xdog". parameters: the method's own numbers, such as
        `low_threshold=50` for canny or `sigma=0.8` for xdog, and the server's other options, such as `max_side_px=512`;
        the server refuses one that it does not know. The rest is as for `paint`.
        """
        call = sketch_call(method=method, output_format=output_format, quality=quality, parameters=parameters)
        return self._run(self._core.pictures(call, photo, bgr, timeout_s, sketched))

    @overload
    def roundtrip(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        photo: PictureInput,
        /,
        *,
        model: str = ...,
        method: str | None = ...,
        fit: Fit | None = ...,
        normalise: Normalise | None = ...,
        output_format: OutputFormat | None = ...,
        quality: int | None = ...,
        bgr: bool = ...,
        timeout_s: Timeout = ...,
        **parameters: Parameter,
    ) -> Roundtrip: ...

    @overload
    def roundtrip(
        self,
        photo: PictureBatch,
        /,
        *,
        model: str = ...,
        method: str | None = ...,
        fit: Fit | None = ...,
        normalise: Normalise | None = ...,
        output_format: OutputFormat | None = ...,
        quality: int | None = ...,
        bgr: bool = ...,
        timeout_s: Timeout = ...,
        **parameters: Parameter,
    ) -> list[Roundtrip]: ...

    def roundtrip(
        self,
        photo: PictureInput | PictureBatch,
        /,
        *,
        model: str = "shoes",
        method: str | None = None,
        fit: Fit | None = None,
        normalise: Normalise | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        bgr: bool = False,
        timeout_s: Timeout = UNSET,
        **parameters: Parameter,
    ) -> Roundtrip | list[Roundtrip]:
        """Draw the lines of a photo and paint a photo from them again, in one request.

        model: the painter; the server runs the model `<model>_roundtrip`. fit, normalise: of the drawing on its way to
        the painter, as for `paint`. The rest is as for `sketch`.
        """
        call = roundtrip_call(
            model=model,
            method=method,
            fit=fit,
            normalise=normalise,
            output_format=output_format,
            quality=quality,
            parameters=parameters,
        )
        return self._run(self._core.pictures(call, photo, bgr, timeout_s, there_and_back))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        /,
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: Timeout = UNSET,
    ) -> Inference:
        """Run any model on arrays.

        inputs: NumPy arrays by the names of the model's inputs, shaped as the model takes them, the batch's axis
        included if it has one; arrays of bytes or text become BYTES. outputs: the names of those wanted; () for all.
        version: "" for the one that the server chooses. parameters: the request's, as the model knows them.
        """
        return self._run(self._core.infer(model, inputs, outputs, version, parameters, timeout_s))

    def models(self, *, timeout_s: Timeout = UNSET) -> list[ModelInfo]:
        """Every model the server has, ready or not, by name. timeout_s: seconds for all the requests this takes."""
        return self._run(self._core.models(timeout_s))

    def model(self, name: str, /, *, version: str = "", timeout_s: Timeout = UNSET) -> ModelDetails:
        """What one model takes and gives, which versions are loaded, and whether it is ready."""
        return self._run(self._core.model(name, version, timeout_s))

    def stats(self, model: str | None = None, /, *, timeout_s: Timeout = UNSET) -> list[ModelStats]:
        """What the server has counted of each version of each model, or of one model, since it was loaded."""
        return self._run(self._core.stats(model, timeout_s))

    def ready(self, model: str | None = None, *, timeout_s: Timeout = UNSET) -> bool:
        """Whether a server, or one model of it, takes requests. Asked once; False if nothing answers in time."""
        return self._run(self._core.ready(model, timeout_s))

    @overload
    def live(self, *, timeout_s: Timeout = ...) -> bool: ...

    @overload
    def live(
        self,
        model: str,
        *,
        fit: Fit | None = ...,
        normalise: Normalise | None = ...,
        output_format: OutputFormat | None = ...,
        quality: int | None = ...,
        bgr: bool = ...,
        timeout_s: Timeout = ...,
        size_px: int = ...,
    ) -> LiveDrawing: ...

    def live(
        self,
        model: str | None = None,
        *,
        fit: Fit | None = None,
        normalise: Normalise | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        bgr: bool = False,
        timeout_s: Timeout = UNSET,
        size_px: int = DEFAULT_SIZE_PX,
    ) -> bool | LiveDrawing:
        """Begin a drawing that `model` paints while it is drawn; or, without a model, say whether a server answers.

            with client.live("shoes") as drawing:
                drawing.feed(frame)  # or drawing.stroke([(20, 30), (90, 40)])
                for picture in drawing:
                    ...

        size_px: the side of the drawing's own canvas, which `stroke` draws on. timeout_s: seconds for each sketch. The
        rest is as for `paint`; see LiveDrawing. Without a model: asked once, True if a server answers at all, ready or
        not, False if nothing does in time.
        """
        if model is None:
            return self._run(self._core.live(timeout_s))
        paint = live_paint(
            self._core,
            model=model,
            fit=fit,
            normalise=normalise,
            output_format=output_format,
            quality=quality,
            timeout_s=timeout_s,
        )
        return LiveDrawing(self, self._driver, paint, bgr=bgr, size_px=size_px)

    def _run(self, program: Program[T]) -> T:
        self._driver.look_after()
        return self._driver.run(program)
