"""The text of `--help`: tyro's text, wrapped to the terminal, with the meaning of a default of None in words."""

import contextlib
import dataclasses
import inspect
import io
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import docstring_parser
import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo


DEFAULT_IN_WORDS = re.compile(r"; default: ([^;]+)\.$")
"""The end of an option's text that says what its None means, such as "...; default: the agent's own."."""


def help_text(config: Any, arguments: Sequence[str], prog: str, settings: dict[str, Any]) -> str:
    """The text that `--help` prints; `config` and `settings` are those of `tyro.cli`.

    It shows the whole text of the agent that the command line names; without one, the first sentence of every agent.
    """
    description = _joined(settings.get("description") or inspect.getdoc(config) or "")
    named = any(argument.startswith("agent:") for argument in arguments)
    settings = settings | {"description": "", "registry": _registry(whole=named)}
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding or "utf-8", errors="replace")
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(buffer):
        tyro.cli(config, args=arguments, prog=prog, **settings)
    buffer.seek(0)
    usage, *rest = buffer.read().splitlines()
    usage = re.sub(r"\[?\{agent:[^}]*\}\]?", "[agent:NAME]", usage)
    # tyro wraps only the text inside boxes.
    width = shutil.get_terminal_size().columns
    lines = [usage, "", *description.splitlines(), *map(str.rstrip, rest)]
    text = "\n".join(part for line in lines for part in textwrap.wrap(line, width) or [""])
    return re.sub(r"\n{3,}", "\n\n", text)


def _registry(*, whole: bool) -> ConstructorRegistry:
    """tyro's rules, and one that reads the docstrings of dataclasses; `whole` shows an agent's whole docstring."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type):
            return None
        kind: Any = info.type
        hints, texts = get_type_hints(kind, include_extras=True), _field_texts(kind)
        fields = []
        for field in dataclasses.fields(kind):
            if field.init:
                default = _default(field, info.default)
                annotation = _annotation(hints[field.name], texts.get(field.name), default, whole=whole)
                fields.append(StructFieldSpec(field.name, annotation, default))
        return StructConstructorSpec(instantiate=kind, fields=tuple(fields))

    return registry


def _default(field: dataclasses.Field, instance: Any) -> Any:
    if hasattr(instance, field.name):
        return getattr(instance, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return tyro.MISSING_NONPROP if field.default_factory is dataclasses.MISSING else field.default_factory()


def _field_texts(kind: type) -> dict[str, str]:
    """Each field's docstring on one line, by the field's name; bases are read too."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[:-1]):
        if dataclasses.is_dataclass(one):
            documented = docstring_parser.parse_from_object(one).params
            found |= {param.arg_name: _joined(param.description) for param in documented if param.description}
    return found


def _annotation(kind: Any, text: str | None, default: Any, *, whole: bool) -> Any:
    """The type, annotated with the help text that tyro shows for it."""
    kind = _made(kind)
    members = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType) and all(dataclasses.is_dataclass(_plain(one)) for one in members):
        return Union[tuple(_described(member, whole=whole) for member in members)]  # noqa: UP007
    if text is None:
        return kind
    hint, words = None, DEFAULT_IN_WORDS.search(text)
    if words is not None:
        text = f"{text[: words.start()]}."
        hint = f"(default: {words[1]})" if default is None else None
    return Annotated[kind, tyro.conf.arg(help=text, help_behavior_hint=hint)]


def _made(kind: Any) -> Any:
    """The type itself, or what a `constructor_factory` beside it makes."""
    factories = (getattr(note, "constructor_factory", None) for note in getattr(kind, "__metadata__", ()))
    return next((factory() for factory in factories if factory is not None), kind)


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _described(member: Any, *, whole: bool) -> Any:
    """A subcommand, under the name that it may have beside its type, with its class's docstring."""
    kind, name = _plain(member), None
    for note in getattr(member, "__metadata__", ()):
        name = getattr(note, "name", name)
    return Annotated[kind, tyro.conf.subcommand(name=name, description=_description(kind, whole=whole))]


def _description(kind: type, *, whole: bool) -> str:
    text = inspect.getdoc(kind) or ""
    if text.startswith(f"{kind.__name__}("):  # by `dataclasses`, for a class without a docstring
        return ""
    return _joined(text) if whole else _joined(text.partition("\n\n")[0])


def _joined(text: str) -> str:
    """The text with each paragraph and each list item on one line."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join("\n".join(map(" ".join, _items(paragraph))) for paragraph in paragraphs)


def _items(paragraph: str) -> list[list[str]]:
    items: list[list[str]] = [[]]
    for line in paragraph.splitlines():
        if line.lstrip().startswith("- "):
            items.append([])
        items[-1] += line.split()
    return [item for item in items if item]
