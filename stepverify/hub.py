"""Find exports in local folders and on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from stepverify.records import InputError


def local_export(path: str, revision: str | None = None) -> str:
    """Return the folder of an export; download it if needed.

    Of a Hub repository, the files in its root and ``classifier/`` are downloaded, once; adapters are left out.

    Args:
        path: a local folder, or the id of a Hub repository (``name/repository``).
        revision: branch, tag or commit of the repository.

    Raises:
        InputError: no such folder, and no such repository that can be read from here.
    """
    if Path(path).is_dir():
        return path
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise InputError(f"{path}: not an exported verifier (no such folder)")
    import huggingface_hub

    try:
        return huggingface_hub.snapshot_download(path, revision=revision, ignore_patterns=["adapter/*"])
    except (OSError, ValueError) as error:  # errors of the Hub, the network and the cache
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            reason = "it is not in the Hub's cache, and HF_HUB_OFFLINE is set: unset it to download"
        else:
            reason = f"it could not be downloaded from the Hub: {str(error).splitlines()[0]}"
        raise InputError(f"{path}: no such folder, and {reason}") from None
