"""A sweep file from YAML: read and validated, with every mistake at once and each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli.errors import Problem, Problems, RequestError, did_you_mean
from kdcli.recipe.catalogue import read
from kdcli.recipe.loading import validated
from kdcli.recipe.yaml_document import Document, KeyPath, Override, brief, parse
from kdcli.sweep.space import Parameter, combinations, same
from kdcli.sweep.sweep_schema import Range, Sweep

_MOST_COMBINATIONS = 100_000


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep, its parameters, and the document that both were read from."""

    sweep: Sweep
    parameters: Sequence[Parameter]
    document: Document

    @property
    def content(self) -> dict[str, Any]:
        """What has to stay the same when the sweep goes on: all but the storage, whose address may hold a password."""
        return {key: value for key, value in self.document.data.items() if key != "storage"}


def load(path: Path) -> LoadedSweep:
    """Read a sweep file and validate all of it that can be validated without a recipe.

    Raises:
        RequestError: with every mistake at once: file and line, key path, what was expected, what was found.
    """
    if not path.is_file():
        raise RequestError(Problem(f"--sweep {path}", "there is no such file", "a YAML file with the key 'parameters'"))
    return loads(read(path, "sweep"), str(path))


def loads(text: str, origin: str) -> LoadedSweep:
    """Like :func:`load`, for text that is at hand already; ``origin`` names it in messages."""
    document = parse(text, origin)
    _refuse_what_is_no_sweep(document)
    sweep = validated(Sweep, document)
    problems = Problems()
    parameters = [_parameter(key, values, document, problems) for key, values in sweep.parameters.items()]
    problems.raise_if_any()
    for place, parameter in enumerate(parameters):
        for other in parameters[:place]:
            if _overlap(parameter.path, other.path):
                problems.add(document.where(("parameters", parameter.key)), f"sets what {other.key} sets as well")
        _check_values(sweep, parameter, document, problems)
    problems.raise_if_any()
    if sweep.sampler == "grid" and combinations(parameters) > _MOST_COMBINATIONS:
        raise RequestError(
            Problem(
                document.where(("parameters",)),
                f"the grid has {combinations(parameters):,} combinations",
                f"{_MOST_COMBINATIONS:,} at the most",
                remedy="sampler: random",
            )
        )
    return LoadedSweep(sweep, parameters, document)


def _refuse_what_is_no_sweep(document: Document) -> None:
    """Refuse a file of another kind without a word of what is in it: it may be one with secrets."""
    data = document.data
    if isinstance(data, dict) and any(key in Sweep.model_fields or did_you_mean(str(key), ["parameters"]) for key in data):
        return
    found = "a mapping with other keys" if isinstance(data, dict) else "something else"
    raise RequestError(Problem(document.origin, "is not a sweep", "a mapping with the key 'parameters'", found))


def _parameter(key: str, values: Range | list[Any], document: Document, problems: Problems) -> Parameter:
    place = document.place(("parameters", key))
    if "=" in key:
        problems.add(f"{place}  parameters", f"{key!r} is not a key of the recipe", expected="a key as --set has it, without =")
        return Parameter(key, (key,), place, values)
    try:
        path = Override.parse(f"{key}=0").path
    except RequestError:
        problems.add(f"{place}  parameters", f"{key!r} is not a key of the recipe", expected="such as training.learning_rate")
        path = (key,)
    return Parameter(key, path, place, values)


def _check_values(sweep: Sweep, parameter: Parameter, document: Document, problems: Problems) -> None:
    where, values = document.where(("parameters", parameter.key)), parameter.values
    if isinstance(values, Range):
        if sweep.sampler == "grid" and values.step is None:
            problems.add(where, "a grid needs a step, or a list of choices", expected="{from: 1, to: 5, step: 2} or [1, 3, 5]")
        return
    for place, value in enumerate(values):
        if any(same(value, other) for other in values[:place]):
            problems.add(where, "a choice stands twice", expected="each choice once", found=brief(value))


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    """Whether the two keys set a value that is the same, or that one of them lies within the other's."""
    return all(a == b or "*" in (a, b) for a, b in zip(one, other, strict=False))
