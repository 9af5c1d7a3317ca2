"""Gunicorn configuration for the MCP Gateway (mcpgateway.main:app).

mcp-launch uses this file if the application is the gateway and you have no configuration file of your own. It sets
no options, because workers, timeouts and so on are settings of mcp-launch. It only adds hooks.

With ``--preload`` the gateway is imported once, in Gunicorn's main process, and the workers are forks of it. They
share whatever the import created, which is right for code but wrong for

* open connections (the SQLAlchemy pool, the Redis client), because two processes writing to one socket corrupt it,
* names that must be unique per worker (session affinity, leader election, claims on a registered server), because
  two workers with the same name would each believe that they own what the other one has claimed,
* threads, because a fork only contains the thread that forked,
* process ids that are cached for the log.

``post_fork`` renews these before the application starts in the worker. A part of the gateway that is not loaded is
left alone, so without ``--preload`` this file does nothing. A part that looks different in another version of the
gateway is left alone too, with a warning if renewing it failed.

``when_ready`` keeps shared what should be: see there.

The file may be run from memory, so nothing here depends on its path.
"""

import gc
import os
import queue
import sys
import threading
import uuid


def when_ready(server):
    """Excludes what is loaded by now from garbage collection. Gunicorn calls it before it forks the workers. A collection
    writes to each object that it looks at, so that each worker would soon have its own copy of nearly all of the gateway."""
    if server.cfg.preload_app and "mcpgateway" in sys.modules:
        gc.collect()
        gc.freeze()


def post_fork(server, worker):
    """Renews what a new worker must not share with the others. Gunicorn calls it right after the fork."""
    renewed = []
    for what, renew in RENEWALS:
        try:
            if renew(worker.ppid):
                renewed.append(what)
        except Exception as error:  # better a worker with one shared part than no worker
            server.log.warning("after the fork, the gateway's %s could not be renewed: %r", what, error)
    if renewed:
        server.log.info("after the fork, renewed in worker %s: %s", os.getpid(), ", ".join(renewed))


def database_pool(_main_pid):
    """Replaces the inherited pool with an empty one. Its connections stay open: they belong to the main process."""
    engine = attribute("mcpgateway.db", "engine")
    if engine is None:
        return False
    engine.dispose(close=False)
    return True


def redis_client(_main_pid):
    """Drops the shared client without closing it; the gateway creates a new one when it starts in the worker."""
    module = sys.modules.get("mcpgateway.utils.redis_client")
    if module is None or not hasattr(module, "_client"):
        return False
    module._client = None
    module._initialized = False
    return True


def worker_ids(main_pid):
    """Names such as ``host:pid`` that own sessions and locks."""
    renewed = False
    for name in ("mcpgateway.services.session_affinity", "mcpgateway.routers.llmchat_router"):
        inherited = attribute(name, "WORKER_ID")
        if isinstance(inherited, str):
            parts = [str(os.getpid()) if part == str(main_pid) else part for part in inherited.split(":")]
            sys.modules[name].WORKER_ID = ":".join(parts)
            renewed = True
    return renewed


def instance_ids(_main_pid):
    """Random names that identify a process as the leader, or as the owner of a claim in the database."""
    renewed = False
    for owner in gateway_services():
        if is_uuid(getattr(owner, "_instance_id", None)):
            owner._instance_id = str(uuid.uuid4())
            renewed = True
    # If HOSTNAME is set, the id is the host's name, which the workers share by design of the gateway.
    state = attribute("mcpgateway.runtime_state", "_runtime_state")
    if state is not None and is_uuid(getattr(state, "_pod_id", None)):
        state._pod_id = uuid.uuid4().hex
        renewed = True
    return renewed


def span_writer(_main_pid):
    """The thread that writes database spans (OBSERVABILITY_ENABLED), with a queue that no lost thread can hold locked."""
    module = sys.modules.get("mcpgateway.instrumentation.sqlalchemy")
    inherited = getattr(module, "_span_writer_thread", None)
    if inherited is None or inherited.is_alive():
        return False
    module._span_queue = queue.Queue(maxsize=module._span_queue.maxsize)
    module._shutdown_event = threading.Event()
    module._span_writer_thread = threading.Thread(
        target=module._span_writer_worker, name=inherited.name, daemon=True
    )
    module._span_writer_thread.start()
    return True


def logged_pid(main_pid):
    """The process id in structured log lines."""
    renewed = False
    for name in ("mcpgateway.services.logging_service", "mcpgateway.services.structured_logger"):
        if attribute(name, "_CACHED_PID") == main_pid:
            sys.modules[name]._CACHED_PID = os.getpid()
            renewed = True
    return renewed


RENEWALS = (
    ("database pool", database_pool),
    ("Redis client", redis_client),
    ("worker ids", worker_ids),
    ("instance ids", instance_ids),
    ("span writer", span_writer),
    ("logged process id", logged_pid),
)


def attribute(module, name):
    """A module's attribute, or None. Never imports the module."""
    return getattr(sys.modules.get(module), name, None)


def gateway_services():
    """All services reachable from the gateway's modules, each once."""
    found = {}
    waiting = [
        value
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "mcpgateway" and module is not None
        for value in list(vars(module).values())
    ]
    while waiting:
        value = waiting.pop()
        # type(), not __class__: some are proxies that would load their target when asked for it.
        kind = type(value)
        if kind.__module__.startswith("mcpgateway.services.") and id(value) not in found:
            found[id(value)] = value
            waiting.extend(getattr(value, "__dict__", {}).values())
    return list(found.values())


def is_uuid(value):
    """Whether the value is a UUID as text."""
    try:
        return isinstance(value, str) and uuid.UUID(value) is not None
    except ValueError:
        return False
