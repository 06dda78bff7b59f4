"""A web server that images come from, of which forks may be made as of the rest of a world."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Optional

from tests.linstor_un.hosts.web import Web


class Source:
    """Serves `files` at a port of its own; each fork has a server of its own there."""

    def __init__(self, port: int) -> None:
        self.files: dict[str, bytes] = {}
        self._port = port
        self._server: Optional[Web] = None

    @property
    def server(self) -> Web:
        """The server that answers now."""
        assert self._server is not None
        return self._server

    def offer(self, name: str, content: bytes) -> str:
        """Have a file, and return its URL."""
        self.files[name] = content
        return self.server.url("whole", name)

    def resume(self) -> None:
        """Answer, in this process or in a fork of one that has paused."""
        self._server = Web(self._port)
        self._server.files = self.files
        # A short interval, because closing takes as long.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="source", daemon=True).start()

    def pause(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def mend(self) -> None:
        """Answer again, where it was to answer at all."""
        if self.files:
            self.pause()
            self.resume()

    def __enter__(self) -> Source:
        self.resume()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.pause()
