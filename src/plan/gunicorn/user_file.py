

def _settings_of(location):
    """Runs a configuration file or imports a module, in the way and under the name that Gunicorn does."""
    import importlib
    import importlib.machinery
    import importlib.util
    import os
    import sys
    import traceback

    if location.startswith("python:"):
        found = vars(importlib.import_module(location[len("python:"):]))
    else:
        path = location[len("file:"):] if location.startswith("file:") else location
        if not os.path.exists(path):
            raise RuntimeError("%r doesn't exist" % path)
        loader = None if path.endswith((".py", ".pyc")) else importlib.machinery.SourceFileLoader("__config__", path)
        spec = importlib.util.spec_from_file_location("__config__", path, loader=loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules["__config__"] = module
        try:
            spec.loader.exec_module(module)
        except Exception:
            print("Failed to read config file: %s" % path, file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            sys.exit(1)
        found = vars(module)
    return {name: value for name, value in found.items() if not name.startswith("__")}


