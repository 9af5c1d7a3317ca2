# What Gunicorn's hooks see instead of the app: `worker.app.callable`, `worker.wsgi`.


# Special methods that are not passed on to the app: those for construction, attribute access, and descriptors.
_OWN = frozenset(
    "__new__ __init__ __init_subclass__ __subclasshook__ __class__ __class_getitem__ __dict__ __slots__ __weakref__"
    " __del__ __getattribute__ __getattr__ __setattr__ __delattr__ __dir__ __call__ __get__ __set__ __delete__"
    " __set_name__ __reduce__ __reduce_ex__ __getstate__ __setstate__ __getnewargs__ __getnewargs_ex__ __copy__"
    " __deepcopy__".split()
)


def _stand_in(guarded, app):
    """The guarded app, which looks like the app itself: attributes, operators and class are the app's.

    Only a call is ours. It is found in the class, so that none of this is in its way.
    """
    import copy
    import inspect

    # Servers find out from the class how to call it; a function's class would be wrong for an object that is called.
    has_class_of_app = not (inspect.isroutine(app) or inspect.isclass(app))

    class StandIn:
        __slots__ = ("__weakref__",)
        __call__ = staticmethod(guarded)

        def __getattribute__(self, name):
            if name == "__call__":
                return guarded
            if name == "__class__" and not has_class_of_app:
                return StandIn
            if name in ("__reduce__", "__reduce_ex__"):
                return object.__getattribute__(self, name)
            return getattr(app, name)

        def __setattr__(self, name, value):
            setattr(app, name, value)

        def __delattr__(self, name):
            delattr(app, name)

        def __dir__(self):
            return dir(app)

        def __reduce_ex__(self, protocol):
            # Copying and pickling yield the app.
            return copy.copy, (app,)

    def passed_on(name):
        return lambda self, *rest, **named: getattr(type(app), name)(app, *rest, **named)

    for name in set(dir(type(app))) - _OWN if has_class_of_app else ():
        method = getattr(type(app), name, None)
        if name.startswith("__") and name.endswith("__") and (callable(method) or name == "__hash__"):
            setattr(StandIn, name, passed_on(name) if callable(method) else method)
    return StandIn()
