"""Engines draw completions of token-id prompts; all of them keep one Protocol."""

from sampling.engine.protocol import Completion, Engine, Request, SamplingOptions
from sampling.engine.server import ServerEngine
from sampling.engine.transformers import LoadedEngine, TransformersEngine
from sampling.engine.vllm import VllmEngine

__all__ = [
    "Completion", "Engine", "LoadedEngine", "Request", "SamplingOptions", "ServerEngine", "TransformersEngine",
    "VllmEngine",
]  # fmt: skip
