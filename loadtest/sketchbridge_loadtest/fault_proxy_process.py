"""A FaultProxy in a process of its own, so that its work takes no processor time of the callers it is to harm."""

from __future__ import annotations

import multiprocessing
from multiprocessing.managers import BaseManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sketchbridge_loadtest.fault_proxy import Ending, Fault, FaultProxy

if TYPE_CHECKING:
    from typing_extensions import Self


class FaultProxyProcess:
    """Does what a FaultProxy does, while its `with` block lasts.

    upstream: the server, as "host:port". url: where clients connect.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        # Spawned: a fork would have the threads' locks of this process, but not its threads.
        self._manager = _Manager(ctx=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        self._manager.start()
        try:
            self._proxy: Any = self._manager.Proxy(self._upstream)
            self.url: str = self._proxy.open()
        except BaseException:
            self._manager.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._manager.shutdown()

    def lead_to(self, upstream: str) -> None:
        """Carry new connections there."""
        self._proxy.lead_to(upstream)

    def inject(self, fault: Fault) -> None:
        """As of FaultProxy."""
        self._proxy.inject(fault)

    def cut_all(self, ending: Ending = Ending.RST) -> int:
        """As of FaultProxy."""
        count: int = self._proxy.cut_all(ending)
        return count


class _Proxy(FaultProxy):
    """With methods, which alone can be called from another process, for what is none."""

    def open(self) -> str:
        self.__enter__()
        return self.url

    def lead_to(self, upstream: str) -> None:
        self.upstream = upstream


class _Manager(BaseManager):
    if TYPE_CHECKING:
        Proxy: Any


_Manager.register("Proxy", _Proxy, exposed=("open", "lead_to", "inject", "cut_all"))
