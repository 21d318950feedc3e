"""What ``head.json`` says of the head that co-finetuned teachers share, and which weights lie beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from kdcli.errors import Problem, RequestError
from kdcli.models.json_file import brief, read_object, refused
from kdcli.recipe.schema import Pooling
from kdcli.tasks.kinds import kinds

SHARED_HEAD = "head.json"
HEAD_WEIGHTS = "head.safetensors"
_WIDEST = 2**16
_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class SharedHeadFile:
    """A shared head before it is built.

    Attributes:
        teachers: names of the teachers; each lies in a folder of its name.
        widths: teacher → width of its hidden states.
        pooling: the kind of pooling.
        labels: class names in output order.
        kind: of the task; heads of earlier versions do not say, and are for classification.
    """

    teachers: tuple[str, ...]
    widths: dict[str, int]
    pooling: Pooling
    labels: tuple[str, ...]
    kind: str = "classification"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors that ``head.safetensors`` has to hold."""
        width = max(self.widths.values())
        shapes: dict[str, tuple[int, ...]] = {
            "prediction.weight": (len(self.labels), width),
            "prediction.bias": (len(self.labels),),
        }
        if self.pooling == "attention":
            shapes |= {
                "pooling.inner.weight": (width, width),
                "pooling.inner.bias": (width,),
                "pooling.query.weight": (1, width),
            }
        for name, own in self.widths.items():
            if own != width:
                shapes |= {f"inputs.{name}.weight": (width, own), f"inputs.{name}.bias": (width,)}
        return shapes


def read_shared_head(folder: Path) -> SharedHeadFile:
    """The shared head that lies in a folder.

    Raises:
        RequestError: ``head.json`` is broken, with the key; ``head.safetensors`` is, or holds another head.
    """
    path = folder / SHARED_HEAD
    about = read_object(path)
    teachers, widths, labels = about.get("teachers"), about.get("widths"), about.get("labels")
    if not isinstance(teachers, list) or not teachers or not all(isinstance(name, str) for name in teachers):
        raise refused(path, "teachers", "is not a list of names", '["bert", "roberta"]', teachers)
    for name in teachers:
        if not _NAME.fullmatch(name) or teachers.count(name) > 1:
            raise refused(path, "teachers", "is not the name of a folder, given once", "letters, digits, _ and -", name)
    if not isinstance(widths, dict) or set(widths) != set(teachers):
        raise refused(path, "widths", "does not give each teacher its width", ", ".join(teachers), widths)
    for name, width in widths.items():
        if type(width) is not int or not 1 <= width <= _WIDEST:
            raise refused(path, f"widths.{name}", "is not a width", f"1 to {_WIDEST:,}", width)
    if about.get("pooling") not in get_args(Pooling):
        raise refused(path, "pooling", "is no kind of pooling", ", ".join(get_args(Pooling)), about.get("pooling"))
    kind = about.get("kind", "classification")
    if not isinstance(kind, str) or kind not in kinds():
        raise refused(path, "kind", "is no kind of task", ", ".join(kinds()), kind)
    fewest = kinds()[kind].fewest_outputs
    if (
        not isinstance(labels, list)
        or len(labels) < fewest
        or not all(isinstance(name, str) and name.strip() for name in labels)
    ):
        raise refused(path, "labels", "is not a list of class names", '["negative", "positive"]', labels)
    if len(set(labels)) < len(labels):
        raise refused(path, "labels", "names a class twice", "each class once", labels)
    found = SharedHeadFile(
        tuple(teachers), {name: widths[name] for name in teachers}, about["pooling"], tuple(labels), kind
    )  # fmt: skip
    _check_weights(folder / HEAD_WEIGHTS, path, found)
    return found


def shared_head_of(folder: Path) -> Path | None:
    """The folder of the shared head that a teacher was co-finetuned with, or None where it was not.

    Raises:
        RequestError: the head above it is broken.
    """
    above = folder.resolve().parent
    if not (above / SHARED_HEAD).is_file():
        return None
    return above if folder.resolve().name in read_shared_head(above).teachers else None


def _check_weights(weights: Path, path: Path, about: SharedHeadFile) -> None:
    from safetensors import SafetensorError, safe_open

    if not weights.is_file():
        raise RequestError(Problem(str(weights), f"is not there, though {path.name} is", "the weights of the shared head"))
    try:
        with safe_open(weights, "pt") as tensors:
            there = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise RequestError(
            Problem(str(weights), "is broken", "a whole safetensors file", brief(str(error)), "copy it again")
        ) from error
    wanted = about.shapes()
    for name in sorted(there.keys() | wanted.keys()):
        if there.get(name) != wanted.get(name):
            raise RequestError(
                Problem(
                    str(weights), f"does not hold the head that {path} describes: {brief(name)}",
                    str(list(wanted[name])) if name in wanted else "no such tensor",
                    str(list(there[name])) if name in there else "no such tensor",
                )
            )  # fmt: skip
