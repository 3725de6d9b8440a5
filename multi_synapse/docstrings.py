"""Functions without their docstrings: 3 MiB of each shard, which are not read where it runs.

Python's own way (`-OO`) would leave out assertions, too. Here a module's code is changed between its file and its execution; the
file stays as it is, and so does everything else: docstrings of classes and modules, of which some are read (Twisted's errors say
theirs), and whatever a function loads.
"""

from __future__ import annotations

import dis
import inspect
import types
from importlib.machinery import SourceFileLoader

#: Since Python 3.14 a function says so if it has one; before, the first constant of a function is its docstring or None.
_HAS_DOCSTRING = getattr(inspect, "CO_HAS_DOCSTRING", 0)
_FUNCTION = inspect.CO_OPTIMIZED | inspect.CO_NEWLOCALS
#: Code that loads the first constant. The like of it in an inline cache is taken for that, too.
_LOADS_FIRST = tuple(bytes((operation, 0)) for operation in dis.hasconst if operation < 256)
#: Packages that are neither Synapse's nor known to be imported for it keep theirs: a tenant's module may read its own.
_PACKAGES = frozenset(
    [
        "attr",
        "automat",
        "bleach",
        "cryptography",
        "hyperlink",
        "idna",
        "jinja2",
        "jsonschema",
        "multi_synapse",
        "nacl",
        "netaddr",
        "OpenSSL",
        "packaging",
        "phonenumbers",
        "PIL",
        "prometheus_client",
        "psycopg2",
        "pydantic",
        "pymacaroons",
        "referencing",
        "service_identity",
        "signedjson",
        "sortedcontainers",
        "synapse",
        "treq",
        "twisted",
        "zope",
    ]
)


def leave_out() -> None:
    """For modules that are imported from now on."""
    original = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> types.CodeType | None:
        code = original(self, fullname)
        return without(code) if code is not None and fullname.partition(".")[0] in _PACKAGES else code

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


def without(code: types.CodeType) -> types.CodeType:
    """The code without the docstrings of the functions in it."""
    constants = tuple(without(value) if isinstance(value, types.CodeType) else value for value in code.co_consts)
    flags = code.co_flags
    if _has_docstring(code):
        constants = (None, *constants[1:])
        flags &= ~_HAS_DOCSTRING
    if all(new is old for new, old in zip(constants, code.co_consts, strict=True)):
        return code
    return code.replace(co_consts=constants, co_flags=flags)


def _has_docstring(code: types.CodeType) -> bool:
    if code.co_flags & _FUNCTION != _FUNCTION or not code.co_consts or not isinstance(code.co_consts[0], str):
        return False
    # Lambdas, comprehensions and scopes of type parameters have no docstring, and any first constant.
    if (_HAS_DOCSTRING and not code.co_flags & _HAS_DOCSTRING) or code.co_name.startswith("<"):
        return False
    return not any(load in code.co_code for load in _LOADS_FIRST)
