"""A request with its recipe read and the machine looked at; everything that follows goes by these answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kdcli.plan.hardware import Precision, resolve_device, resolve_precision
from kdcli.plan.request import TrainRequest
from kdcli.recipe import catalogue, loading
from kdcli.recipe.loading import LoadedRecipe
from kdcli.recipe.yaml_document import KeyPath


@dataclass(frozen=True)
class Asked:
    """What was asked for.

    Attributes:
        request: the flags.
        loaded: the recipe that they name, with their values in place.
        device: where the training runs.
        precision: what it computes in.
    """

    request: TrainRequest
    loaded: LoadedRecipe
    device: torch.device
    precision: Precision


def load_recipe(request: TrainRequest) -> LoadedRecipe:
    """The recipe that the request names, with its overrides in place.

    Raises:
        RequestError: with every mistake in it.
    """
    return loading.load(catalogue.find(request.recipe), request.overrides)


def on_this_machine(request: TrainRequest, loaded: LoadedRecipe) -> Asked:
    """The request and its recipe, with the device and the precision that this machine has for them.

    Raises:
        RequestError: it has none.
    """
    device = resolve_device(request.device)
    return Asked(request, loaded, device, resolve_precision(loaded.recipe.training.precision, device, _place(loaded)))


def _place(loaded: LoadedRecipe) -> str:
    """Where the precision was written; flags say so themselves."""
    path: KeyPath = ("training", "precision")
    place = loaded.document.place(path)
    return place if place.startswith("--") else loaded.document.where(path)
