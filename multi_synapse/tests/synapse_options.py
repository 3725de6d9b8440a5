"""Which options Synapse reads: found in the source of its configuration classes, by following what is taken out of homeserver.yaml.

The source is parsed and never run, so any installed release can be looked at. Values are followed through variables, loops, `or` and the
functions of a module; where that ends, the name of the key alone is reported (`loose`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Path_ = tuple[str, ...]
ITEM = "[]"
_LOOKUPS = {"get", "pop", "setdefault"}
_DEEPEST = 5
#: Keys of these are not looked up in a configuration.
_OTHER_MAPPINGS = {"environ", "kwargs", "overrides", "logger", "_CACHES", "SERVLET_GROUPS"}


@dataclass
class Found:
    #: Options with their whole path, `[]` for an item of a list.
    paths: set[Path_] = field(default_factory=set)
    #: Keys that are read of something whose path is not known, with where.
    loose: dict[str, set[str]] = field(default_factory=dict)


def options_read_by(site_packages: Path) -> Found:
    """Of the Synapse below `site_packages`."""
    found = Found()
    folder = site_packages / "synapse" / "config"
    assert folder.is_dir(), f"there is no Synapse in {site_packages}"
    for file in sorted(folder.glob("*.py")):
        if file.name not in ("__main__.py", "_util.py"):
            _Module(file, found).read()
    return found


class _Module:
    def __init__(self, file: Path, found: Found) -> None:
        self.tree = ast.parse(file.read_text("utf-8"))
        self.name = file.stem
        self.found = found
        self.functions: dict[str, ast.FunctionDef] = {}
        self.constants: dict[str, ast.expr] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.constants[statement.targets[0].id] = statement.value
        self.done: set[tuple[str, tuple[tuple[str, Path_], ...]]] = set()

    def read(self) -> None:
        for function in list(self.functions.values()):
            if function.name == "read_config":
                names = [argument.arg for argument in function.args.args if argument.arg != "self"]
                _Function(self, function, {name: () for name in names[:1]}).run()
        for function in list(self.functions.values()):
            if not any(name == function.name for name, _ in self.done) and function.name != "read_config":
                _Function(self, function, {}).run()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "ParseModel" for base in node.bases):
                for statement in node.body:
                    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                        self.add_loose(statement.target.id, statement)
            if isinstance(node, ast.Dict):
                self._schema(node)

    def _schema(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "properties" and isinstance(value, ast.Dict):
                for option in value.keys:
                    if isinstance(option, ast.Constant):
                        self.add_loose(str(option.value), option)

    def add_loose(self, key: str, node: ast.AST) -> None:
        self.found.loose.setdefault(key, set()).add(f"{self.name}.py:{getattr(node, 'lineno', 0)}")

    def call(self, name: str, given: dict[str, Path_]) -> None:
        key = (name, tuple(sorted(given.items())))
        # A function that calls itself goes on forever otherwise: nothing in homeserver.yaml is deeper.
        deep = any(len(path) > _DEEPEST for path in given.values())
        if name in self.functions and key not in self.done and not deep:
            self.done.add(key)
            _Function(self, self.functions[name], given).run()


class _Function:
    """One function with what of its arguments is a part of the configuration."""

    def __init__(self, module: _Module, function: ast.FunctionDef, known: dict[str, Path_]) -> None:
        self.module, self.function, self.known = module, function, dict(known)
        self.attributes: dict[str, Path_] = {}

    def run(self) -> None:
        # Twice: a loop's variable may be used above where it is set.
        for _ in range(2):
            for node in self._nodes(self.function):
                self._follow(node)
        for node in self._nodes(self.function):
            self._look(node)

    def _nodes(self, node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            yield child
            yield from self._nodes(child)

    def _follow(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            path = self.path_of(node.value)
            for target in targets:
                if path is not None:
                    self._bind(target, path)
        elif isinstance(node, ast.For | ast.comprehension):
            self._follow_loop(node.target, node.iter)

    def _follow_loop(self, target: ast.expr, source: ast.expr) -> None:
        if isinstance(source, ast.Call) and isinstance(source.func, ast.Name) and source.func.id in ("enumerate", "sorted", "list"):
            inner = source.args[0]
            if source.func.id == "enumerate" and isinstance(target, ast.Tuple):
                target = target.elts[1]
            self._follow_loop(target, inner)
            return
        if isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute) and source.func.attr == "items":
            path = self.path_of(source.func.value)
            if path is not None and isinstance(target, ast.Tuple):
                self._bind(target.elts[1], (*path, "*"))
            return
        path = self.path_of(source)
        if path is not None:
            self._bind(target, (*path, ITEM))

    def _bind(self, target: ast.expr, path: Path_) -> None:
        if isinstance(target, ast.Name):
            self.known[target.id] = path

    def path_of(self, node: ast.expr) -> Path_ | None:
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.BoolOp):
            return next((path for value in node.values if (path := self.path_of(value)) is not None), None)
        if isinstance(node, ast.IfExp):
            return self.path_of(node.body) or self.path_of(node.orelse)
        key = self._key(node)
        if key is None:
            return None
        owner, name = key
        path = self.path_of(owner)
        return None if path is None else (*path, name)

    def _key(self, node: ast.AST) -> tuple[ast.expr, str] | None:
        """`owner.get("name")` and `owner["name"]`."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOOKUPS and node.args:
            return (node.func.value, name) if (name := self._text(node.args[0])) is not None else None
        if isinstance(node, ast.Subscript):
            return (node.value, name) if (name := self._text(node.slice)) is not None else None
        if not (isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn)):
            return None
        owner, name = node.comparators[0], self._text(node.left)
        return (owner, name) if isinstance(owner, ast.Name | ast.Attribute) and name is not None else None

    def _text(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name) and node.id in self.module.constants:
            node = self.module.constants[node.id]
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

    def _look(self, node: ast.AST) -> None:
        key = self._key(node)
        if key is not None:
            owner, name = key
            path = self.path_of(owner)
            if path is not None:
                self.module.found.paths.add((*path, name))
            elif ast.unparse(owner).split(".")[-1] not in _OTHER_MAPPINGS:
                self.module.add_loose(name, node)
        if isinstance(node, ast.Call):
            self._call(node)

    def _add(self, path: Path_, text: str) -> None:
        # Not the texts of messages, nor content types.
        if re.fullmatch(r"[a-z0-9_.]+", text):
            self.module.found.paths.add((*path, *text.split(".")))

    def _call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        function = self.module.functions.get(name)
        if function is None:
            # A helper of another module that takes a mapping and the names of keys in it.
            texts = [text for argument in node.args if (text := self._text(argument)) is not None]
            paths = [path for argument in node.args if (path := self.path_of(argument)) is not None]
            if name in ("parse_config_file", "load_module", "path_exists", "ConfigError", "read_file", "check_requirements"):
                return
            for path in paths:
                if name not in _LOOKUPS:
                    for text in texts:
                        self._add(path, text)
            return
        if name == "parse":
            # `RatelimitSettings.parse(config, "rc_login.address")`.
            for text in [text for argument in node.args if (text := self._text(argument)) is not None]:
                self._add((), text)
        names = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
        given = {}
        for argument, value in [*zip(names, node.args, strict=False), *((k.arg, k.value) for k in node.keywords if k.arg)]:
            path = self.path_of(value)
            if path is not None:
                given[argument] = path
        if given:
            self.module.call(name, given)
