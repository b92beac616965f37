"""A TCP line to a broker that can be cut: what lies between a store and headquarters."""

from __future__ import annotations

import contextlib
import socket
import threading


class Line:
    """A TCP line from `port` to a broker: `cut` breaks it, `freeze` lets nothing through but keeps it open."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.bytes_down = 0
        self._open = True
        self._thaw = threading.Event()
        self._thaw.set()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, lose what is frozen, and refuse new ones until `heal`."""
        with self._lock:
            self._open = False
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self._thaw.set()

    def freeze(self) -> None:
        """Swallow nothing, pass nothing on: what a dead router looks like from both ends."""
        self._thaw.clear()

    def heal(self) -> None:
        with self._lock:
            self._open = True
        self._thaw.set()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._broker_port), 2.0)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                if not self._open:
                    near.close()
                    far.close()
                    continue
                self._pairs.append((near, far))
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        try:
            while chunk := source.recv(65_536):
                self._thaw.wait()
                sink.sendall(chunk)
                self.bytes_down += len(chunk) if down else 0
        except OSError:
            pass
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
