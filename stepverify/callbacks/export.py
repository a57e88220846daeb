"""Export the model of every fit as a Hugging Face directory.

It includes template, ids, objective and a model card.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from stepverify import atomic
from stepverify.callbacks.card import Card
from stepverify.callbacks.files import say
from stepverify.callbacks.together import any_rank, together
from stepverify.callbacks.weights import take_best
from stepverify.data.encode import Example
from stepverify.data.store import ExampleStore
from stepverify.models.export import SHARD_SIZE, Form, load_value_head
from stepverify.models.reload import check_finite, compare, exported_logits, local_state, reload, trained_logits
from stepverify.models.sharded import Sharding
from stepverify.models.weights import Gathered
from stepverify.modules import StepModule
from stepverify.records import InputError
from stepverify.template import EXPORT_FILE
from stepverify.training_problems import read_training_problems, write_training_problems

_NUM_CHECKED = 4  # solutions


class HuggingFaceExport(lightning.Callback):
    """Export the trained model when fit ends, completely or not at all.

    The weights are the final ones, or those of the best checkpoint if ``Checkpoints`` has a ``monitor``. The folder
    holds the model with merged adapters: a causal language model (generator, process reward model) or a one-label token
    classifier (outcome verifier; if transformers has none for the architecture, a causal language model with
    ``value_head.safetensors``). Each further form is a self-contained subfolder. ``training_problems.txt`` has digests
    of the training problems, and of those of the backbone if its folder lists them.

    Args:
        folder: output folder; the export of an earlier fit is replaced, anything else is refused. None is ``export``
            below the run's folder.
        classifier: also write a process reward model as a token classifier of its two or three labels, in
            ``classifier/``: the form that vLLM's pooling runner loads. If the architecture has none, the reason is
            logged.
        adapter: also write the adapters of a LoRA run for peft, in ``adapter/``.
        push_to_hub: repository (``user/name``) to upload the folder to at the end; None does not upload.
        private: make a new repository private.
        check: reload each form in plain transformers and compare its scores of a few training solutions with those of
            the trained model; an export with other scores is not written. Needs the memory of the weights once more,
            for a sharded model that of a shard and a layer; False skips the check.
        max_shard_size: largest size of a weights file; larger models are written as several files with an index.
    """

    def __init__(
        self,
        folder: str | None = None,
        classifier: bool = True,
        adapter: bool = False,
        push_to_hub: str | None = None,
        private: bool = True,
        check: bool = True,
        max_shard_size: str = SHARD_SIZE,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.classifier, self.adapter = classifier, adapter
        self.push_to_hub, self.private, self.check = push_to_hub, private, check
        self.max_shard_size = max_shard_size
        self._forms: dict[Form, str] = {}

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse before training what could not be written after it."""
        assert isinstance(pl_module, StepModule)
        if stage != "fit" or _writes_nothing(trainer):
            return
        source = pl_module.backbone_source
        if self.adapter and source.lora is None:
            raise InputError("HuggingFaceExport.adapter: there are no adapters; set model.init_args.backbone.lora")
        if self.adapter and source.weights == "random":
            raise InputError(
                "HuggingFaceExport.adapter: adapters of random weights are useless; export the merged model only"
            )
        if self.adapter and source.overrides:
            raise InputError(
                "HuggingFaceExport.adapter: backbone.overrides change the model that adapters are loaded on; export "
                "the merged model only"
            )
        if trainer.is_global_zero:
            _check_folder(self.target(trainer))
            if self.push_to_hub is not None:
                _check_hub(self.push_to_hub)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Determine the forms to write.

        An architecture without a token classifier is detected here, not at the end.
        """
        assert isinstance(pl_module, StepModule)
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
        """Gather sharded weights tensor by tensor; write, reload and compare.

        Raises:
            InputError: weights or scores are not finite, or an export gives other scores than the trained model.
        """
        assert isinstance(pl_module, StepModule)
        model = pl_module.model
        assert model is not None
        if trainer.interrupted or _writes_nothing(trainer):
            return
        # All ranks take part: with FSDP2 each holds only its shard, and metrics may still be reduced.
        card, target = Card(trainer, pl_module, self._forms, self.push_to_hub), self.target(trainer)
        model.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
        card.best = take_best(trainer, model)
        with together(trainer):
            check_finite(local_state(model), partial(_any, trainer))
        examples = trainer.strategy.broadcast(self._examples(trainer) if self.check else [])
        trained = trained_logits(model, examples)
        with ExitStack() as drafts:
            draft: Path | None = None
            with together(trainer):
                state = Gathered(model)
                if trainer.is_global_zero:
                    try:
                        draft = self._write(drafts, trainer, pl_module, state, card, bool(examples))
                    finally:
                        state.close()  # the other ranks must not wait for more tensors, even after an error
                else:
                    state.serve()
            draft = trainer.strategy.broadcast(draft)
            assert draft is not None
            sharding = pl_module.sharding() if examples and _all_see(trainer, draft) else None
            if pl_module.device_mesh is None and trainer.is_global_zero:
                model.cpu()
            for form, place in self._forms.items() if examples else ():
                exported = self._exported(trainer, form, draft / place, examples, sharding) if sharding else None
                with together(trainer):
                    if trainer.is_global_zero:
                        exported = exported or self._exported(trainer, form, draft / place, examples, None)
                        with self._said_of(trainer, form):
                            compare(trained, exported[0], examples, exported[1])
        if self.push_to_hub is not None and trainer.is_global_zero:
            self._push(target, self.push_to_hub)

    def _write(
        self,
        drafts: ExitStack,
        trainer: lightning.Trainer,
        module: StepModule,
        state: Gathered,
        card: Card,
        is_compared: bool,
    ) -> Path:
        """Write all forms to a draft folder.

        It replaces the export when ``drafts`` closes without an error.
        """
        target, model = self.target(trainer), module.model
        assert model is not None
        _check_folder(target)
        if not is_compared:
            reason = "no solution is read" if self.check else "check: false"
            say(f"{target}: written without a comparison with the trained model ({reason})")
        draft = drafts.enter_context(atomic.replacing(target))
        for form, place in self._forms.items():
            folder = draft / place
            folder.mkdir(parents=True)
            model.export(folder, state, form, module.backbone_source.path, self.max_shard_size)
            module.encoder.tokenizer.save_pretrained(folder)
            module.template.save(folder, form=form, **module.facts())
            write_training_problems(folder, _training_problems(trainer, module))
            (folder / "README.md").write_text(card.render(form, folder), encoding="utf-8")
        return draft

    def _examples(self, trainer: lightning.Trainer) -> list[Example]:
        """Return the first encoded solutions of the training data."""
        encoded: ExampleStore = trainer.datamodule.examples["fit"]  # type: ignore[attr-defined]
        read = (encoded[i] for i in range(len(encoded)))
        return list(islice((example for example in read if example.positions), _NUM_CHECKED))

    def _exported(
        self, trainer: lightning.Trainer, form: Form, folder: Path, examples: list[Example], sharding: Sharding | None
    ) -> tuple[list[Tensor], torch.dtype]:
        """Compute a reloaded form's logits; return them and the coarsest dtype.

        All ranks take part if it is sharded.
        """
        module: Any = trainer.lightning_module
        with self._said_of(trainer, form):
            reading, device = module.model.reading, trainer.strategy.root_device
            plain = reload(folder, form, module.model.form, module.backbone_source, reading, device, sharding)
            logits = exported_logits(plain, module.model, examples, load_value_head(folder))
        formats = {p.dtype for m in (plain, module.model) for p in m.parameters() if p.is_floating_point()}
        if (gathered := module.model.gathered_dtype) is not None:  # the trained logits are computed with these
            formats.add(gathered)
        return logits, max(formats, key=lambda dtype: torch.finfo(dtype).eps)

    @contextmanager
    def _said_of(self, trainer: lightning.Trainer, form: Form) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(
                f"{self.target(trainer)}: not written: as {form}, loaded by transformers, {error}; checkpoints are kept"
            ) from None

    def target(self, trainer: lightning.Trainer) -> Path:
        """Return the folder of the export."""
        return self.folder or Path(trainer.default_root_dir) / "export"

    def _push(self, folder: Path, repository: str) -> None:
        from huggingface_hub import HfApi

        try:
            api = HfApi()
            api.create_repo(repository, private=self.private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Trained with stepverify")
        except Exception as error:  # any network error; the export is on disk
            raise InputError(
                f"{folder} is written, but not uploaded: {str(error).splitlines()[0]}; "
                f"upload it with: hf upload {repository} {folder}"
            ) from error


def _training_problems(trainer: lightning.Trainer, pl_module: StepModule) -> set[str]:
    examples = getattr(trainer.datamodule, "examples", {}).get("fit")  # type: ignore[attr-defined]
    before = read_training_problems(pl_module.backbone_source.folder) or ()
    return {*before, *(examples.digests if examples else ())}


def _any(trainer: lightning.Trainer, flags: Tensor) -> Tensor:
    return torch.tensor(any_rank(trainer, *flags))


def _all_see(trainer: lightning.Trainer, folder: Path) -> bool:
    """Check whether all ranks see the same disk.

    Otherwise rank 0 reloads the whole export by itself.
    """
    is_hidden = any_rank(trainer, not folder.is_dir())[0]
    if is_hidden and trainer.lightning_module.device_mesh is not None:
        rank_zero_info(f"export: {folder} is not on every machine's disk: rank 0 alone reloads it, whole")
    return not is_hidden


def _writes_nothing(trainer: lightning.Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def _check_folder(folder: Path) -> None:
    """Refuse to replace a folder that is not an export."""
    if folder.exists() and not (folder / EXPORT_FILE).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            f"HuggingFaceExport.folder: {folder}: exists, and is not the export of a fit (no {EXPORT_FILE}); "
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
