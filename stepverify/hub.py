"""Find models and exports in local folders and on the Hugging Face Hub.

A repository is named ``name/repository``, or ``name/repository@revision`` with a branch, tag or commit.
"""

from __future__ import annotations

from pathlib import Path

from stepverify.records import InputError
from stepverify.suggest import looked_in
from stepverify.template import EXPORT_FILE

_SMALL = ("*.json", "*.txt", "*.jinja", "*.model", "*.py")
_NOT_READ = ("adapter/*", "original/*")  # adapters of exports, and Meta's own format
_NOT_OF_MODELS = (*_NOT_READ, "classifier/*")


def is_hub_id(path: str) -> bool:
    """Tell whether a path names a repository of the Hub: no local folder, and one slash."""
    return not path.startswith((".", "/", "~")) and path.count("/") == 1 and not Path(path).exists()


def split_revision(path: str) -> tuple[str, str | None]:
    """Split ``name/repository@revision``; the revision is None if there is none, or no repository."""
    if not is_hub_id(path):
        return path, None
    name, _, revision = path.partition("@")
    return name, revision or None


def local_export(path: str, revision: str | None = None) -> str:
    """Return the folder of an export; download it if needed.

    Of a Hub repository, all files but those of adapters are downloaded, once.

    Args:
        path: a local folder, or a Hub repository.
        revision: branch, tag or commit of the repository, in place of one in ``path``.

    Raises:
        InputError: no such folder, and no such repository that can be read from here.
    """
    if (folder := Path(path)).is_dir():
        if not (folder / "config.json").is_file() and (folder / "export").is_dir():
            raise InputError(f"{path}: is the run of `stepverify fit`, no export; did you mean {folder / 'export'}?")
        return path
    if not is_hub_id(path):
        raise InputError(f"{path}: not an exported verifier (no such folder){looked_in(path)}")
    return _snapshot(path, revision)


def local_model(path: str, weights: bool = True) -> str:
    """Return the folder of a model; download it if needed. Other names are returned as they are.

    Of a Hub repository with safetensors, no other weights are downloaded.

    Args:
        path: a local folder, a Hub repository, or a name that is neither.
        weights: False leaves the weights out, for tokenizer and template.

    Raises:
        InputError: as :func:`local_export`, for a repository.
    """
    if not is_hub_id(path):
        return path
    if not weights:
        return _snapshot(path, None, _SMALL, _NOT_OF_MODELS)
    folder = _snapshot(path, None, (*_SMALL, "*.safetensors"), _NOT_OF_MODELS)
    if any(Path(folder).glob("*.safetensors")):
        return folder
    return _snapshot(path, None, (*_SMALL, "*.bin"), _NOT_OF_MODELS)


def lacks_export_file(path: str) -> bool:
    """Tell whether a repository is known to have no :data:`EXPORT_FILE`.

    False if only the cache could be read, and does not say so.
    """
    import huggingface_hub

    if not huggingface_hub.constants.HF_HUB_OFFLINE:
        return True  # it was just asked for
    name, revision = split_revision(path)
    found = huggingface_hub.try_to_load_from_cache(name, EXPORT_FILE, revision=revision)
    return found is huggingface_hub._CACHED_NO_EXIST


def _snapshot(
    path: str, revision: str | None, allowed: tuple[str, ...] | None = None, ignored: tuple[str, ...] = _NOT_READ
) -> str:
    import huggingface_hub

    name, own = split_revision(path)
    patterns = None if allowed is None else [*allowed]
    try:
        return huggingface_hub.snapshot_download(
            name, revision=revision or own, allow_patterns=patterns, ignore_patterns=[*ignored]
        )
    except (OSError, ValueError) as error:  # errors of the Hub, the network and the cache
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            reason = "it is not in the Hub's cache, and HF_HUB_OFFLINE is set: unset it to download"
        else:
            reason = f"it could not be downloaded from the Hub: {str(error).splitlines()[0]}"
        raise InputError(f"{path}: no such folder, and {reason}{looked_in(path)}") from None
