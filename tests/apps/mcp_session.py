"""A session of the real MCP client: `mcp_session.py sse|http URL TOKEN REQUESTS`.

It sends its requests one after the other, and then as many again in parallel; prints how many were answered.
"""

import asyncio
import sys

from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client

CLIENTS = {"sse": sse_client, "http": streamablehttp_client}
PATIENCE = 40


async def main(kind, url, token, requests):
    """One session."""
    answered = 0
    async with CLIENTS[kind](url, headers={"Authorization": f"Bearer {token}"}) as streams:
        async with ClientSession(*streams[:2]) as session:
            await asyncio.wait_for(session.initialize(), PATIENCE)
            for _ in range(int(requests)):
                await asyncio.wait_for(session.list_tools(), PATIENCE)
                answered += 1
            pings = (session.send_ping() for _ in range(int(requests)))
            answered += len(await asyncio.wait_for(asyncio.gather(*pings), PATIENCE))
            print(answered, flush=True)


asyncio.run(main(*sys.argv[1:]))
