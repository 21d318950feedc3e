"""Recipes from YAML: read, overridden, validated, with every mistake at once and each with its place."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from kdcli.errors import Problem, RequestError, did_you_mean
from kdcli.recipe.allowed_values import allowed
from kdcli.recipe.catalogue import read
from kdcli.recipe.loss import LossBlock
from kdcli.recipe.loss_blocks import losses
from kdcli.recipe.schema import Recipe
from kdcli.recipe.yaml_document import Document, Key, KeyPath, Override, at, brief, expanded, parse, put

Block = TypeVar("Block", bound=BaseModel)


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
    return loads(read(path), str(path), overrides)


def loads(text: str, origin: str, overrides: Sequence[Override] = ()) -> LoadedRecipe:
    """Like :func:`load`, for text that is at hand already; ``origin`` names it in messages."""
    document = parse(text, origin)
    _refuse_what_is_no_recipe(document)
    for override in overrides:
        for single in expanded(override, document.data):
            put(document, single)
    return LoadedRecipe(validated(Recipe, document), document)


def validated(block: type[Block], document: Document) -> Block:
    """The document as a block of some schema.

    Raises:
        RequestError: with every mistake at once, each with its place.
    """
    try:
        return block.model_validate(document.data)
    except ValidationError as error:
        raise RequestError(_problems(document, error.errors(), block)) from error


def with_values(loaded: LoadedRecipe, overrides: Sequence[Override]) -> LoadedRecipe:
    """A recipe with further values in place; the one that is given stays as it is."""
    document = copy.deepcopy(loaded.document)
    for override in overrides:
        put(document, override)
    return LoadedRecipe(Recipe.model_validate(document.data), document)


def _refuse_what_is_no_recipe(document: Document) -> None:
    """Refuse a file of another kind without a word of what is in it: it may be one with secrets."""
    data, known = document.data, [info.alias or name for name, info in Recipe.model_fields.items()]
    if isinstance(data, dict) and any(key in known or did_you_mean(str(key), known) for key in data):
        return
    kinds = {dict: "a mapping with other keys", list: "a list", str: "text", type(None): "nothing"}
    found = kinds.get(type(data), "a single value")
    raise RequestError(Problem(document.origin, "is not a recipe", "a mapping with the key 'stages'", found))


def _problems(document: Document, details: Sequence[Any], root: type[BaseModel]) -> list[Problem]:
    """All findings; what follows from another one is not told.

    A key that is missing because it is misspelt beside it is told as the misspelling, and a key of the wrong kind without what
    is wrong with its value.
    """
    problems = [_problem(document, detail, root) for detail in details]
    meant = set()
    wrong_keys = {detail["loc"][:-1] for detail in details if detail["loc"][-1:] == ("[key]",)}
    for detail, problem in zip(details, problems, strict=True):
        if detail["type"] == "extra_forbidden" and problem.remedy:
            meant.add((*detail["loc"][:-1], problem.remedy.split("'")[1]))
    told = [
        problem
        for detail, problem in zip(details, problems, strict=True)
        if detail["loc"] not in meant
        and (detail["loc"][-1:] == ("[key]",) or not any(detail["loc"][: len(key)] == key for key in wrong_keys))
    ]
    return list(dict.fromkeys(told))


def _problem(document: Document, detail: Any, root: type[BaseModel]) -> Problem:
    """One of pydantic's findings in kdcli's words."""
    path = _key_path(document.data, detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _keys_at(path[:-1], document.data, root)
        remedy = did_you_mean(str(path[-1]), known)
        return Problem(document.where(path), f"unknown key {path[-1]!r}", "one of " + ", ".join(known), "", remedy)
    if kind == "missing":
        return Problem(document.where(path), f"the key {path[-1]!r} is missing")
    if detail["loc"][-1:] == ("[key]",):
        return Problem(document.where(path), "has a wrong value", _expected_key(path, document.data, root), brief(path[-1]))
    annotation = _annotation_at(path, document.data, root)
    if kind in ("union_tag_invalid", "union_tag_not_found") and "a loss" in allowed(annotation):
        return _unknown_loss(document, path, detail)
    words = allowed(annotation)
    remedy = did_you_mean(str(detail["input"]), _choices(words)) if isinstance(detail["input"], str) else ""
    expected = _IN_WORDS.get(kind) or " or ".join(words).replace("`", "")
    if kind == "value_error" or (kind in _SAID_WELL and len(words) == 1) or not words:
        expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return Problem(document.where(path), "has a wrong value", expected, brief(detail["input"]), remedy)


_SAID_WELL = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"})
_IN_WORDS = {
    "too_short": "one entry at least",
    "string_too_short": "a text that is not empty",
    "string_pattern_mismatch": "letters, digits, - and _",
}


def _choices(words: Sequence[str]) -> list[str]:
    return [choice for word in words for choice in re.findall(r"`([^`]+)`", word)]


def _expected_key(path: KeyPath, data: Any, root: type[BaseModel]) -> str:
    """What the keys of the map around ``path`` have to be."""
    inside = "map of text" in " ".join(allowed(_annotation_at(path[:-1], data, root)))
    if root is not Recipe:
        return "text"
    return "the name of a teacher, as in {bert: …}" if inside else "the number of a layer or head"


def _unknown_loss(document: Document, path: KeyPath, detail: Any) -> Problem:
    given = detail["input"]
    names = [part.strip(" '") for part in detail.get("ctx", {}).get("expected_tags", "").split(",") if part.strip()]
    if not isinstance(given, dict) or "loss" not in given:
        keys = [str(key) for key in given] if isinstance(given, dict) else []
        near = next((key for key in keys if did_you_mean(key, ["loss"])), None)
        remedy = f"'loss' in place of '{near}'" if near else ""
        return Problem(
            document.where(path), "a term of the objective needs a loss", "{loss: soft-labels, …}", brief(given), remedy
        )
    found = given["loss"]
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


def _annotation_at(path: KeyPath, data: Any, root: type[BaseModel]) -> Any:
    """The schema's annotation of the value at ``path``."""
    annotation: Any = root
    for key in path:
        annotation, data = _inside(annotation, key, data), at(data, key)
    return annotation


def _keys_at(path: KeyPath, data: Any, root: type[BaseModel]) -> list[str]:
    """The keys that the schema knows in the block at ``path``."""
    annotation = _annotation_at(path, data, root)
    for key in path:
        data = at(data, key)
    model = _model(annotation, data)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _inside(annotation: Any, key: Key, data: Any) -> Any:
    """The annotation of what stands under a key; None where nothing may."""
    model = _model(annotation, data)
    if model is not None:
        for name, info in model.model_fields.items():
            if key == (info.alias or name):
                return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        return None
    bare = _bare(annotation)
    if get_origin(bare) in (Union, UnionType):
        found = [_inside(member, key, data) for member in get_args(bare)]
        return next((member for member in found if member is not None), None)
    fits = list if isinstance(data, list) else dict
    return get_args(bare)[-1] if get_origin(bare) is fits else None


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _model(annotation: Any, data: Any) -> type[BaseModel] | None:
    """The block that an annotation stands for; for a loss, the one whose name is written in the data."""
    annotation = _bare(annotation)
    if annotation is LossBlock:
        name = data.get("loss") if isinstance(data, dict) else None
        return next((loss for loss in losses() if loss.loss_name() == name), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType) and isinstance(data, dict):
        for member in get_args(annotation):
            model = _model(member, data)
            if model is not None:
                return model
    return None
