"""Complete prompts by servers that speak OpenAI's protocol: vLLM's, llama.cpp's and others."""

from sampling.engines.server.engine import ServerEngine

__all__ = ["ServerEngine"]
