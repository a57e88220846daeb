"""Engines draw completions of token-id prompts; all of them keep one Protocol."""

from sampling.engines.base import Completion, Engine, Request, SamplingOptions
from sampling.engines.server import ServerEngine
from sampling.engines.transformers import LoadedEngine, TransformersEngine
from sampling.engines.vllm import VllmEngine

__all__ = [
    "Completion", "Engine", "LoadedEngine", "Request", "SamplingOptions", "ServerEngine", "TransformersEngine",
    "VllmEngine",
]  # fmt: skip
