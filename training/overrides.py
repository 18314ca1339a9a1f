"""Fields of a recipe set by dotted names, as on the command line: `policy.optimization.epochs=5`."""

import dataclasses
import functools
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from sdcom.errors import InvalidParameterError, UnknownNameError, nearest_names

ConfigT = TypeVar("ConfigT")

FROM_THE_DATA: Final = ("model.labels",)
ABSENT: Final = ("none", "null")
FIELDS_SUGGESTED: Final = 4  # the stages that a recipe can have
ALL_FIELDS: Final = "sdcom train --fields RECIPE lists them all"


def override(recipe: ConfigT, assignments: Sequence[str]) -> ConfigT:
    """Return the recipe with fields set; checks that span fields are made when all are.

    Args:
        recipe: a frozen dataclass or pydantic model, with such as fields, to any depth.
        assignments: each `NAME=VALUE`: the name dotted, the value as a person writes it; a tuple's elements
            are separated by commas, and nothing is the empty tuple.

    Raises:
        UnknownNameError: there is no field of a name; the message has the nearest one.
        InvalidParameterError: a name is given twice, is a group of fields or comes from the data; or a value
            is not of the field's type, or not possible beside the others.
    """
    types_by_name = dict(_fields(recipe))
    values: dict[str, object] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        name = name.strip()
        if not separator:
            raise InvalidParameterError(f"{assignment!r} sets nothing: NAME=VALUE expected")
        _check_name(name, types_by_name)
        if name in values:
            raise InvalidParameterError(f"{name} is set twice")
        values[name] = _parsed(name, text.strip(), types_by_name[name])
    return _rebuilt(recipe, values, prefix="")


def field_names(recipe: object) -> list[str]:
    """Return the dotted names of all fields that can be set."""
    return [name for name, _ in _fields(recipe)]


def assignments_of(recipe: object) -> list[str]:
    """Return every field that has a value of its own as `NAME=VALUE`, as `override` takes it."""
    values = ((name, _value_at(recipe, name)) for name in field_names(recipe))
    return [f"{name}={_written(value)}" for name, value in values if not _is_group(value)]


def _value_at(config: object, name: str) -> object:
    return functools.reduce(getattr, name.split("."), config)


def _written(value: object) -> str:
    """Return a value as a person writes it."""
    if value is None:
        return ABSENT[0]
    if isinstance(value, tuple):
        return ",".join(map(_written, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fields(config: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the type of every field that is no group of fields, or one that may go."""
    for name, annotation in _own_fields(config).items():
        value = getattr(config, name)
        if _is_group(value):
            yield from _fields(value, f"{prefix}{name}.")
        if (not _is_group(value) or _is_optional(annotation)) and prefix + name not in FROM_THE_DATA:
            yield prefix + name, annotation


def _is_group(value: object) -> bool:
    return dataclasses.is_dataclass(value) or isinstance(value, BaseModel)


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in {Union, types.UnionType} and type(None) in get_args(annotation)


def _own_fields(config: object) -> dict[str, Any]:
    hints = get_type_hints(type(config))
    if isinstance(config, BaseModel):
        return {name: hints[name] for name in type(config).model_fields}
    assert dataclasses.is_dataclass(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}


def _check_name(name: str, known: Mapping[str, Any]) -> None:
    if name in known:
        return
    if name in FROM_THE_DATA:
        raise InvalidParameterError(f"{name} cannot be set: it comes from the data")
    members = [field for field in known if field.startswith(name + ".")]
    if members and name:
        raise InvalidParameterError(f"{name} is a group of fields; set one of them: {', '.join(members)}")
    raise UnknownNameError(
        "field of the recipe", name, known, all_names=ALL_FIELDS, nearest=_nearest_fields(name, known)
    )


def _nearest_fields(name: str, known: Iterable[str]) -> list[str]:
    """Return the fields that a name may mean: one all but spelt so, else those whose last part is like it."""
    fields = list(known)
    if spelt_so := nearest_names(name, fields, limit=1, cutoff=0.9):
        return spelt_so
    last_parts = {field.rpartition(".")[2] for field in fields}
    meant = nearest_names(name.rpartition(".")[2], last_parts, limit=1, cutoff=0.7)
    ending_so = [field for field in fields if field.rpartition(".")[2] in meant]
    return nearest_names(name, ending_so, limit=FIELDS_SUGGESTED, cutoff=0)


def _parsed(name: str, text: str, annotation: Any) -> object:
    """Return the value that a text stands for.

    Raises:
        InvalidParameterError: it stands for none of the field's type.
    """
    if _is_optional(annotation):
        if text.lower() in ABSENT:
            return None
        (annotation,) = (member for member in get_args(annotation) if member is not type(None))
    if dataclasses.is_dataclass(annotation):
        raise InvalidParameterError(f"{name} is a group of fields: set it to none, or its fields one by one")
    try:
        if get_origin(annotation) is tuple:
            return _parsed_tuple(text, get_args(annotation))
        return _parsed_one(text, annotation)
    except ValidationError as exc:
        raise InvalidParameterError(f"{name} is {text!r}; expected {_expected(annotation)}") from exc


def _parsed_tuple(text: str, elements: tuple[Any, ...]) -> tuple[object, ...]:
    parts = [part.strip() for part in text.removeprefix("(").removesuffix(")").split(",")]
    if parts[-1] == "":  # nothing, or a comma at the end
        parts.pop()
    kinds = [elements[0]] * len(parts) if elements[1:] == (...,) else list(elements)
    if len(kinds) != len(parts):
        raise ValidationError.from_exception_data("tuple", [])
    return tuple(_parsed_one(part, kind) for part, kind in zip(parts, kinds, strict=True))


def _parsed_one(text: str, annotation: Any) -> object:
    value: object = TypeAdapter(annotation).validate_strings(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValidationError.from_exception_data("float", [])
    return value


def _expected(annotation: Any) -> str:
    """Say in words which values a field takes."""
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        elements = get_args(annotation)
        count = "any number" if elements[1:] == (...,) else str(len(elements))
        return f"values separated by commas, {count} of them, each {_expected(elements[0])}"
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _rebuilt(config: ConfigT, values: Mapping[str, object], prefix: str) -> ConfigT:
    """Return a config with all values set at once, its groups first."""
    changed: dict[str, object] = {}
    for name in _own_fields(config):
        dotted = prefix + name
        if dotted in values:
            changed[name] = values[dotted]
        elif any(key.startswith(dotted + ".") for key in values):
            changed[name] = _rebuilt(getattr(config, name), values, dotted + ".")
    try:
        if isinstance(config, BaseModel):
            return type(config).model_validate(dict(config) | changed)
        replaced: ConfigT = dataclasses.replace(cast(Any, config), **changed)
        return replaced  # noqa: TRY300 - what is tried is all of it
    except ValidationError as exc:
        problems = "; ".join(
            ".".join((prefix.rstrip("."), *map(str, error["loc"]))) + ": " + error["msg"]
            for error in exc.errors()
        )
        raise InvalidParameterError(problems) from exc
    except ValueError as exc:
        raise InvalidParameterError(f"{prefix.rstrip('.') or 'recipe'}: {exc}") from exc
