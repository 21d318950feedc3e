"""The recipe language: what supervises what, in YAML. Pure Python; nothing here imports torch."""
