"""The files that one model becomes: fp32, fp16, bf16, int8 with dynamic and with static ranges."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcli.errors import Problem, RequestError, did_you_mean
from kdcli.export.file_names import FILES
from kdcli.export.gate import Check, Examiner
from kdcli.export.graph import GraphSettings, write_graph
from kdcli.export.quantisation import (
    Calibration,
    Feed,
    Settings,
    by_harm,
    products,
    quantise_dynamic,
    quantise_embeddings,
    quantise_static,
)
from kdcli.export.sessions import open_session

DEFAULT = ("fp32", "int8")
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_MOST_EXCLUDED = 0.5


def parse_precisions(text: str) -> tuple[str, ...]:
    """``fp32,int8`` → the names, each once, in the order of :data:`FILES`.

    Raises:
        RequestError: one of them is unknown.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    problems = [
        Problem("--precision", f"there is no precision {name}", "of " + ", ".join(FILES), remedy=did_you_mean(name, FILES))
        for name in asked
        if name not in FILES
    ]
    if problems or not asked:
        raise RequestError(problems or Problem("--precision", "is empty", "of " + ", ".join(FILES)))
    return tuple(name for name in FILES if name in asked)


@dataclass(frozen=True)
class Asked:
    """How the files are to be made.

    Attributes:
        graph: what all graphs have in common.
        max_drop: points of the task's metric that a variant may lose.
        reduce_range: 7 bits for weights, for processors without VNNI.
        embeddings: quantise the embedding tables too, in the int8 variants.
        calibration: how the static variant's ranges are found.
        threads, device: where the files are checked.
    """

    graph: GraphSettings = field(default_factory=GraphSettings)
    max_drop: float = 0.5
    reduce_range: bool = False
    embeddings: bool = True
    calibration: Calibration = "percentile"
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Variant:
    """One file, and whether it may be used.

    Attributes:
        precision: one of :data:`FILES`.
        path: the file, inside of the folder that it was written to.
        bytes: its size.
        check: what was found out about it; None if it could not be run.
        broken: why it was deleted, or None.
        excluded: products that stayed in fp32, because quantising them cost too much of the score.
        nodes: how many nodes of each kind the graph has, before quantisation.
    """

    precision: str
    path: Path
    bytes: int
    check: Check | None
    broken: str | None
    excluded: tuple[str, ...] = ()
    nodes: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Workshop:
    """Writes the variants of one model into one folder and checks them.

    Attributes:
        model: a classifier in fp32, in eval mode, on the CPU.
        example: tokenised text, as :func:`write_graph` takes it.
        feeds: batches of text for calibration, not of the split that is judged on.
        about: metadata for all files.
        note: told what the user should know while it goes on.
    """

    model: Any
    example: Mapping[str, Tensor]
    feeds: Sequence[Feed]
    about: Mapping[str, str]
    examiner: Examiner
    asked: Asked
    folder: Path
    note: Callable[[str], None]

    def make(self, precision: str) -> Variant:
        """Write one variant and check it; what does not hold is deleted again."""
        path = self.folder / FILES[precision]
        if precision == "fp32":
            return self._finished(precision, path, self._graph(path, self.model, precision))
        if precision in _DTYPES:
            model = copy.deepcopy(self.model).to(_DTYPES[precision])
            return self._finished(precision, path, self._graph(path, model, precision))
        return self._quantised(precision, path)

    def _graph(self, path: Path, model: Any, precision: str, packed: bool = True) -> dict[str, int]:
        about = dict(self.about) | {"precision": precision}
        return write_graph(model, self.example, path, about, replace(self.asked.graph, packed=packed))

    def _finished(self, precision: str, path: Path, nodes: Mapping[str, int], excluded: Sequence[str] = ()) -> Variant:
        """The variant as it stands in the file, which is deleted if it does not hold."""
        size, check = path.stat().st_size, None
        try:
            check = self.examiner.check(open_session(path, self.asked.threads, self.asked.device))
            broken = check.broken(precision == "fp32", self.asked.max_drop)
        except RequestError as error:
            why = error.problems[0].found or error.problems[0].what
            broken = (
                f"ONNX Runtime cannot run {precision} on {self.asked.device} here, so nobody can say what it is worth ({why})"
            )
        if broken is not None:
            path.unlink()
        return Variant(precision, path, size, check, broken, tuple(excluded), nodes)

    def _quantised(self, precision: str, path: Path) -> Variant:
        """Quantise all products, and if that costs too much, leave out those that do the most harm, one, two, four, …"""
        plain = path.with_name(f".{path.name}.fp32")
        nodes = self._graph(plain, self.model, precision, packed=precision == "int8")
        try:
            write = self._quantiser(precision, plain)
            write(path, Settings(self.asked.reduce_range))
            found = self._finished(precision, path, nodes)
            if found.broken is None or found.check is None:
                return found
            names = products(plain)
            self.note(f"{precision}: {found.broken}; looking for products that are better left in fp32")
            few = self._quantiser(precision, plain, few=True)
            worst = by_harm(
                names,
                lambda name, target: few(target, Settings(self.asked.reduce_range, only=(name,))),
                lambda target: self.examiner.harm(open_session(target, self.asked.threads, self.asked.device)),
            )
            for count in _counts(min(len(worst), int(_MOST_EXCLUDED * len(names)))):
                write(path, Settings(self.asked.reduce_range, exclude=tuple(worst[:count])))
                better = self._finished(precision, path, nodes, worst[:count])
                if better.broken is None:
                    return better
            return found
        finally:
            plain.unlink(missing_ok=True)

    def _quantiser(self, precision: str, plain: Path, few: bool = False) -> Callable[[Path, Settings], None]:
        feeds = self.feeds[:4] if few else self.feeds

        def write(target: Path, settings: Settings) -> None:
            if precision == "int8":
                quantise_dynamic(plain, target, settings)
            else:
                quantise_static(plain, target, settings, feeds, self.asked.calibration)
            if self.asked.embeddings and settings.only is None:
                quantise_embeddings(target)

        return write


def _counts(most: int) -> list[int]:
    """1, 2, 4, … and at last ``most``."""
    doubled = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*doubled, most] if most else []
