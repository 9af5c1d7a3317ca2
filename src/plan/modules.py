"""Imports the launcher's modules in the server: from an archive in memory, through an entry of the import path.

The entry is removed as soon as the first of them is imported. Neither the app nor the processes that it starts may see
it, and it may become invalid later: a worker that changes its user can no longer open descriptors through /proc. So the
modules that have not been imported yet are read now, and kept here.
"""

import importlib.machinery
import os
import sys


class _Waiting:
    """Finds and loads modules whose text was read ahead."""

    def __init__(self, texts):
        self.texts = texts

    def find_spec(self, name, path=None, target=None):
        if name in self.texts:
            return importlib.machinery.ModuleSpec(name, self, origin=name + ".py")
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        if all(other == name or other in sys.modules for other in self.texts) and self in sys.meta_path:
            sys.meta_path.remove(self)
        exec(compile(self.texts[name], name + ".py", "exec"), module.__dict__)

    def get_source(self, name):
        """For tracebacks."""
        return self.texts.get(name)


def _read_ahead(archive, names):
    texts = {}
    for name in names:
        if name not in sys.modules:
            try:
                texts[name] = archive.get_source(name)
            except ImportError:
                continue
    if texts:
        sys.meta_path.insert(0, _Waiting(texts))


def _leave_no_trace(entry):
    first, _, rest = os.environ.get("PYTHONPATH", "").partition(os.pathsep)
    if first and os.path.abspath(first) == entry:
        if rest:
            os.environ["PYTHONPATH"] = rest
        else:
            del os.environ["PYTHONPATH"]
    sys.path[:] = [other for other in sys.path if other != entry]
    sys.path_importer_cache.pop(entry, None)


def _settle(names):
    _read_ahead(__loader__, names)
    _leave_no_trace(os.path.dirname(__file__))


