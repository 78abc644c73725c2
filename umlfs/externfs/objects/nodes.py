"""Objects as nodes: attributes, keys and items are names; plain values are files; methods that are allowed, too.

Safe by default: nothing private, no code, no module is shown, nothing is called and nothing set unless it was allowed.
"""

from __future__ import annotations

import ast
import dataclasses
import errno
import inspect
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from umlfs.externfs.names import quoted
from umlfs.externfs.node import Action, Child, Directory, File, Node
from umlfs.host.syscalls import failure

_PLAIN: Final = (str, bytes, int, float, bool, complex, type(None))
_HIDDEN: Final = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.CodeType,
)
_ARGUMENTS_MAX: Final = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class Allowed:
    """What may be done with a graph besides looking at it."""

    types: tuple[type, ...] = ()
    """Whose attributes are shown; mappings, sequences and dataclasses are shown in any case."""
    methods: frozenset[str] = frozenset()
    """Names of methods that become files: a write calls them with the arguments that it says, as Python literals."""
    write: bool = False
    """Values may be set, to others of the same type."""


class ObjectDirectory(Directory):
    """An object that has others in it."""

    def __init__(self, value: Any, allowed: Allowed, path: tuple[Hashable, ...] = ()) -> None:
        self._value, self._allowed, self._path = value, allowed, path
        self.mode = 0o755 if allowed.write else 0o555

    @property
    def key(self) -> Hashable:
        return "object", self._path

    async def children(self) -> list[Child]:
        found = [
            (name, self._node(name, value, put))
            for name, value, put in _members(self._value, self._allowed)
            if _shown(value)
        ]
        return found + [(name, Call(getattr(self._value, name), (self._path, name))) for name in self._methods()]

    def _methods(self) -> Iterator[str]:
        for name in sorted(self._allowed.methods):
            method = inspect.getattr_static(type(self._value), name, None)
            if not name.startswith("_") and callable(method):
                yield name

    def _node(self, name: str, value: Any, put: Callable[[Any], None] | None) -> Node:
        path = (*self._path, name)
        if isinstance(value, _PLAIN):
            return ValueFile(value, put if self._allowed.write else None, path)
        return ObjectDirectory(value, self._allowed, path)


def _shown(value: Any) -> bool:
    return not isinstance(value, _HIDDEN)


Member = tuple[str, Any, "Callable[[Any], None] | None"]


def _members(value: Any, allowed: Allowed) -> Iterator[Member]:
    """Names, values, and what sets each."""
    if isinstance(value, Mapping):
        yield from _items(value)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, item in enumerate(value):
            yield str(index), item, _setter(value, index) if hasattr(value, "__setitem__") else None
    elif isinstance(value, set | frozenset):
        yield from ((str(index), item, None) for index, item in enumerate(sorted(value, key=repr)))
    elif dataclasses.is_dataclass(value) or isinstance(value, allowed.types):
        for name in _attributes(value):
            yield name, getattr(value, name), _attribute_setter(value, name)


def _items(value: Mapping[Any, Any]) -> Iterator[Member]:
    seen: set[str] = set()
    for key, item in list(value.items()):
        name = quoted(str(key))
        if isinstance(key, _PLAIN) and name not in seen:
            seen.add(name)
            yield name, item, _setter(value, key) if hasattr(value, "__setitem__") else None


def _attributes(value: Any) -> Iterable[str]:
    """What it holds; properties, which are code, only of types that are allowed. Nothing private."""
    names = dict.fromkeys(getattr(value, "__dict__", ()))
    names |= dict.fromkeys(field.name for field in dataclasses.fields(value)) if dataclasses.is_dataclass(value) else {}
    return [name for name in names if not name.startswith("_")]


def _setter(container: Any, key: Any) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        container[key] = value

    return put


def _attribute_setter(owner: Any, name: str) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        setattr(owner, name, value)

    return put


class ValueFile(File):
    """A plain value: text as it is, all others as Python writes them."""

    def __init__(self, value: Any, put: Callable[[Any], None] | None, path: tuple[Hashable, ...]) -> None:
        self._value, self._put, self._path = value, put, path
        self.mode = 0o644 if put is not None else 0o444

    @property
    def key(self) -> Hashable:
        return "value", self._path

    async def read(self) -> bytes:
        if isinstance(self._value, bytes):
            return self._value
        text = self._value if isinstance(self._value, str) else f"{self._value!r}\n"
        return text.encode(errors="surrogateescape")

    async def write(self, data: bytes) -> None:
        """EINVAL unless it is a value of the same type."""
        if self._put is None:
            raise failure(errno.EACCES)
        try:
            self._put(_parsed(type(self._value), data))
        except (ValueError, SyntaxError, TypeError, AttributeError, dataclasses.FrozenInstanceError):
            raise failure(errno.EINVAL) from None


def _parsed(kind: type, data: bytes) -> Any:
    if kind is bytes:
        return data
    if kind is str:
        return data.decode(errors="surrogateescape")
    value = _literal(data)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind and kind is not type(None):
        raise ValueError
    return value


def _literal(data: bytes) -> Any:
    """A Python literal. ValueError, also for one that is too deep or too long to be looked at."""
    if len(data) > _ARGUMENTS_MAX:
        raise ValueError
    try:
        return ast.literal_eval(data.decode().strip())
    except (RecursionError, MemoryError):
        raise ValueError from None


class Call(Action):
    """A method: a write calls it, with what a Python tuple of literals says. Nothing at all is no arguments."""

    def __init__(self, method: Callable[..., Any], path: Hashable) -> None:
        self._method, self._path = method, path

    @property
    def key(self) -> Hashable:
        return "call", self._path

    async def act(self, data: bytes) -> None:
        """EINVAL for what are no arguments."""
        try:
            arguments = _literal(data) if data.strip() else ()
        except (ValueError, SyntaxError):
            raise failure(errno.EINVAL) from None
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        result = self._method(*arguments)
        if inspect.isawaitable(result):
            await result
