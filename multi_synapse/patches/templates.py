"""Jinja in a sandbox: templates are texts of tenants, and a text must not run code, read a file, or keep the process busy.

Jinja's own sandbox keeps a template from Python's internals, but not from loops in loops, texts that double, or a macro that calls itself.
So each rendering has a budget of steps and a bound on what a value may grow to.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup
from synapse.config import _base as config_base
from synapse.handlers import oidc
from synapse.rest.consent import consent_resource
from synapse.util import templates as template_utilities

from .process import replace

#: Turns of loops, calls and inclusions of one rendering; Synapse's own templates take some hundreds.
_MOST_STEPS = 20_000
#: Of one value while a template computes with it, and of a page.
_LONGEST_VALUE = 256 * 1024
_LONGEST_PAGE = 4 * 1024 * 1024
_LARGEST_NUMBER = 2**64
_MOST_ITEMS = 1000

_FILTERS = (
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "int",
    "last",
    "length",
    "lower",
    "round",
    "safe",
    "string",
    "title",
    "tojson",
    "trim",
    "truncate",
    "upper",
    "urlencode",
)
_TEXT_METHODS = frozenset(
    {"capitalize", "endswith", "isalnum", "isalpha", "isdigit", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace"}
    | {"rpartition", "rstrip", "split", "startswith", "strip", "title", "upper"}
)
_MAPPING_METHODS = frozenset({"get", "items", "keys", "values"})
_TEXT = (str, Markup)
_WIDE = re.compile(r"%[^a-zA-Z%]*(\d{3}|\*)")


class TemplateRefused(jinja2.TemplateError):
    """A template does what a tenant's may not."""


class _Budget(threading.local):
    left: int | None = None


_budget = _Budget()


def spend(steps: int = 1) -> None:
    if _budget.left is None:
        return
    _budget.left -= steps
    if _budget.left < 0:
        raise TemplateRefused(f"the template takes more than {_MOST_STEPS} steps")


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        spend()
        yield item


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_VALUE:
        raise TemplateRefused(f"a text of the template is longer than {_LONGEST_VALUE} characters")
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > _LARGEST_NUMBER:
        raise TemplateRefused("a number of the template is too large")
    if isinstance(value, list | tuple) and len(value) > _MOST_ITEMS:
        raise TemplateRefused(f"a list of the template has more than {_MOST_ITEMS} items")
    return value


def _bounded_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*args: Any, **kwargs: Any) -> Any:
        spend()
        for value in args:
            _bounded(value)
        return _bounded(function(*args, **kwargs))

    # What Jinja passes in front: the environment, or the context.
    bounded.__dict__.update(getattr(function, "__dict__", {}))
    return bounded


def _join(items: Iterable[Any], separator: str = "") -> str:
    parts: list[str] = []
    size = 0
    for item in _counted(items):
        parts.append(str(_printable(item)))
        size += len(parts[-1]) + len(separator)
        if size > _LONGEST_VALUE:
            raise TemplateRefused(f"a text of the template is longer than {_LONGEST_VALUE} characters")
    return str(separator).join(parts)


def _replace(text: Any, old: str, new: str) -> str:
    spend()
    whole = str(_printable(text))
    if len(whole) + whole.count(str(old)) * len(str(new)) > _LONGEST_VALUE:
        raise TemplateRefused(f"a text of the template is longer than {_LONGEST_VALUE} characters")
    return whole.replace(str(old), str(new))


def _concat(*values: Any) -> Any:
    spend()
    texts = [value if isinstance(value, _TEXT) else str(_printable(value)) for value in values]
    if sum(map(len, texts)) > _LONGEST_VALUE:
        raise TemplateRefused(f"a text of the template is longer than {_LONGEST_VALUE} characters")
    return Markup("").join(texts) if any(isinstance(text, Markup) for text in texts) else "".join(texts)


def _printable(value: Any) -> Any:
    """Not of a list: its items may be lists of the same lists, and its text without end."""
    if isinstance(value, list | tuple | dict | set | frozenset):
        raise TemplateRefused("a list or mapping is no text")
    return value


def _format(text: str, *values: Any) -> str:
    """`%`, whose widths and precisions would make a text of any length."""
    spend()
    if _WIDE.search(text):
        raise TemplateRefused("a width in a format has more than two digits")
    whole: str = _bounded(text % tuple(_printable(_bounded(value)) for value in values))
    return whole


def _range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > _MOST_ITEMS:
        raise TemplateRefused(f"a range of the template has more than {_MOST_ITEMS} items")
    return numbers


class _Template(jinja2.Template):
    """A template each of whose renderings has a budget."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        if _budget.left is not None:
            return super().render(*args, **kwargs)
        _budget.left = _MOST_STEPS
        try:
            page = super().render(*args, **kwargs)
        finally:
            _budget.left = None
        if len(page) > _LONGEST_PAGE:
            raise TemplateRefused(f"the page of the template is longer than {_LONGEST_PAGE} characters")
        return page


class Sandbox(ImmutableSandboxedEnvironment):
    """What Synapse makes its templates in."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    template_class = _Template

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        finalize = kwargs.pop("finalize", None)
        super().__init__(*args, finalize=_finalizer(finalize), **kwargs)
        known = self.filters
        self.filters = {name: _bounded_filter(known[name]) for name in _FILTERS}
        self.filters |= {"join": _join, "replace": _replace, "format": _format, " counted": _counted, " concat": _concat}
        self.globals = {"range": _range}

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> Any:
        return super()._generate(_guarded(source), *args, **kwargs)

    def _load_template(self, *args: Any, **kwargs: Any) -> jinja2.Template:
        # An inclusion is loaded each time that it is rendered.
        spend(10)
        return super()._load_template(*args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str | bytes):
            return attr in _TEXT_METHODS
        if isinstance(obj, dict):
            return attr in _MAPPING_METHODS or not callable(value)
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, list | tuple | int | float) and callable(value))

    def is_safe_callable(self, obj: Any) -> bool:
        owner = getattr(obj, "__self__", None)
        return obj is _range or isinstance(owner, str | dict)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        spend()
        if isinstance(getattr(obj, "__self__", None), str) and obj.__name__ == "replace":
            return _replace(obj.__self__, *args[:2])
        return _bounded(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        spend()
        if operator == "%" and isinstance(left, str):
            return _format(left, *(right if isinstance(right, tuple) else (right,)))
        numbers = all(isinstance(value, int | float) for value in (left, right))
        if not numbers and operator != "+":
            raise TemplateRefused(f"the operator {operator} is for numbers")
        if operator == "**" and abs(right) > 64:
            raise TemplateRefused("a number of the template is too large")
        for value in (left, right):
            _bounded(value)
        return _bounded(super().call_binop(context, operator, left, right))


def _finalizer(given: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    def finalize(value: Any) -> Any:
        return _printable(value if given is None else given(value))

    return finalize


def _guarded(template: nodes.Template) -> nodes.Template:
    """The template with its loops and joined texts counted. @raises TemplateRefused for what has no bound"""
    for unbounded in (nodes.Macro, nodes.CallBlock, nodes.Import, nodes.FromImport):
        for node in template.find_all(unbounded):
            raise TemplateRefused(f"line {node.lineno}: macros and imports have no place in a template here")
    assigned = {name.name for name in template.find_all(nodes.Name) if name.ctx == "store"}
    for literal in template.find_all((nodes.List, nodes.Tuple, nodes.Dict)):
        if getattr(literal, "ctx", "load") == "load" and any(name.name in assigned for name in literal.find_all(nodes.Name)):
            # Lists of lists double with each line.
            raise TemplateRefused(f"line {literal.lineno}: a list or mapping may not hold a variable of the template")
    for loop in list(template.find_all(nodes.For)):
        if loop.recursive:
            raise TemplateRefused(f"line {loop.lineno}: a recursive loop has no place in a template here")
        loop.iter = nodes.Filter(loop.iter, " counted", [], [], None, None, lineno=loop.lineno)
    _replace_concatenations(template)
    for made in template.find_all(nodes.Filter):
        made.environment = template.environment
    return template


def _replace_concatenations(node: nodes.Node) -> None:
    for name, value in list(node.iter_fields()):
        if isinstance(value, nodes.Node):
            _replace_concatenations(value)
            setattr(node, name, _without_concat(value))
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, nodes.Node):
                    _replace_concatenations(item)
            setattr(node, name, [_without_concat(item) for item in value])


def _without_concat(node: Any) -> Any:
    if not isinstance(node, nodes.Concat):
        return node
    first, *rest = node.nodes
    return nodes.Filter(first, " concat", rest, [], None, None, lineno=node.lineno)


def use_sandbox() -> None:
    stand_in = _JinjaWithSandbox()
    for module in (config_base, template_utilities, consent_resource):
        replace(module, "jinja2", stand_in)
    replace(oidc, "Environment", Sandbox)
    known = jinja2.filters.FILTERS
    mapping = Sandbox(finalize=oidc.jinja_finalize)
    mapping.filters.update({name: value for name, value in oidc.env.filters.items() if name not in known})
    replace(oidc, "env", mapping)


class _JinjaWithSandbox:
    """The module `jinja2`, in which environments are sandboxes."""

    Environment = Sandbox

    def __getattr__(self, name: str) -> Any:
        return getattr(jinja2, name)
