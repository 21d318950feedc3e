"""A script of the tests in two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_in_two_processes(module: str, *arguments: Path) -> None:
    """Run a module of the tests in two processes that know of each other, and see that both end well."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--module", module]
    done = subprocess.run(
        [*launch, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
