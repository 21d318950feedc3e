"""Checkpoints from the Hub, or from its cache on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from kdcli.errors import Problem, RequestError
from kdcli.models.weights import has_weights


def snapshot(hub_id: str, flag: str, patterns: list[str], check_weights: bool = False) -> Path:
    """The folder on this machine that holds the Hub repository's files of the given patterns.

    Raises:
        RequestError: the Hub is out of reach, the repository is not open, or it has no safetensors weights.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    ignore = ["*/*", "*.bin", "*.msgpack", "*.h5", "*.onnx"]
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=ignore))
        if check_weights and not has_weights(folder) and not os.environ.get("HF_HUB_OFFLINE"):
            files = HfApi().list_repo_files(hub_id)
            if not any(file.endswith(".safetensors") for file in files):
                raise RequestError(Problem(f"{flag} {hub_id}", "has no safetensors weights on the Hub", "model.safetensors"))
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise RequestError(
            Problem(f"{flag} {hub_id}", "is not on the Hub, or not open to you", remedy="hf auth login")
        ) from error
    except RequestError:
        raise
    except Exception as error:  # huggingface_hub raises many types when the Hub is out of reach
        offline = " (offline mode is on)" if os.environ.get("HF_HUB_OFFLINE") else ""
        local = hub_id.split("/")[-1]
        raise RequestError(
            Problem(
                f"{flag} {hub_id}",
                f"the model is not on this machine and the Hub cannot be reached{offline}",
                "a connection, or a folder on this machine",
                f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:140]}",
                f"on a connected machine: hf download {hub_id} --local-dir {local}; then {flag} NAME=./{local}",
            )
        ) from error
    return folder
