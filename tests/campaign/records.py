"""Mutated records and files: each is read, or refused in one line that names the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

from tests.campaign import stages
from tests.campaign.mutate import damaged, mutated
from tests.campaign.seeds import Format, formats
from tests.campaign.trial import Trial, forked, judge

NAME = "records"


def trials(folder: Path, size: float, seed: int) -> Iterator[Trial]:
    """Yield mutated files of every format; at ``size`` 1 there are 400 of a format, fewer of slow ones."""
    for name, known in cached_formats().items():
        rng = Random(f"{seed} {name}")
        for number in range(max(2, round(400 * size * known.weight))):
            changed, content = _content(known, rng)
            yield Trial(
                f"{name} {number}: {changed}", f"mutated {name.partition(':')[0]}", _Read(folder, name, content).trial
            )


cached_formats = cache(formats)


@cache
def inputs(folder: Path) -> Path:
    """The inputs of all stages, to be copied."""
    made = stages.prepare(folder / "inputs")
    (made / "rank.yaml").write_text("{}")
    return made


def _content(known: Format, rng: Random) -> tuple[str, bytes]:
    lines = [json.dumps(document, ensure_ascii=rng.random() < 0.5) for document in known.documents]
    changed = ""
    if rng.random() < 0.75:
        at = rng.randrange(len(lines))
        changed, lines[at] = mutated(known.documents[at], rng)
    content = ("\n".join(lines) + "\n").encode(errors="surrogatepass")
    if not changed or rng.random() < 0.05:
        harm, content = damaged(content, rng)
        changed = f"{changed} {harm}".strip()
    return changed, content


class _Read:
    def __init__(self, folder: Path, name: str, content: bytes) -> None:
        self.folder, self.name, self.content = folder, name, content

    def trial(self, own: Path) -> tuple[str, str]:
        known = cached_formats()[self.name]
        shutil.copytree(inputs(self.folder), own, dirs_exist_ok=True)
        path = own / known.file
        if known.file.startswith("out/") and known.file != "out/manifest.json":
            self._begun(own, known)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content)

        def work() -> None:
            os.chdir(own)
            stages.small()
            known.read(own)

        end = forked(work)
        names = [path.name, str(own), "config.yaml"] if not known.whole or "yaml" not in known.file else [""]
        outcome, said = judge(end, names)
        if outcome == "accepted" and (harm := unreadable(own)):
            return "unreadable", harm
        return outcome, said

    def _begun(self, own: Path, known: Format) -> None:
        """Leave the folder of a stage that a kill interrupted."""
        stage = known.read.__closure__[0].cell_contents  # type: ignore[index]
        out = own / "out"
        forked(lambda: (stages.small(), stages.STAGES[stage](own, out)))
        for manifest in out.rglob("manifest.json"):
            described = json.loads(manifest.read_text())
            manifest.write_text(json.dumps(described | {"finished": False, "summary": {}}))
        for shard in out.glob("part-*.jsonl"):
            shard.unlink()


def unreadable(folder: Path) -> str:
    """Describe the first output that is no JSON in UTF-8; empty if all can be read."""
    for path in folder.rglob("*"):
        if path.suffix not in (".json", ".jsonl") or not path.is_relative_to(folder / "out"):
            continue
        try:
            for line in (
                [path.read_text()] if path.suffix == ".json" else path.read_text(encoding="utf-8-sig").split("\n")
            ):
                json.loads(line.removeprefix("\ufeff") or "0", parse_constant=_refuse)
        except ValueError as error:
            return f"{path.name}: {error}"
    return ""


def _refuse(name: str) -> None:
    raise ValueError(name)
