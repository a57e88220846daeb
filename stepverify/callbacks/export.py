"""Every fit ends in a Hugging Face directory that carries layout, ids, objective and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities import rank_zero_info
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from stepverify import atomic
from stepverify.callbacks import checkpoints
from stepverify.callbacks.card import Card
from stepverify.callbacks.files import read_weights
from stepverify.layout import EXPORT_FILE
from stepverify.models.export import Form
from stepverify.modules import VerifierModule
from stepverify.records import InputError


class HuggingFaceExport(lightning.Callback):
    """Writes the trained model when fit ends, as a whole or not at all.

    Its weights are the last ones, or those of the best checkpoint where ``Checkpoints`` has a ``monitor``.
    The folder holds the model, adapters merged: a causal language model (generator, process reward model) or a
    one-label token classifier (outcome verifier; where transformers has none, a causal language model with
    ``value_head.safetensors``). Each further form is a folder in it that stands alone.

    Args:
        folder: where to; an export of an earlier fit there is replaced, anything else refused. None is ``export`` below
            the run's folder.
        classifier: write a process reward model as a token classifier of its two or three labels too, in
            ``classifier/``: the form that vLLM's pooling runner takes. Where there is none, the reason is logged.
        adapter: of a LoRA run, write the adapters alone too, in ``adapter/``, for peft.
        push_to_hub: repository (``user/name``) that the folder is uploaded to in the end; None keeps it here.
        private: make that repository private where it is new.
    """

    def __init__(
        self,
        folder: str | None = None,
        classifier: bool = True,
        adapter: bool = False,
        push_to_hub: str | None = None,
        private: bool = True,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.classifier, self.adapter = classifier, adapter
        self.push_to_hub, self.private = push_to_hub, private
        self._forms: dict[Form, str] = {}

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse before training what could not be written after it."""
        assert isinstance(pl_module, VerifierModule)
        if stage != "fit" or _writes_nothing(trainer):
            return
        source = pl_module.backbone_source
        if self.adapter and source.lora is None:
            raise InputError("HuggingFaceExport.adapter: there are no adapters; set model.init_args.backbone.lora")
        if self.adapter and source.weights == "random":
            raise InputError(
                "HuggingFaceExport.adapter: adapters of random weights are of no use; export the merged model alone"
            )
        if trainer.is_global_zero:
            _check_folder(self._target(trainer))
            if self.push_to_hub is not None:
                _check_hub(self.push_to_hub)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Settle the forms: an architecture without a token classifier is found out here, not at the end."""
        assert isinstance(pl_module, VerifierModule)
        model = pl_module.model
        assert model is not None
        if _writes_nothing(trainer):
            return
        self._forms = {model.form: "."}
        if model.form == "classifier":
            model.check_classifier()
        elif model.labels and self.classifier:
            try:
                model.check_classifier()
                self._forms["classifier"] = "classifier"
            except InputError as reason:
                rank_zero_info(f"export: no token classifier is written: {reason}")
        if self.adapter:
            self._forms["adapter"] = "adapter"

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Gather sharded weights on all ranks, write on rank 0."""
        assert isinstance(pl_module, VerifierModule)
        assert pl_module.model is not None
        if trainer.interrupted or _writes_nothing(trainer):
            return
        # All ranks take part: with FSDP2 each holds only its shard, and metrics may still be reduced.
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state: dict[str, Any] = get_model_state_dict(pl_module.model, options=options)
        card = Card(trainer, pl_module, self._forms, self.push_to_hub)
        target = self._target(trainer)
        if trainer.is_global_zero:
            if (best := checkpoints.chosen(trainer)) is not None:
                card.best, path = best
                state = state | read_weights(path, state)
            _check_folder(target)
            with atomic.replacing(target) as draft:
                for form, place in self._forms.items():
                    folder = draft / place
                    folder.mkdir(parents=True)
                    pl_module.model.export(folder, state, form, base=pl_module.backbone_source.path)
                    pl_module.encoder.tokenizer.save_pretrained(folder)
                    pl_module.layout.save(folder, form=form, **pl_module.facts())
                    (folder / "README.md").write_text(card.render(form, folder))
        trainer.strategy.barrier("export")
        if self.push_to_hub is not None and trainer.is_global_zero:
            self._push(target, self.push_to_hub)

    def _target(self, trainer: lightning.Trainer) -> Path:
        return self.folder or Path(trainer.default_root_dir) / "export"

    def _push(self, folder: Path, repository: str) -> None:
        from huggingface_hub import HfApi

        try:
            api = HfApi()
            api.create_repo(repository, private=self.private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Trained with stepverify")
        except Exception as error:  # whatever the network does: the training is not lost
            raise InputError(
                f"{folder} is written, but not uploaded: {str(error).splitlines()[0]}; "
                f"upload it with: hf upload {repository} {folder}"
            ) from error


def _writes_nothing(trainer: lightning.Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def _check_folder(folder: Path) -> None:
    """Refuse to replace what no fit has exported."""
    if folder.exists() and not (folder / EXPORT_FILE).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            f"HuggingFaceExport.folder: {folder}: is there, and not the export of a fit (no {EXPORT_FILE}); "
            "choose another folder"
        )


def _check_hub(repository: str) -> None:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        huggingface_hub.utils.validate_repo_id(repository)  # type: ignore[attr-defined]
    except HFValidationError as error:
        raise InputError(f"HuggingFaceExport.push_to_hub: {error}") from None
    if huggingface_hub.is_offline_mode():
        raise InputError(f"HuggingFaceExport.push_to_hub: {repository}: HF_HUB_OFFLINE is set, nothing can be uploaded")
    if huggingface_hub.get_token() is None:
        raise InputError(
            f"HuggingFaceExport.push_to_hub: {repository}: no token; log in with `hf auth login` or set HF_TOKEN"
        )
