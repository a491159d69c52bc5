"""The asyncio client: the verbs of Client, awaited."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sketchbridge_client.arrays import Inference
from sketchbridge_client.async_live_drawing import AsyncLiveDrawing
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
from sketchbridge_client.connecting import Url, async_driver, prepare
from sketchbridge_client.conversation import Hedge
from sketchbridge_client.core import DEFAULT_TIMEOUT_S, DEFAULT_URL
from sketchbridge_client.formats import OutputFormat
from sketchbridge_client.inputs import PictureInput
from sketchbridge_client.live_drawing import DEFAULT_SIZE_PX, live_paint
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


class AsyncClient:
    """Client for asyncio: the same verbs, which take and give and raise the same, awaited.

    It belongs to the event loop that it is first used in; tasks may share it. Cancelling a task cancels its request on
    the server. Close it, or use it in an `async with` block.
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
        self._driver = async_driver(url, self._core.servers, tls, credentials)

    def __repr__(self) -> str:
        return f"AsyncClient({self._core.servers.urls!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up. Calls still waiting in other tasks end with ConnectionFailed. Closing twice does nothing."""
        await self._driver.close()

    @overload
    async def paint(  # type: ignore[overload-overlap]  # a str is a Sequence too
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
    async def paint(
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

    async def paint(
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
        """See Client.paint."""
        call = paint_call(model=model, fit=fit, normalise=normalise, output_format=output_format, quality=quality)
        return await self._run(self._core.pictures(call, sketch, bgr, timeout_s, painted))

    @overload
    async def sketch(  # type: ignore[overload-overlap]  # a str is a Sequence too
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
    async def sketch(
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

    async def sketch(
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
        """See Client.sketch."""
        call = sketch_call(method=method, output_format=output_format, quality=quality, parameters=parameters)
        return await self._run(self._core.pictures(call, photo, bgr, timeout_s, sketched))

    @overload
    async def roundtrip(  # type: ignore[overload-overlap]  # a str is a Sequence too
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
    async def roundtrip(
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

    async def roundtrip(
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
        """See Client.roundtrip."""
        call = roundtrip_call(
            model=model,
            method=method,
            fit=fit,
            normalise=normalise,
            output_format=output_format,
            quality=quality,
            parameters=parameters,
        )
        return await self._run(self._core.pictures(call, photo, bgr, timeout_s, there_and_back))

    async def infer(
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
        """See Client.infer."""
        return await self._run(self._core.infer(model, inputs, outputs, version, parameters, timeout_s))

    async def models(self, *, timeout_s: Timeout = UNSET) -> list[ModelInfo]:
        """See Client.models."""
        return await self._run(self._core.models(timeout_s))

    async def model(self, name: str, /, *, version: str = "", timeout_s: Timeout = UNSET) -> ModelDetails:
        """See Client.model."""
        return await self._run(self._core.model(name, version, timeout_s))

    async def stats(self, model: str | None = None, /, *, timeout_s: Timeout = UNSET) -> list[ModelStats]:
        """See Client.stats."""
        return await self._run(self._core.stats(model, timeout_s))

    async def ready(self, model: str | None = None, *, timeout_s: Timeout = UNSET) -> bool:
        """See Client.ready."""
        return await self._run(self._core.ready(model, timeout_s))

    @overload
    def live(self, *, timeout_s: Timeout = ...) -> Coroutine[Any, Any, bool]: ...

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
    ) -> AsyncLiveDrawing: ...

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
    ) -> Coroutine[Any, Any, bool] | AsyncLiveDrawing:
        """See Client.live.

        Without a model it is awaited; with one it is not, but for its `async with`:

            async with client.live("shoes") as drawing:
                drawing.feed(frame)
                async for picture in drawing:
                    ...
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
        return AsyncLiveDrawing(self._driver, paint, bgr=bgr, size_px=size_px)

    async def _run(self, program: Program[T]) -> T:
        self._driver.look_after()
        return await self._driver.run(program)
