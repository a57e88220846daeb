"""Heads: hidden states are picked at the read positions first, then the head is applied to those alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from stepverify.data.batch import Batch
from stepverify.data.encode import SolutionEncoder, load_tokenizer
from stepverify.layout import load_export
from stepverify.losses import bounded, token_nll
from stepverify.models.attention import register
from stepverify.models.backbone import Backbone, without_adapters
from stepverify.models.export import merged, save_causal, save_classifier
from stepverify.records import InputError

CLASSIFIER = "classifier"  # folder of a process reward model's second form, and that form's name


class ReadModel(nn.Module):
    """A backbone that is read at ``batch.reads``; a subclass per objective adds the head.

    Args:
        backbone: a Hugging Face causal language model, perhaps with adapters.
    """

    objective = ""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        config: Any = without_adapters(backbone).config
        # Gemma 2 bounds its logits; with the same bound here they are what the exported model says.
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        for key in ("logits_scaling", "logit_scale"):
            if getattr(config, key, 1) != 1:
                raise InputError(f"{config.model_type}: models that scale their logits ({key}) are not supported")

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What is read at ``batch.reads``, and the losses in nats at ``batch.language`` if there is any."""
        states = self._states(batch)
        outputs = self.read(states[batch.reads.index], batch)
        if batch.language is None:
            return outputs, None
        assert batch.language.targets is not None
        return outputs, self.token_nll(states[batch.language.index], batch.language.targets)

    def read(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Apply the head to (M, D) hidden states at the read positions."""
        raise NotImplementedError

    def score(self, batch: Batch) -> Tensor:
        """(M,) probabilities in [0, 1] at the read positions."""
        return self.values(self(batch)[0])

    def _states(self, batch: Batch) -> Tensor:
        """(L, D) hidden states."""
        decoder = without_adapters(self.backbone).get_decoder()  # type: ignore[operator]
        return decoder(
            input_ids=batch.input_ids[None],
            position_ids=batch.tree.depth[None],
            use_cache=False,
            tree=batch.tree,
        ).last_hidden_state[0]

    def token_nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """(M,) negative log-likelihoods of (M,) token ids after (M, D) hidden states, in nats."""
        return token_nll(hidden, *self.output_matrix(), targets, softcap=self.softcap)

    def output_matrix(self) -> tuple[Tensor, Tensor | None]:
        """(V, D) weight and (V,) bias, if any, of the vocabulary head."""
        head = without_adapters(self.backbone).get_output_embeddings()  # type: ignore[operator]
        return head.weight, head.bias

    def values(self, outputs: Tensor) -> Tensor:
        """Outputs of :meth:`read` → (M,) probabilities in [0, 1]."""
        raise NotImplementedError

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write a Hugging Face model that holds ``state``, this module's full (gathered) state."""
        save_causal(without_adapters(self.backbone), self._plain(state), folder)

    def _plain(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The part of ``state`` that is the Hugging Face model's, adapters merged."""
        return merged(self.backbone, _strip(state, "backbone."))


class GeneratorModel(ReadModel):
    """The generator: next-token likelihood at solution tokens."""

    objective = "generator"

    def read(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(M,) negative log-likelihoods of the targets, in nats."""
        assert batch.reads.targets is not None
        return self.token_nll(hidden, batch.reads.targets)

    def values(self, outputs: Tensor) -> Tensor:
        """The probability of each token."""
        return (-outputs).exp()


class OutcomeModel(ReadModel):
    """The outcome verifier: one value logit a token (Cobbe et al. 2021).

    Args:
        backbone: a causal language model, or an exported one-label token classifier, whose head is taken over.
    """

    objective = "outcome"

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        trained = getattr(backbone, "score", None)
        if trained is None:
            width = without_adapters(backbone).config.hidden_size  # type: ignore[union-attr]
            self.value_head = nn.Linear(width, 1)  # type: ignore[arg-type]
            # Starts at value 1/2 everywhere instead of at random opinions.
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        else:
            self.value_head = trained

    def read(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(M,) value logits."""
        return self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1)

    def values(self, outputs: Tensor) -> Tensor:
        """The chance that the solution's answer is right."""
        return outputs.float().sigmoid()

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write a one-label ``AutoModelForTokenClassification``: it loads without code of ours."""
        head = _strip(state, "value_head.")
        causal = without_adapters(self.backbone)
        save_classifier(causal, self._plain(state), head["weight"], head["bias"], ["right"], folder)


class ProcessModel(ReadModel):
    """The process reward model: the two label tokens' logits at each step tag (Lightman et al. 2023, section 2.6).

    Args:
        backbone: a causal language model.
        label_ids: ids of the labels, negative first.
    """

    objective = "process"

    def __init__(self, backbone: nn.Module, label_ids: tuple[int, int]) -> None:
        super().__init__(backbone)
        rows = self.output_matrix()[0].shape[0]
        if max(label_ids) >= rows:
            raise InputError(f"label id {max(label_ids)} is outside the model's {rows} output rows")
        self.register_buffer("label_ids", torch.tensor(label_ids), persistent=False)

    def read(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(M, 2) logits of the labels: two rows of the output matrix, not the vocabulary."""
        weight, bias = self.output_matrix()
        ids: Tensor = self.label_ids  # type: ignore[assignment]
        logits = nn.functional.linear(hidden, weight[ids], None if bias is None else bias[ids])
        return bounded(logits, self.softcap)

    def values(self, outputs: Tensor) -> Tensor:
        """The chance that the step is right."""
        return outputs.float().softmax(-1)[:, 1]

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the causal model, and in ``classifier/`` the same with the labels' two output rows as its only head."""
        causal, plain = without_adapters(self.backbone), self._plain(state)
        save_causal(causal, plain, folder)
        if self.softcap is not None:
            rank_zero_info("no two-label classifier is exported: its logits could not be bounded as this model's are")
            return
        matrix = self.output_matrix()[0]
        name = next(n for n, p in causal.named_parameters() if p is matrix)
        ids: Tensor = self.label_ids.cpu()  # type: ignore[assignment]
        bias = plain.get(name.removesuffix("weight") + "bias", torch.zeros(len(plain[name])))
        labels = ["wrong", "right"]
        try:
            save_classifier(causal, plain, plain[name][ids], bias[ids], labels, folder / CLASSIFIER)
        except ValueError as error:
            rank_zero_info(f"no two-label classifier is exported: {str(error).splitlines()[0]}")


class StepClassifier(ReadModel):
    """A process reward model in its two-label form.

    Args:
        backbone: an exported token classifier with the labels wrong and right.
    """

    objective = "process"

    def read(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(M, 2) logits of wrong and right."""
        return self.backbone.score(hidden)  # type: ignore[operator]

    values = ProcessModel.values


def load_verifier(path: str, dtype: Any = "float32") -> tuple[ReadModel, SolutionEncoder, dict[str, Any]]:
    """An exported verifier, in evaluation mode, with its encoder and the facts stored with it.

    Raises:
        InputError: not an export of a verifier, or its tokenizer no longer gives the stored ids.
    """
    export = load_export(path)
    if export is None or export[1].get("objective") not in ("outcome", "process"):
        raise InputError(
            f"{path}: not an exported verifier (its stepverify.json must say objective: outcome or process)"
        )
    layout, facts = export
    encoder = SolutionEncoder(load_tokenizer(path), layout, facts.get("max_length", 1024))
    if facts["objective"] == "process":
        now = {"tag": encoder.tag_id, "negative": encoder.label_ids[0], "positive": encoder.label_ids[1]}
        if facts.get("ids") != now:
            raise InputError(f"{path}: trained with ids {facts.get('ids')}, but its tokenizer now gives {now}")
        model: ReadModel
        if facts.get("form") == CLASSIFIER:
            model = StepClassifier(_load_classifier(path, dtype))
        else:
            model = ProcessModel(Backbone(path=path, dtype=dtype).load(), encoder.label_ids)
    else:
        model = OutcomeModel(_load_classifier(path, dtype))
    return model.eval(), encoder, facts


def _load_classifier(path: str, dtype: str) -> nn.Module:
    from transformers import AutoModelForTokenClassification

    try:
        return AutoModelForTokenClassification.from_pretrained(
            path, dtype=dtype if dtype == "auto" else getattr(torch, dtype), attn_implementation=register("auto")
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no token classifier could be loaded: {str(error).splitlines()[0]}") from None


def _strip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
