"""Requests that vLLM and the embedded engine complete alike."""

from sampling.engines import Request, SamplingOptions
from stepverify.readers import Synthetic
from tests.helpers.engines import complete_all

CONTEXT = 512
PROBLEMS = [p.problem for p in Synthetic("test", 4, worked=False).problems()]


def complete(engine, requests, **options):
    settled = {"temperature": 1.0, "max_tokens": 24} | options
    return complete_all(engine, requests, SamplingOptions(**settled))


def without_edges(sampled):
    """vLLM keeps the space in front of a completion that a tokenizer may drop; steps are stripped anyway."""
    return {key: [(c.token_ids, c.text.strip(), c.finish) for c in completions] for key, completions in sampled.items()}


def one_each(prompts, n=1, seed=0):
    """A request for each prompt."""
    return [Request(f"p/{i}", prompt, n, seed + 100 * i) for i, prompt in enumerate(prompts)]
