"""Flags in, tables out. Importing this package imports no torch."""
