"""The socket that the API listens at."""

from __future__ import annotations

import asyncio
import socket

from storenode.api.server import bound
from storenode.core.api_address import Address
from testbed.broker import free_port


def test_small_answers_are_sent_at_once() -> None:
    """
    A listener made as (AF_INET, SOCK_STREAM, 0) gives connections that do not call themselves TCP, and asyncio sets
    TCP_NODELAY only on those that do: every answer then waited 40 ms for the client's acknowledgement.
    """

    async def nodelay(listener: socket.socket, port: int) -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accepted, sock=listener):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            answer = await found
            writer.close()
            return answer

    port = free_port()
    with bound(Address("127.0.0.1", port)) as listener:
        assert asyncio.run(nodelay(listener, port)) == 1
