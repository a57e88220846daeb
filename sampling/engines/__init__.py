"""Complete token-id prompts with one of several engines.

All engines share one abstract class. Importing this package loads no model library.
"""

from sampling.engines.base import Completion, Engine, Message, Request, SamplingOptions
from sampling.engines.calculator import CalculatorEngine
from sampling.engines.ray import RayEngine
from sampling.engines.server import ServerEngine
from sampling.engines.transformers import LoadedEngine, TransformersEngine
from sampling.engines.vllm import VllmEngine

__all__ = [
    "CalculatorEngine", "Completion", "Engine", "LoadedEngine", "Message", "RayEngine", "Request", "SamplingOptions",
    "ServerEngine", "TransformersEngine", "VllmEngine",
]  # fmt: skip
