"""Gunicorn configuration for the MCP Gateway (mcpgateway.main:app).

mcp-launch uses it when the application is the gateway and there is no configuration file of yours. It sets no
option: workers, timeouts and the rest are settings of mcp-launch. It only adds a hook.

With ``--preload`` the gateway is imported once, in Gunicorn's main process, and the workers are forks of it. What
the import made is then the same in every worker, which is right for code and wrong for

* open connections (the SQLAlchemy pool, the Redis client): two processes that write to one socket corrupt it,
* names that must tell workers apart (session affinity, leader election, claims on a registered server): two
  workers of one name each believe that they hold what the other one took,
* threads: a fork has only the thread that forked, so what the others did is no longer done,
* process ids that were remembered for the log.

``post_fork`` renews these before the application starts in the worker. A part of the gateway that is not loaded
is left alone: without ``--preload``, nothing is, and this file does nothing. A part that looks different in another
version of the gateway is left alone too, with a warning if renewing it failed.

It may be run from memory: nothing here depends on where the file is.
"""

import os
import queue
import sys
import threading
import uuid


def post_fork(server, worker):
    """Renews in a new worker what it must not share with the others. Gunicorn calls it right after the fork."""
    renewed = []
    for what, renew in RENEWALS:
        try:
            if renew(worker.ppid):
                renewed.append(what)
        except Exception as error:  # a worker that serves with one part shared is better than none
            server.log.warning("after the fork, the gateway's %s could not be renewed: %r", what, error)
    if renewed:
        server.log.info("after the fork, renewed in worker %s: %s", os.getpid(), ", ".join(renewed))


def database_pool(_main_pid):
    """An empty pool in place of the inherited one, whose connections stay open: they are the main process's."""
    engine = attribute("mcpgateway.db", "engine")
    if engine is None:
        return False
    engine.dispose(close=False)
    return True


def redis_client(_main_pid):
    """Forgets the shared client, unclosed; the gateway makes another one when it starts in the worker."""
    module = sys.modules.get("mcpgateway.utils.redis_client")
    if module is None or not hasattr(module, "_client"):
        return False
    module._client = None
    module._initialized = False
    return True


def worker_ids(main_pid):
    """Names such as ``host:pid``, by which sessions and locks are owned."""
    renewed = False
    for name in ("mcpgateway.services.session_affinity", "mcpgateway.routers.llmchat_router"):
        inherited = attribute(name, "WORKER_ID")
        if isinstance(inherited, str):
            parts = [str(os.getpid()) if part == str(main_pid) else part for part in inherited.split(":")]
            sys.modules[name].WORKER_ID = ":".join(parts)
            renewed = True
    return renewed


def instance_ids(_main_pid):
    """Random names, by which a process knows that it is the leader or that a claim in the database is its own."""
    renewed = False
    for owner in gateway_services():
        if is_uuid(getattr(owner, "_instance_id", None)):
            owner._instance_id = str(uuid.uuid4())
            renewed = True
    # Named after the host where HOSTNAME is set: then the workers share it by the gateway's own design.
    state = attribute("mcpgateway.runtime_state", "_runtime_state")
    if state is not None and is_uuid(getattr(state, "_pod_id", None)):
        state._pod_id = uuid.uuid4().hex
        renewed = True
    return renewed


def span_writer(_main_pid):
    """The thread that writes database spans (OBSERVABILITY_ENABLED), with a queue that no lost thread has locked."""
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
    """The services that the gateway's modules hold, and those that these hold in turn, each once."""
    found = {}
    waiting = [
        value
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "mcpgateway" and module is not None
        for value in list(vars(module).values())
    ]
    while waiting:
        value = waiting.pop()
        # By its type, not by its class: some are proxies, which load what they stand for when asked.
        kind = type(value)
        if kind.__module__.startswith("mcpgateway.services.") and id(value) not in found:
            found[id(value)] = value
            waiting.extend(getattr(value, "__dict__", {}).values())
    return list(found.values())


def is_uuid(value):
    """Whether it is the text of a UUID."""
    try:
        return isinstance(value, str) and uuid.UUID(value) is not None
    except ValueError:
        return False
