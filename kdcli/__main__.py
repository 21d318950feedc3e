"""Lets ``python -m kdcli`` and ``accelerate launch -m kdcli`` start the command line."""

from kdcli.cli.start import main

if __name__ == "__main__":
    main()
