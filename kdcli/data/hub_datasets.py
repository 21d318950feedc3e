"""Data sets from the Hub, or from its cache on this machine."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING

from kdcli.data.table import Columns
from kdcli.errors import Problem, RequestError

if TYPE_CHECKING:
    import datasets


def go_offline_without_connection(name: str) -> None:
    """Look once whether the Hub answers; where it does not, only its cache on this machine is asked, without retries."""
    import datasets
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(name, timeout=10)
    except HfHubHTTPError:  # the Hub answered; what it said is reported by the loading
        return
    except Exception:  # the HTTP client raises many types without a connection
        constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True


def hub_columns(name: str, configuration: str | None, split: str, flag: str) -> Columns:
    """One split of a Hub dataset, class indices as class names.

    A class index of −1 (a hidden label), a null and NaN are missing values.

    Raises:
        KeyError: the split does not exist.
        RequestError: the data set cannot be loaded.
    """
    import datasets

    go_offline_without_connection(name)
    try:
        available = datasets.get_dataset_split_names(name, configuration)
        if split not in available:
            raise KeyError(split)
        dataset = datasets.load_dataset(name, configuration, split=split)
    except KeyError:
        raise
    except Exception as error:  # datasets raises many types for an unreachable Hub, an unknown name, a gated set
        offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("HF_DATASETS_OFFLINE")
        raise RequestError(
            Problem(
                flag,
                f"the Hub dataset {name} could not be loaded" + (" (offline mode is on)" if offline else ""),
                found=f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}",
                remedy="--data DIR with the files on this machine",
            )
        ) from error
    return columns_of(dataset, f"{name}:{split}")


def columns_of(dataset: datasets.Dataset, source: str) -> Columns:
    """A data set of the ``datasets`` library as a table of text."""
    columns = Columns({}, source, str(dataset._fingerprint)[:16], list(range(1, len(dataset) + 1)))
    for name, feature in dataset.features.items():
        values = list(dataset[name])
        missing = [row for row, value in enumerate(values) if _is_missing(value, feature)]
        structured = [row for row, value in enumerate(values) if isinstance(value, list | dict | tuple)]
        gone = set(missing)
        columns.cells[name] = ["" if row in gone else _as_text(value, feature) for row, value in enumerate(values)]
        if missing:
            columns.missing[name] = missing
        if structured:
            columns.structured[name] = structured
    return columns


def _is_missing(value: object, feature: object) -> bool:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return value is None or value == -1
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_text(value: object, feature: object) -> str:
    import datasets

    if isinstance(feature, datasets.ClassLabel) and isinstance(value, int):
        return str(feature.int2str(value))
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict | tuple) else str(value)
