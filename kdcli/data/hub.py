"""Data sets from the Hub, or from its cache on this machine."""

from __future__ import annotations

import os

from kdcli.data.readers import Columns
from kdcli.errors import Problem, RequestError


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
    """One split of a Hub dataset, class indices as class names. Raises KeyError where the split does not exist."""
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
    cells: dict[str, list[str]] = {}
    for column, feature in dataset.features.items():
        values = dataset[column]
        is_class = isinstance(feature, datasets.ClassLabel)
        cells[column] = [feature.int2str(value) if is_class else str(value) for value in values]
    lines = list(range(1, len(dataset) + 1))
    return Columns(cells, f"{name}:{split}", str(dataset._fingerprint)[:16], lines)
