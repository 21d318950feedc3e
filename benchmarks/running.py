"""What the side-by-side scripts share: tasks as they are named on the command line, kdcli as a command, a table's cells."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass

from kdcli.data.presets import PRESETS


@dataclass(frozen=True)
class Job:
    """One task."""

    name: str
    data: str
    rows: int | None

    @classmethod
    def parse(cls, text: str) -> Job:
        """Read NAME=DATA[:ROWS]."""
        name, _, rest = text.partition("=")
        data, _, rows = rest.partition(":")
        return cls(name, data, int(rows) if rows else None)

    def flags(self) -> list[str]:
        """What is said to kdcli about the data."""
        flags = ["--data", self.data]
        if self.name in PRESETS:
            flags += ["--task", self.name]
        return flags + (["--train-rows", str(self.rows)] if self.rows else [])


def kdcli(*words: str) -> str:
    """Run a command and return what it prints; ends the script where the command fails."""
    print("kdcli", shlex.join(words), file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", "kdcli", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"kdcli {words[0]} ended with exit code {done.returncode}")
    return done.stdout


def cell(values: list[float]) -> str:
    """Mean, and the range where there is one."""
    mean = sum(values) / len(values)
    return f"{mean:.1%}" if len(values) == 1 else f"{mean:.1%} ({min(values):.1%}–{max(values):.1%})"
