"""Searching over a recipe's values: trials that Optuna draws, each an ordinary run per seed, ranked by dev score."""
