"""Recipes from YAML: read, overridden, validated, with every mistake at once and each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from kdcli.errors import Problem, RequestError, did_you_mean
from kdcli.recipe.document import Document, Key, KeyPath, Override, at, brief, expanded, parse, put
from kdcli.recipe.schema import Recipe
from kdcli.recipe.words import allowed


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and the document that it was read from."""

    recipe: Recipe
    document: Document


def load(path: Path, overrides: Sequence[Override] = ()) -> LoadedRecipe:
    """Read a recipe file, put the overrides in place and validate the whole.

    Raises:
        RequestError: with every mistake at once: file and line, key path, what was expected, what was found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(Problem(str(path), "cannot be read as a recipe", found=str(error))) from error
    return loads(text, str(path), overrides)


def loads(text: str, origin: str, overrides: Sequence[Override] = ()) -> LoadedRecipe:
    """Like :func:`load`, for text that is at hand already; ``origin`` names it in messages."""
    document = parse(text, origin)
    if not isinstance(document.data, dict):
        raise RequestError(Problem(origin, "is not a recipe", "a mapping with the key 'stages'", brief(document.data)))
    for override in overrides:
        for single in expanded(override, document.data):
            put(document, single)
    try:
        return LoadedRecipe(Recipe.model_validate(document.data), document)
    except ValidationError as error:
        raise RequestError(_problems(document, error.errors())) from error


def _problems(document: Document, details: Sequence[Any]) -> list[Problem]:
    """All findings; a key that is missing because it is misspelt beside it is told once, as the misspelling."""
    problems = [_problem(document, detail) for detail in details]
    meant = set()
    for detail, problem in zip(details, problems, strict=True):
        if detail["type"] == "extra_forbidden" and problem.remedy:
            meant.add((*detail["loc"][:-1], problem.remedy.split("'")[1]))
    return [problem for detail, problem in zip(details, problems, strict=True) if detail["loc"] not in meant]


def _problem(document: Document, detail: Any) -> Problem:
    """One of pydantic's findings in kdcli's words."""
    path = _key_path(document.data, detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _keys_at(path[:-1], document.data)
        remedy = did_you_mean(str(path[-1]), known)
        return Problem(document.where(path), f"unknown key {path[-1]!r}", "one of " + ", ".join(known), "", remedy)
    if kind == "missing":
        return Problem(document.where(path), f"the key {path[-1]!r} is missing")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_loss(document, path, detail)
    remedy = ""
    if kind in ("literal_error", "enum"):
        choices = [choice.strip(" '") for choice in detail["ctx"]["expected"].replace(" or ", ",").split(",")]
        remedy = did_you_mean(str(detail["input"]), choices)
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if kind == "literal_error" and str(detail["loc"][-1]).startswith("<"):
        message = " or ".join(allowed(_annotation_at(path, document.data))).replace("`", "")
    return Problem(document.where(path), "has a wrong value", message, brief(detail["input"]), remedy)


def _unknown_loss(document: Document, path: KeyPath, detail: Any) -> Problem:
    names = [part.strip(" '") for part in detail.get("ctx", {}).get("expected_tags", "").split(",") if part.strip()]
    if all(name.startswith("<") for name in names) and names:
        expected = " or ".join(allowed(_annotation_at(path, document.data))).replace("`", "")
        return Problem(document.where(path), "has a wrong value", expected, brief(detail["input"]))
    found = detail["input"].get("loss") if isinstance(detail["input"], dict) else detail["input"]
    if found is None or not isinstance(detail["input"], dict):
        return Problem(document.where(path), "a term of the objective needs a loss", "{loss: soft-labels, …}", brief(found))
    return Problem(
        document.where((*path, "loss")),
        f"unknown loss {found!r}",
        "one of " + ", ".join(names),
        "",
        did_you_mean(str(found), names),
    )


def _key_path(data: Any, location: tuple[Key, ...]) -> KeyPath:
    """Pydantic's location without the tags that it adds for the members of a union."""
    path: list[Key] = []
    for depth, key in enumerate(location):
        last = depth == len(location) - 1
        if isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        elif isinstance(data, dict) and key in data:
            data = data[key]
        elif isinstance(key, str) and (key.startswith("<") or key == "[key]" or not last):
            continue
        elif isinstance(data, dict) and str(key).isdigit() and int(key) in data:
            key, data = int(key), data[int(key)]
        path.append(key)
    return tuple(path)


def _annotation_at(path: KeyPath, data: Any) -> Any:
    """The schema's annotation of the value at ``path``."""
    annotation: Any = Recipe
    for key in path:
        annotation, data = _inside(annotation, key, data), at(data, key)
    return annotation


def _keys_at(path: KeyPath, data: Any) -> list[str]:
    """The keys that the schema knows in the block at ``path``."""
    annotation = _annotation_at(path, data)
    for key in path:
        data = at(data, key)
    model = _model(annotation, data)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _inside(annotation: Any, key: Key, data: Any) -> Any:
    model = _model(annotation, data)
    if model is not None:
        for name, info in model.model_fields.items():
            if key in (name, info.alias):
                return info.annotation if not info.discriminator else Annotated[info.annotation, info]
        return None
    arguments = get_args(_bare(annotation))
    return arguments[-1] if arguments else None


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _model(annotation: Any, data: Any) -> type[BaseModel] | None:
    """The block that an annotation stands for; of a union, the one whose ``loss`` is written in the data."""
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        members = [_model(member, data) for member in get_args(annotation) if member is not NoneType]
        models = [member for member in members if member is not None]
        wanted = data.get("loss") if isinstance(data, dict) else None
        for model in models:
            if "loss" not in model.model_fields or wanted in get_args(model.model_fields["loss"].annotation):
                return model
    return None
