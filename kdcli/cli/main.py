"""The program as earlier installations of it call it."""

from kdcli.cli.app import app
from kdcli.cli.start import main

__all__ = ["app", "main"]
