"""Where a release lies: a folder, or a repository of the Hub of which only weights and settings are fetched, never code or pickles."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from plait.errors import CheckpointError

FILES = ("*.safetensors", "*.json", "*.jinja")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def fetch(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a release; a name of the Hub is downloaded once into the Hub's own cache.

    Args:
        source: a folder, or `owner/name`.
        revision: branch, tag or commit on the Hub.

    Raises:
        CheckpointError: there is no such folder, and it is no name of the Hub or the Hub does not give it.
    """
    if Path(source).is_dir():
        return Path(source)
    if not HUB_NAME.fullmatch(str(source)):
        raise CheckpointError(f"{source} is no folder and no name of the Hub. Expected a folder, or owner/name.")
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(FILES)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{source} is no folder here, and the Hub did not give it: {reason}. Next: check the name, accept the licence on its "
            "page and log in (`hf auth login`), or download it elsewhere and give the folder."
        ) from error
