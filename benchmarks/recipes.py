r"""Recipes side by side: the same teachers, data, seeds and student, one score per recipe, task and seed.

    python benchmarks/recipes.py --teachers bert=./minilm-l6,roberta=./minilm-bpe --student 3L --seeds 0,1 \
        --recipes finetune soft-labels kdcli "soft=kdcli --set stages.0.objective.2.weight=0" \
        --tasks trec=./trec sst2=./SST-2:8000

Each task is NAME=DATA or NAME=DATA:ROWS; a NAME that kdcli knows (sst2, rte, …) is read by its preset. Each recipe is the name
of a shipped one, a file, or LABEL=RECIPE with further flags. The teachers are co-finetuned once per task and seed and shared by
all recipes. Runs that are there already are not made again. Prints a Markdown table of dev scores: mean over the seeds, with
the lowest and highest, and the mean rank over tasks and seeds (1 is best). Recipes are to be chosen by it, not by the test
split, which ``--split test`` shows at the end.
"""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running import Job, cell, kdcli
from scipy.stats import rankdata


@dataclass(frozen=True)
class Candidate:
    """One recipe with its flags."""

    label: str
    flags: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Candidate:
        """Read RECIPE, or LABEL=RECIPE FLAGS…."""
        label, equals, rest = text.partition("=")
        if not equals or " " in label:
            return cls(text, ("--recipe", text))
        recipe, *more = shlex.split(rest)
        return cls(label, ("--recipe", recipe, *more))


def teachers_of(job: Job, seed: int, options: argparse.Namespace) -> Path:
    """The folder of the teachers, co-finetuned if they are not there yet."""
    folder = Path(options.out) / f"{job.name}-{seed}-teachers"
    if not (folder / "evaluation.json").is_file():
        resume = ["--resume"] if (folder / "plan.yaml").is_file() else []
        begin = ["cofinetune", "--teachers", options.teachers, "--seed", str(seed), "--out", str(folder), *resume]
        kdcli(*begin, *job.flags(), *shlex.split(options.teacher_flags))
    return folder


def score(job: Job, seed: int, candidate: Candidate, options: argparse.Namespace) -> dict[str, Any]:
    """What ``kdcli evaluate --json`` says of the run, which is made if it is not there yet."""
    folder = Path(options.out) / f"{job.name}-{seed}-{candidate.label}"
    if not (folder / "evaluation.json").is_file():
        resume = ["--resume"] if (folder / "plan.yaml").is_file() else []
        begin = [
            "distill",
            "--teachers",
            str(teachers_of(job, seed, options)),
            "--seed",
            str(seed),
            "--out",
            str(folder),
            *resume,
        ]
        flags = [*job.flags(), "--student", options.student, *shlex.split(options.more), *candidate.flags]
        kdcli(*begin, "--allow-weak-teachers", *flags)
    found: dict[str, Any] = json.loads(kdcli("evaluate", str(folder), "--json", "--quiet", "--split", options.split))
    return found


def student_score(found: dict[str, Any]) -> float:
    """The student's figure that decides."""
    return float(next(model for model in found["models"] if model["role"] == "student")["scores"][found["metric"]])


def best_teacher(found: dict[str, Any]) -> float:
    """The best teacher's figure that decides."""
    return max(
        (float(model["scores"][found["metric"]]) for model in found["models"] if model["role"] == "teacher"), default=0.0
    )


def main() -> None:
    """Run all combinations and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", type=Job.parse, required=True, metavar="NAME=DATA[:ROWS]")
    parser.add_argument("--recipes", nargs="+", type=Candidate.parse, required=True, metavar="RECIPE")
    parser.add_argument("--teachers", required=True)
    parser.add_argument("--student", default="3L")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--split", default="dev", choices=["dev", "test"])
    parser.add_argument("--out", default="runs/recipes")
    parser.add_argument("--teacher-flags", default="", help="further flags for kdcli cofinetune")
    parser.add_argument("--more", default="", help="further flags for kdcli distill, the same for all recipes")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    columns: list[list[float]] = []
    teachers: list[list[float]] = []
    names = []
    for job in options.tasks:
        for seed in seeds:
            found = [score(job, seed, candidate, options) for candidate in options.recipes]
            columns.append([student_score(one) for one in found])
            teachers.append([max(best_teacher(one) for one in found)])
        names.append(f"{job.name}, {found[0]['metric']}")
    ranks = [rankdata([-value for value in column]) for column in columns]
    print(f"| recipe | {' | '.join(names)} | mean rank |")
    print("|---|" + "---|" * (len(names) + 1))
    count = len(seeds)
    best = [[values[0] for values in teachers[begin : begin + count]] for begin in range(0, len(teachers), count)]
    print(f"| best teacher | {' | '.join(map(cell, best))} | |")
    order = sorted(range(len(options.recipes)), key=lambda row: sum(rank[row] for rank in ranks))
    for row in order:
        cells = [cell([column[row] for column in columns[begin : begin + count]]) for begin in range(0, len(columns), count)]
        rank = sum(rank[row] for rank in ranks) / len(ranks)
        print(f"| {options.recipes[row].label} | {' | '.join(cells)} | {rank:.2f} |")


if __name__ == "__main__":
    main()
