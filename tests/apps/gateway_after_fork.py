"""The real gateway, with a report of what a worker has inherited from before the fork, for tests.

Imported by Gunicorn's main process (--preload). It leaves behind what an import may leave behind: a connection in
the pool and a Redis client. Each worker writes REPORT_DIR/PID.json when its startup is complete.
"""

import gc
import json
import os
from pathlib import Path

import redis.asyncio
from mcpgateway.admin import gateway_service
from mcpgateway.db import engine
from mcpgateway.main import app as gateway
from mcpgateway.services import logging_service, session_affinity
from mcpgateway.utils import redis_client

MAIN_PID = os.getpid()
MAIN_POOL = engine.pool
with engine.connect():
    pass
# Nothing listens there, and there is no connection until the first command.
MAIN_REDIS = redis_client._client = redis.asyncio.from_url("redis://127.0.0.1:1")
redis_client._initialized = True


async def app(scope, receive, send):
    """The gateway."""
    if scope["type"] != "lifespan":
        await gateway(scope, receive, send)
        return

    async def reporting(message):
        if message["type"] == "lifespan.startup.complete":
            write_report()
        await send(message)

    await gateway(scope, receive, reporting)


def write_report():
    """Writes the file in one step, so that readers always see all of it."""
    directory = Path(os.environ["REPORT_DIR"])
    partial = directory / f"{os.getpid()}.partial"
    partial.write_text(json.dumps(report()))
    partial.rename(directory / f"{os.getpid()}.json")


def report():
    """What the worker shares with the main process, and its names."""
    return {
        "main_pid": MAIN_PID,
        "shares_pool": engine.pool is MAIN_POOL,
        "shares_redis": redis_client.get_redis_client_sync() is MAIN_REDIS,
        "worker_id": session_affinity.WORKER_ID,
        "instance_id": gateway_service._instance_id,
        "logged_pid": logging_service._CACHED_PID,
        "span_writer_alive": span_writer_alive(),
        "frozen": gc.get_freeze_count(),
    }


def span_writer_alive():
    """Whether the span writer's thread runs in this process."""
    from mcpgateway.instrumentation import sqlalchemy

    return sqlalchemy._span_writer_thread.is_alive()
