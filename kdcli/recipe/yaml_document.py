"""YAML as plain data that knows where each value was written, and the overrides that flags put into it."""

from __future__ import annotations

import copy
import json
import re
import shlex
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import yaml

from kdcli.errors import Problem, RequestError
from kdcli.recipe.catalogue import refuse_too_long

Key = str | int
KeyPath = tuple[Key, ...]
_MOST_VALUES = 20_000
_LONGEST_SHOWN = 500
_ROW = re.compile(r"[0-9]{1,6}")
_CORE = "tag:yaml.org,2002:"
_TAGS: dict[type[yaml.Node], frozenset[str]] = {
    yaml.MappingNode: frozenset({f"{_CORE}map"}),
    yaml.SequenceNode: frozenset({f"{_CORE}seq"}),
    yaml.ScalarNode: frozenset(_CORE + kind for kind in ("str", "int", "float", "bool", "null")),
}
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2, and those alone.

    In YAML 1.1 ``1:30`` is 90, ``010`` is 8, ``1_000`` is 1000, ``yes`` is true and ``2020-01-01`` a date. Here all of these
    are the text that was written, which a key that wants a number refuses. ``5e-5`` is a number.
    """


_Loader.yaml_implicit_resolvers = {}
for _kind, (_form, _begins) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"{_CORE}{_kind}", re.compile(f"^(?:{_form})$"), list(_begins))


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper without aliases, which quotes every text that :class:`_Loader` would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def written(data: Any) -> str:
    """Plain data as YAML that :func:`parse` reads as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


@dataclass(frozen=True)
class Override:
    """A value that a flag puts in place of the recipe's.

    Attributes:
        path: where in the recipe, such as ``("stages", 0, "epochs")``.
        value: the new value.
        flag: how the user wrote it; messages point there.
    """

    path: KeyPath
    value: Any
    flag: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """Read ``stages.0.epochs=3``, as given to ``--set``.

        Raises:
            RequestError: there is no ``=``, the key is empty, or the value is not YAML.
        """
        flag = f"--set {text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + '…'}"
        key, equals, value = text.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise RequestError(Problem(flag, "is not of the form key=value", "--set training.batch_size=16", text))
        path = tuple(int(part) if _ROW.fullmatch(part) else part for part in key.strip().split("."))
        return cls(path, parse(value, flag).data, flag)


@dataclass
class Document:
    """YAML as plain data, and where each of its values stands.

    Attributes:
        data: dicts, lists and scalars.
        origin: the file, or another name for the text.
        places: key path → ``file:line`` or the flag that set it.
    """

    data: Any
    origin: str
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where the value at ``path``, or the nearest block around it, was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.origin

    def where(self, path: KeyPath) -> str:
        """The place and the dotted key path, as messages begin."""
        return f"{self.place(path)}  {dotted(path)}" if path else self.place(path)


def dotted(path: KeyPath) -> str:
    """``("stages", 0, "epochs")`` as ``stages.0.epochs``."""
    return ".".join(str(key) for key in path)


def parse(text: str, origin: str) -> Document:
    """YAML text as a :class:`Document`; refuses duplicate keys, constructors, loops, floods of aliases and very long texts."""
    document = Document(None, origin)
    refuse_too_long(len(text), origin)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.data = _Builder(loader, document).build(node, (), ())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise RequestError(Problem(f"{origin}{line}", f"is not valid YAML: {what}")) from error
    return document


class _Builder:
    """Turns YAML nodes into plain data and notes the line of each."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self.loader, self.document, self.count = loader, document, 0

    def build(self, node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...]) -> Any:
        self.count += 1
        line = node.start_mark.line + 1
        here = f"{self.document.origin}:{line}"
        self.document.places.setdefault(path, here)
        if any(node is other for other in above) or self.count > _MOST_VALUES:
            raise RequestError(Problem(here, "the YAML refers to itself, or is far too large for a recipe"))
        if node.tag not in _TAGS[type(node)]:
            raise RequestError(Problem(here, f"the tag {node.tag} is not allowed", "plain text, numbers, lists, maps"))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, (*above, node))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, row), (*above, node)) for row, item in enumerate(node.value)]
        kind = node.tag.rpartition(":")[2]
        if kind in _SCALARS and not re.fullmatch(_SCALARS[kind][0], node.value):
            raise RequestError(Problem(here, f"is not valid YAML: {brief(node.value)} is no {kind}"))
        try:
            return self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError) as error:
            raise RequestError(Problem(here, f"is not valid YAML: {brief(node.value)} is no {kind}")) from error

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, above: tuple[yaml.Node, ...]) -> dict[Key, Any]:
        result: dict[Key, Any] = {}
        for key_node, value_node in node.value:
            here = f"{self.document.origin}:{key_node.start_mark.line + 1}"
            key = self.build(key_node, (*path, "<key>"), above)
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise RequestError(Problem(here, "a key must be text or a whole number", found=brief(key)))
            if key in result:
                raise RequestError(Problem(here, f"the key {key!r} stands twice", "each key once"))
            self.document.places[(*path, key)] = here
            result[key] = self.build(value_node, (*path, key), above)
        return result


def expanded(override: Override, data: Any) -> list[Override]:
    """``stages.*.epochs`` as one override for every entry of the list."""
    if "*" not in override.path:
        return [override]
    place = override.path.index("*")
    before, behind = override.path[:place], override.path[place + 1 :]
    block = data
    for key in before:
        block = at(block, key)
    if not isinstance(block, list):
        raise RequestError(
            Problem(
                override.flag, f"there is no list {dotted(before) or 'of stages'} for the *", "stages.*.epochs=3", brief(block)
            )
        )
    rows = [Override((*before, row, *behind), copy.deepcopy(override.value), override.flag) for row in range(len(block))]
    return [single for row in rows for single in expanded(row, data)]


def put(document: Document, override: Override) -> None:
    """Write the override's value into the document, making blocks that are missing; the place behind a list's end appends."""
    target = document.data
    for depth, key in enumerate(override.path[:-1]):
        if isinstance(target, dict) and key not in target:
            document.places.setdefault(override.path[: depth + 1], override.flag)
        target = _child(target, key, override, depth)
    last = override.path[-1]
    if isinstance(target, dict):
        target[last] = override.value
    elif isinstance(target, list) and isinstance(last, int) and last <= len(target):
        target[last:] = [override.value, *target[last + 1 :]]
    else:
        raise _no_such_place(override, len(override.path) - 1, target)
    for path in [path for path in document.places if path[: len(override.path)] == override.path]:
        del document.places[path]
    document.places[override.path] = override.flag


def _child(target: Any, key: Key, override: Override, depth: int) -> Any:
    if isinstance(target, list) and isinstance(key, int) and key < len(target):
        return target[key]
    if isinstance(target, dict):
        return target.setdefault(key, {})
    raise _no_such_place(override, depth, target)


def _no_such_place(override: Override, depth: int, target: Any) -> RequestError:
    inside = dotted(override.path[:depth]) or "the recipe"
    size = f", which has {len(target)} entries" if isinstance(target, list) else ""
    remedy = ""
    if depth > 0 and not isinstance(target, list):
        nested = reduce(lambda inner, key: f"{{{_flow(key)}: {inner}}}", reversed(override.path[depth:]), _flow(override.value))
        remedy = f"--set {shlex.quote(f'{inside}={nested}')}"
    return RequestError(
        Problem(override.flag, f"there is no {brief(override.path[depth])} in {inside}{size}", "", brief(target), remedy)
    )


def _flow(value: Any) -> str:
    """A value as it is written in a line of YAML: words that can be nothing else as they are, the rest as JSON."""
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w-]*", value) and parse(value, "").data == value
    return str(value) if is_word else json.dumps(value, ensure_ascii=False, default=str)


def at(data: Any, key: Key) -> Any:
    """The value under a key or a row number, or None."""
    if isinstance(data, list):
        return data[key] if isinstance(key, int) and key < len(data) else None
    return data.get(key) if isinstance(data, dict) else None


def brief(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
