

def _serve_tls(settings, oldest):
    """Makes every worker serve with one TLS context, created in the main process from what Gunicorn has resolved.

    Workers are forks of it: none opens a file again, so one that has changed its user need not, and a session that
    began with one can be resumed with another. The class decides how it gets the context: Gunicorn's own classes call
    the hook; uvicorn's create one themselves, without the oldest version, and get this one instead.
    """
    import os
    import pkgutil
    import ssl
    import sys

    user = {name: settings.get(name) for name in ("on_starting", "post_worker_init", "ssl_context")}
    for name, hook in user.items():
        if isinstance(hook, str):
            # Gunicorn takes the name of a function, too.
            user[name] = pkgutil.resolve_name(hook)
    shared = []

    def class_for(worker_class):
        """A context makes sockets of its own kind, and greenlets need theirs. Gunicorn patches `ssl` for them only in the
        workers."""
        if any(kind.__module__ == "gunicorn.workers.ggevent" for kind in worker_class.__mro__):
            from gevent.ssl import SSLContext

            return SSLContext
        return ssl.SSLContext

    def make(conf):
        context = class_for(conf.worker_class)(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(conf.certfile, conf.keyfile)
        context.verify_mode = ssl.VerifyMode(conf.cert_reqs)
        if conf.ca_certs:
            context.load_verify_locations(conf.ca_certs)
        if conf.ciphers:
            context.set_ciphers(conf.ciphers)
        return context

    def restrict(context):
        context.minimum_version = max(context.minimum_version, ssl.TLSVersion[oldest])
        return context

    def on_starting(server):
        conf = server.cfg
        try:
            for path in {conf.certfile, conf.keyfile, conf.ca_certs}:
                if path and path.startswith("/proc/self/fd/"):
                    # Programs that the app executes must not get the key.
                    os.set_inheritable(int(path.rsplit("/", 1)[1]), False)
            context = user["ssl_context"](conf, lambda: make(conf)) if user["ssl_context"] else make(conf)
            protocols = getattr(conf, "http_protocols", None) or ()
            if "h2" in protocols:
                names = {"h1": "http/1.1", "h2": "h2"}
                context.set_alpn_protocols([names[protocol] for protocol in protocols if protocol in names])
            shared.append(restrict(context))
        except (OSError, ValueError) as error:
            print("TLS cannot be set up: %s" % error, file=sys.stderr, flush=True)
            sys.exit(3)
        if user["on_starting"]:
            user["on_starting"](server)

    def ssl_context(conf, default):
        # Some classes call this for each connection, and if it raises, one of them serves without TLS.
        return shared[0]

    def give_to_uvicorn(config):
        load = config.load

        def load_with_context():
            files = config.ssl_certfile, config.ssl_keyfile
            config.ssl_certfile = config.ssl_keyfile = None
            try:
                load()
            finally:
                config.ssl_certfile, config.ssl_keyfile = files
            if config.ssl is None:
                config.ssl = shared[0]
                protocols = getattr(config.http_protocol_class, "alpn_protocols", None)
                if protocols:
                    config.ssl.set_alpn_protocols(protocols)
            else:  # a subclass has its own factory
                restrict(config.ssl)

        config.load = load_with_context

    def post_worker_init(worker):
        config = getattr(worker, "config", None)
        if hasattr(config, "ssl_certfile") and hasattr(config, "load"):
            give_to_uvicorn(config)
        elif not type(worker).__module__.startswith("gunicorn."):
            name = type(worker).__qualname__
            worker.log.warning("worker class %s is not known here: the oldest TLS version may be its own choice", name)
        if user["post_worker_init"]:
            user["post_worker_init"](worker)

    settings.update(on_starting=on_starting, post_worker_init=post_worker_init, ssl_context=ssl_context)


