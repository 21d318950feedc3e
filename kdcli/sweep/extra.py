"""Optuna is an extra: whether it is there, and what to do where it is not."""

from __future__ import annotations

from importlib.util import find_spec

from kdcli.errors import Problem, RequestError


def require_optuna() -> None:
    """Refuse a sweep where Optuna is not installed.

    Raises:
        RequestError: with the command that installs it.
    """
    if find_spec("optuna") is None:
        raise RequestError(Problem("--sweep", "needs Optuna, which is not installed", remedy="pip install 'kdcli[sweep]'"))
