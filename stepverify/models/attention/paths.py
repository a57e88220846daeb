"""Compute attention of each token to its path by fused kernels.

On CPUs each piece of a tree takes a call (:mod:`stepverify.models.attention.pieces`). On NVIDIA GPUs one ragged call
computes everything, aligned at the last key of each sequence. Neither has a mask, except for windows on CPUs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stepverify.data.batch import Tree
from stepverify.models.attention.dense import sdpa
from stepverify.models.attention.pieces import attend_pieces, by_token

_HALF = (torch.bfloat16, torch.float16)
_FLASH_WIDTH = 256  # largest width of a head for flash kernels on GPUs
_BOTTOM_RIGHT = 2  # causal mask aligned at the last query and key, for ``_efficient_attention_forward``


def paths(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Attend along paths; arguments as in :func:`stepverify.models.attention.attend`.

    Without dropout and softcap. Devices other than CPUs and NVIDIA GPUs have no such kernels and use ``sdpa``.
    """
    wide = value.shape[-1]
    query, key, value = _alike(query, key, value)
    if window is not None and window >= tree.rows.shape[1]:
        window = None
    if query.device.type == "cpu":
        calls = tree.segments if window is None else tree.suffixes
        query, key, value = _cast(query, key, value)
        out = attend_pieces(query, key, value, calls, scale, window)
    elif query.device.type == "cuda" and (window is None or _takes_flash(query)):
        out = _ragged(query, key, value, tree, scale, window)
    else:
        out = sdpa(query, key, value, tree, 0.0, scale, window, None)
    return out[..., :wide]


def _alike(*heads: Tensor) -> list[Tensor]:
    """Pad heads with zeros to one width, a multiple of 8.

    Fused kernels need that; the products do not change.
    """
    wide = -(-max(x.shape[-1] for x in heads) // 8) * 8
    return [x if x.shape[-1] == wide else F.pad(x, (0, wide - x.shape[-1])) for x in heads]


def _cast(*tensors: Tensor) -> list[Tensor]:
    """Cast to autocast's dtype, as SDPA does."""
    return [x.to(_format(x)) for x in tensors]


def _format(tensor: Tensor) -> torch.dtype:
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


# ── GPUs ──────────────────────────────────────────────────────────────────────────────────────────


def _ragged(query: Tensor, key: Tensor, value: Tensor, tree: Tree, scale: float, window: int | None) -> Tensor:
    """Attend in one call: suffixes as queries, paths as keys."""
    calls, longest = tree.suffixes, tree.rows.shape[1]
    ends = F.pad(calls.calls[:, [3, 1]], (0, 0, 1, 0)).int()
    starts = [ends[:, 0].contiguous(), ends[:, 1].contiguous()]
    # Gather before rounding to half precision, so that gradients are summed in the parameters' precision.
    gathered = [by_token(x).index_select(0, calls.keys) for x in (key, value)]
    q, k, v = _cast(by_token(query), *gathered)
    if _takes_flash(query):
        left, right = (-1, -1) if window is None else (window - 1, 0)
        out = torch.ops.aten._flash_attention_forward(
            q, k, v, *starts, longest, longest, 0.0, window is None, False, scale=scale,
            window_size_left=left, window_size_right=right,
        )[0]  # fmt: skip
    else:
        groups = query.shape[1] // key.shape[1]
        out = torch.ops.aten._efficient_attention_forward(
            q[None], k.repeat_interleave(groups, 1)[None], v.repeat_interleave(groups, 1)[None], None,
            *starts, longest, longest, 0.0, _BOTTOM_RIGHT, True, scale=scale,
        )[0][0]  # fmt: skip
    return out.transpose(0, 1)[None]


def _takes_flash(query: Tensor) -> bool:
    """Check whether a GPU's flash kernel applies.

    It needs half precision, a limited head width and compute capability 8.
    """
    return _format(query) in _HALF and query.shape[-1] <= _FLASH_WIDTH and _has_flash(query.device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_flash(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)
