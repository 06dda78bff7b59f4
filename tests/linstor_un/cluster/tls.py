"""What may be where a controller is looked for: a proxy before the sandbox, with or without TLS, and what is none."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, Optional

from linstor_sandbox import Sandbox
from tests.conftest import World


class Proxy:
    """Passes on what it gets, out of TLS where it has a context, keeps it in `received` and counts who came."""

    def __init__(self, sandbox: Sandbox, context: Optional[ssl.SSLContext]) -> None:
        self.received = b""
        self.connections = 0
        self._sandbox = sandbox
        self._context = context
        self._is_frozen = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Ends the thread that accepts, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def freeze(self) -> None:
        """Take whatever comes, and pass nothing on any more."""
        self._is_frozen = True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            controller = socket.create_connection(("127.0.0.1", self._sandbox.port))
        except OSError:
            client.close()
            return
        threading.Thread(target=self._answers, args=(controller, client), daemon=True).start()
        with controller:
            while True:
                try:
                    data = client.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                self.received += data
                if not self._is_frozen:
                    controller.sendall(data)

    @staticmethod
    def _answers(controller: socket.socket, client: socket.socket) -> None:
        with client:
            try:
                while True:
                    data = controller.recv(65536)
                    if not data:
                        return
                    client.sendall(data)
            except OSError:
                return


@contextmanager
def proxy(sandbox: Sandbox, context: Optional[ssl.SSLContext] = None) -> Iterator[Proxy]:
    """A proxy for the length of the block."""
    made = Proxy(sandbox, context)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def silent() -> Iterator[int]:
    """A port where connections are accepted and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def standby(
    answer: bytes = b"",
    knocked: Callable[[int], object] = lambda number: None,
    context: Optional[ssl.SSLContext] = None,
) -> Iterator[str]:
    """The address of what is no controller: it answers always the same, or breaks off, and counts who has knocked."""

    def serve() -> None:
        number = 0
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            number += 1
            knocked(number)
            with context.wrap_socket(client, server_side=True) if context is not None else client as stream:
                if answer:
                    stream.recv(65536)
                    stream.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"linstor{'' if context is None else '+ssl'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def among(world: World, *uris: str) -> None:
    """These are the controllers for all actions."""
    environment = {**world.cloud.scripts.environment, "LS_CONTROLLERS": ",".join(uris)}
    world.cloud.scripts.environment = environment


def starting(world: World, at: int) -> Callable[[int], None]:
    """Who starts the controller, where it is stopped, when somebody has knocked in vain for the `at`th time."""

    def knocked(number: int) -> None:
        if number >= at:
            world.sandbox.start_controller()

    return knocked
