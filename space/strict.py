"""Strict conversion of YAML to frozen dataclasses and back.

The annotations of the dataclass are the schema. A document is refused if it has unknown, missing or repeated keys,
values of another type, or YAML features that configurations do not need and attacks do (anchors, aliases, tags, huge
or deeply nested documents). The error names the line, the key, what was expected and the nearest valid name. Nothing is
ever unpickled or executed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union

import yaml

from space.errors import UserError, nearest

T = TypeVar("T")

LONGEST_DOCUMENT_BYTES = 1_000_000
DEEPEST_NESTING = 20
MOST_NODES = 50_000
LARGEST = 2**63 - 1  # the largest whole number that libraries accept
# With libyaml, parsing the same grammar is several times as fast; it writes numbers and plain words identically.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
SCALARS = {
    bool: "tag:yaml.org,2002:bool",
    int: "tag:yaml.org,2002:int",
    float: "tag:yaml.org,2002:float",
    str: "tag:yaml.org,2002:str",
}
LONGEST_NAME = 60  # characters of the document that a message quotes
LONGEST_WORDS = 1500  # characters of an error about a value
MOST_KEYS = 6  # keys of a mapping that a message lists
LEFT_OUT_AT_DEFAULT = {"left_out_at_default": True}
"""Metadata of a field that is not written at its default. It was added later, and older values must keep their text."""


@dataclass(frozen=True, kw_only=False)
class OneOf:
    """Annotation of a string that is one of several names, looked up at reading: `Annotated[str, OneOf(names)]`."""

    names: Callable[[], tuple[str, ...]]


@dataclass(frozen=True, kw_only=False)
class Kinds:
    """Annotation of a value of one of several dataclasses, looked up at reading and distinguished by a field `kind`."""

    classes: Callable[[], Mapping[str, type]]


def parse(text: str, cls: type[T], source: str) -> T:
    """Read one YAML document as an instance of the frozen dataclass `cls`.

    `source` names the document in errors, usually by its path.

    Raises: UserError with the line and key of the first mistake.
    """
    if len(text.encode("utf-8", errors="replace")) > LONGEST_DOCUMENT_BYTES:
        raise UserError(f"{source}: expected a small YAML file, got more than {LONGEST_DOCUMENT_BYTES} bytes")
    try:
        _refuse_hostile(text, source)
        node = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{source}{line}: not valid YAML: {problem}") from None
    if node is None:
        raise UserError(f"{source}: expected {_keys(cls)}, got an empty document")
    value: T = _convert(node, cls, "", source)
    return value


def dump(value: Any) -> str:
    """YAML text of a frozen dataclass with every field explicit; `parse` returns an equal value.

    Raises: UserError for text that cannot be encoded as UTF-8, as some paths cannot.
    """
    try:
        text = str(yaml.dump(plain(value), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True))
        text.encode()
    except UnicodeEncodeError as error:
        came = str(error.object)[max(0, error.start - LONGEST_NAME) : error.end]
        raise UserError(
            f"expected text in UTF-8, got {came!a}; if it is a path, rename what is not UTF-8 in it"
        ) from None
    return text


def plain(value: Any) -> Any:
    """The value as nested dicts, lists and scalars (what YAML and JSON can hold)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written = [field.name for field in dataclasses.fields(value) if _is_written(field, value)]
        return {name: plain(getattr(value, name)) for name in written}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _is_written(field: dataclasses.Field[Any], value: Any) -> bool:
    if not field.metadata.get("left_out_at_default"):
        return True
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return bool(getattr(value, field.name) != default)


class _Dumper(DUMPER):  # type: ignore[misc]
    """Block style for structure, one line for lists of scalars, as people write configurations."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        scalars = all(not isinstance(item, (list, dict)) for item in sequence)
        node: yaml.SequenceNode = super().represent_sequence(tag, sequence, flow_style=scalars)
        return node


_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data))


def _refuse_hostile(text: str, source: str) -> None:
    """Check the flat stream of events for hostile features before any tree is built from it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=LOADER)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UserError(f"{source}:{line}: anchors and aliases are not accepted; write the value out")
        if tag := getattr(event, "tag", None):
            raise UserError(f"{source}:{line}: YAML tags are not accepted, got {tag!r}; write plain values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_NESTING or count > MOST_NODES:
            raise UserError(f"{source}:{line}: the document is nested too deeply or has too many entries")


def _convert(node: yaml.Node, kind: Any, key: str, source: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _annotated(node, arguments[0], arguments[1], key, source)
    if origin in (Union, types.UnionType):
        return _union(node, arguments, key, source)
    if origin is Literal:
        return _literal(node, arguments, key, source)
    if origin is tuple:
        return _tuple(node, arguments, key, source)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(node, arguments, key, source)
    if dataclasses.is_dataclass(kind):
        return _dataclass(node, kind, key, source)
    return _scalar(node, kind, key, source)


def _where(node: yaml.Node, key: str, source: str) -> str:
    """The beginning of a message: source and line, then the path of keys to the value, if any."""
    line = f"{source}:{node.start_mark.line + 1}"
    return f"{line}: {_shown(key)}" if key else line


def _under(key: str, name: str) -> str:
    """The path of the key `name` inside the value at `key`, or inside the document."""
    return f"{key}.{name}" if key else name


def _keys(cls: Any) -> str:
    """The keys of a mapping, for messages: those that are required, or all of them if none is."""
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields if _is_required(field)] or [field.name for field in fields]
    more = f" and {len(names) - MOST_KEYS} more" if len(names) > MOST_KEYS else ""
    return f"the key{'' if len(names) == 1 else 's'} {', '.join(names[:MOST_KEYS])}{more}"


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(name: str) -> str:
    """A name from a document, truncated for a message."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def _came(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if len(node.value) <= LONGEST_NAME else repr(node.value[:LONGEST_NAME]) + "..."
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _annotated(node: yaml.Node, kind: Any, meaning: Any, key: str, source: str) -> Any:
    if isinstance(meaning, OneOf):
        return _literal(node, meaning.names(), key, source)
    assert isinstance(meaning, Kinds), f"{key}: {meaning} is not part of the grammar"
    if _is_null(node) and type(None) in typing.get_args(kind):
        return None
    classes = meaning.classes()
    return _convert(node, classes[_kind_of(node, tuple(classes), key, source)], key, source)


def _union(node: yaml.Node, options: tuple[Any, ...], key: str, source: str) -> Any:
    if _is_null(node) and type(None) in options:
        return None
    rest = [option for option in options if option is not type(None)]
    lists = [option for option in rest if typing.get_origin(option) is tuple]
    if lists and len(rest) > 1:  # a list of values, or a single value
        if isinstance(node, yaml.SequenceNode):
            return _tuple(node, typing.get_args(lists[0]), key, source)
        rest = [option for option in rest if option not in lists]
    if all(option in SCALARS for option in rest) and len(rest) > 1:
        return _any_scalar(node, rest, key, source)
    if lists and len(rest) == 1 and rest[0] in SCALARS:
        return _scalar(node, rest[0], key, source, lists[0])
    return _convert(node, rest[0] if len(rest) == 1 else _of_kind(node, rest, key, source), key, source)


def _any_scalar(node: yaml.Node, kinds: list[Any], key: str, source: str) -> Any:
    """A scalar of the type that it is written as, which must be one of `kinds`."""
    written = {tag: kind for kind, tag in SCALARS.items()}.get(node.tag)
    if written not in kinds:
        raise UserError(f"{_where(node, key, source)}: expected a plain value, got {_came(node)}")
    return _scalar(node, written, key, source)


def _of_kind(node: yaml.Node, options: list[Any], key: str, source: str) -> Any:
    """The dataclass among `options` that a mapping means by its key `kind`. Each has a field `kind` with one literal
    value. Without the key, it is the dataclass that leaves out its `kind`, if there is one.
    """
    kinds = {typing.get_args(_annotations(option)["kind"])[0]: option for option in options}
    default = [name for name, option in kinds.items() if _leaves_out(option, "kind")]
    return kinds[_kind_of(node, tuple(kinds), key, source, *default)]


def _leaves_out(cls: Any, name: str) -> bool:
    return any(field.name == name and field.metadata.get("left_out_at_default") for field in dataclasses.fields(cls))


def _kind_of(node: yaml.Node, kinds: tuple[str, ...], key: str, source: str, default: str = "") -> str:
    """The `kind` of a mapping, one of `kinds`; `default`, if any, for a mapping without a `kind`."""
    for name, _, item in _pairs(node, key, source, f"the key kind, one of {', '.join(kinds)}, and those of that kind"):
        if name == "kind":
            return str(_literal(item, kinds, _under(key, "kind"), source))
    if default:
        return default
    raise UserError(f"{_where(node, key, source)}: missing kind; give one of {', '.join(kinds)}")


def _literal(node: yaml.Node, options: tuple[Any, ...], key: str, source: str) -> Any:
    value = _scalar(node, type(options[0]), key, source)
    if value not in options:
        hint = nearest(str(value), [str(option) for option in options])
        expected = ", ".join(str(option) for option in options)
        came = repr(_shown(value) if isinstance(value, str) else value)
        raise UserError(f"{_where(node, key, source)}: expected one of {expected}; got {came}; {hint}")
    return value


def _tuple(node: yaml.Node, kinds: tuple[Any, ...], key: str, source: str) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        came = _came(node)
        if isinstance(node, yaml.ScalarNode) and (sides := re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", node.value)):
            came += f"; write [{sides[1]}, {sides[2]}]"
        raise UserError(f"{_where(node, key, source)}: expected a list, got {came}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(node.value)
    if len(node.value) != len(kinds):
        raise UserError(f"{_where(node, key, source)}: expected {len(kinds)} values, got {len(node.value)}")
    return tuple(
        _convert(item, kind, f"{key}[{index}]", source)
        for index, (item, kind) in enumerate(zip(node.value, kinds, strict=True))
    )


def _pairs(node: yaml.Node, key: str, source: str, expected: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
    """The keys of a mapping, each with its node and the node of its value. `expected`: words for an error message."""
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{_where(node, key, source)}: expected {expected}, got {_came(node)}")
    found: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
    for name_node, item in node.value:
        if not isinstance(name_node, yaml.ScalarNode):
            raise UserError(f"{_where(name_node, key, source)}: expected a key, got {_came(name_node)}")
        name = name_node.value
        if name in found:
            raise UserError(f"{_where(name_node, key, source)}: key '{_shown(name)}' is given twice; keep one")
        found[name] = (name, name_node, item)
    return list(found.values())


def _mapping(node: yaml.Node, arguments: tuple[Any, ...], key: str, source: str) -> dict[str, Any]:
    assert arguments[0] is str, f"{key}: keys of a mapping are strings"
    pairs = _pairs(node, key, source, "a mapping")
    return {name: _convert(item, arguments[1], _under(key, name), source) for name, _, item in pairs}


@functools.cache
def _annotations(cls: type) -> Mapping[str, Any]:
    """The evaluated annotation of each field."""
    return typing.get_type_hints(cls, include_extras=True)


def _dataclass(node: yaml.Node, cls: Any, key: str, source: str) -> Any:
    kinds = _annotations(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = {}
    for name, name_node, item in _pairs(node, key, source, _keys(cls)):
        if name not in fields:
            raise UserError(f"{_where(name_node, key, source)}: unknown key '{_shown(name)}'; {nearest(name, fields)}")
        values[name] = _convert(item, kinds[name], _under(key, name), source)
    missing = [name for name, field in fields.items() if name not in values and _is_required(field)]
    if missing:
        raise UserError(f"{_where(node, key, source)}: missing {', '.join(missing)}; add it")
    try:
        return cls(**values)
    except UserError as error:
        words = str(error)  # may quote a value of any length
        raise type(error)(f"{_where(node, key, source)}: {words[:LONGEST_WORDS]}") from None


def _scalar(node: yaml.Node, kind: Any, key: str, source: str, several: Any = None) -> Any:
    """A scalar of type `kind`. `several`: the type of list that would be accepted in its place, for the message."""
    names: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    assert kind in names, f"{key}: {kind} is not part of the grammar"
    expected = names[kind]
    if several is not None:
        plurals = {int: " of whole numbers", float: " of numbers", str: " of texts"}
        expected += f", or a list{plurals.get(typing.get_args(several)[0], '')}"
    if isinstance(node, yaml.ScalarNode):
        try:
            value = yaml.constructor.SafeConstructor().construct_object(node)
        except (ValueError, yaml.YAMLError):
            value = None
        if kind in (int, float) and type(value) in (int, float) and (meant := _read_otherwise(node.value)):
            raise UserError(f"{_where(node, key, source)}: YAML reads {node.value} as {value}; write {meant}")
        if type(value) is int and abs(value) > LARGEST:
            value = None
        if kind is float and isinstance(value, str):
            value = _float_without_dot(value)
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            if math.isfinite(value):
                return float(value)
        elif type(value) is kind:
            return value
    came = _came(node)
    if kind is str and isinstance(node, yaml.ScalarNode) and not _is_null(node):
        came = f"{node.value[:60]}, which YAML reads as {_yaml_kind(node)}; write '{node.value[:60]}' for text"
    elif isinstance(node, yaml.ScalarNode) and node.style and _is_meant(node.value, kind):
        came += f", which the quotes make text; write {node.value} without them"
    raise UserError(f"{_where(node, key, source)}: expected {expected}, got {came}")


def _is_meant(word: str, kind: Any) -> bool:
    """Whether a quoted word would be read as a `kind` without its quotes."""
    return _plain_tag(word) in ((SCALARS[float], SCALARS[int]) if kind is float else (SCALARS[kind],))


def _read_otherwise(word: str) -> str:
    """What to write instead of a number that YAML 1.1 reads differently than people do: octal with a leading zero, base
    60 with colons. Empty for other numbers.
    """
    if ":" in word:
        return "it as one number"
    found = re.fullmatch(r"([-+]?)0+_*([0-9][0-9_]*(\.[0-9_]*)?)", word)
    return f"{found[1]}{found[2]}" if found else ""


def _plain_tag(word: str) -> str:
    """The YAML tag of a word without quotes."""
    resolver: Any = yaml.resolver.Resolver()
    return str(resolver.resolve(yaml.ScalarNode, word, (True, False)))


def _yaml_kind(node: yaml.ScalarNode) -> str:
    """The YAML type of an unquoted word, in words."""
    kind = node.tag.rpartition(":")[2]
    return {"int": "a number", "float": "a number", "bool": "true or false", "timestamp": "a date"}.get(kind, kind)


def _float_without_dot(text: str) -> float | str:
    """The number, if the text is one with an exponent: YAML 1.1 reads `1e-3`, which has no dot, as text."""
    try:
        return float(text) if "e" in text.lower() else text
    except ValueError:
        return text
