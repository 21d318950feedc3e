"""One file per loss: what a recipe may write of it, what it needs of the models, and what it is held against them for.

Every file of this package is found by :mod:`kdcli.recipe.loss_blocks`; the term that computes a loss is in ``kdcli/losses/``,
in a file of the same name.
"""
