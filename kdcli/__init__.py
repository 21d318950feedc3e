"""kdcli: compress the transformer encoders you already have."""

__version__ = "0.1.0"
