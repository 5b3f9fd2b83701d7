"""HTTP connections that must say something: a request whose head does not arrive in time loses its connection.

uvicorn bounds idle connections after an answer, but not the head of a request, so a few hundred strangers who send a
byte a second could hold every socket of a process.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_S = 10.0
"""Longest time from the connection, or the last answer's follower, to a whole head, seconds."""

_Base: Any = AutoHTTPProtocol


class ImpatientProtocol(_Base):  # type: ignore[misc]  # uvicorn chooses its parser at run time
    """uvicorn's protocol with a timer that runs while a head is awaited."""

    head_s = HEAD_S
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on while no request runs; a head that came in pieces does not start the timer again."""
        super().data_received(data)
        running = self.cycle is not None and not self.cycle.response_complete
        if running:
            self._rest()
        elif self._timer is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._rest()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.head_s, self._hang_up)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        self._timer = None
        self.transport.close()
