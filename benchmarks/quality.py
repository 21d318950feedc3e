r"""Student against teachers and against the same student without teachers, on several tasks and seeds.

    python benchmarks/quality.py --teachers bert=./minilm-l6,roberta=./minilm-bpe --seeds 0,1 --out runs/quality \
        trec=./trec banking77=./banking77 sst2=./SST-2:8000

Each task is NAME=DATA or NAME=DATA:ROWS; a NAME that kdcli knows (sst2, rte, …) is read by its preset, any other as a folder
with train and test files. Runs that are there already are not made again. Prints a Markdown table: score on the test split
where there is one, else on dev (on which the checkpoint was chosen), as mean (lowest–highest) over the seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from running import Job, cell, kdcli

FLAGS = ["--learning-rate", "2e-4", "--set", "teachers.cofinetune.learning_rate=1e-4", "--baseline"]


def run(job: Job, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Make the run if it is not there, and score it."""
    folder = Path(options.out) / f"{job.name}-{seed}"
    if not (folder / "evaluation.json").is_file():
        command = ["distill", "--teachers", options.teachers, "--student", options.student, "--seed", str(seed)]
        kdcli(*command, "--out", str(folder), *job.flags(), *FLAGS, *options.more.split())
    found: dict[str, Any] = json.loads(kdcli("evaluate", str(folder), "--json", "--quiet"))
    return found


def row(job: Job, found: list[dict[str, Any]]) -> str:
    """One task's line of the table."""
    metric, split = found[0]["metric"], found[0]["split"]

    def scores(role: str) -> list[list[float]]:
        return [[model["scores"][metric] for model in one["models"] if model["role"] == role] for one in found]

    student, alone = ([values[0] for values in scores(role)] for role in ("student", "without-teachers"))
    teachers = [cell(list(values)) for values in zip(*scores("teacher"), strict=True)]
    kept = [model["retention"] for one in found for model in one["models"] if model["role"] == "student"]
    name = job.name + (f", {job.rows} training rows" if job.rows else "")
    what = f"{name} ({split}, {found[0]['rows']} rows, {metric}, {len(found)} seed{'s' if len(found) > 1 else ''})"
    return f"| {what} | {cell(student)} | {cell(alone)} | {' / '.join(teachers)} | {cell(kept)} |"


def main() -> None:
    """Run all tasks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", type=Job.parse, metavar="NAME=DATA[:ROWS]")
    parser.add_argument("--teachers", required=True)
    parser.add_argument("--student", default="3L")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", default="runs/quality")
    parser.add_argument("--more", default="", help="further flags for kdcli distill")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    lines = [row(job, [run(job, seed, options) for seed in seeds]) for job in options.jobs]
    print("| task | student | same student, no teachers | teachers | of the best teacher |")
    print("|---|---|---|---|---|")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
