"""Which part may know which: the borders of the packages, and what a quick command must not load."""

import ast
import subprocess
import sys
from functools import cache

HEAVY = {"torch", "lightning", "vllm", "transformers", "ray", "matplotlib", "jinja2"}
# What sampling may know of stepverify; the scorer also loads models.
SHARED = (
    "jsonl", "keys", "records", "decoding", "consistency", "manifest", "atomic", "template", "training_problems", "answers", "aggregate",
    "readers", "data.encode", "data.targets", "versions", "statistics", "hub", "lock", "faults", "variables", "config_files", "pipelines",
    "device", "steps", "critique", "verification", "adopted", "digests", "thinking", "record_checks", "tensors", "cache_size", "prefix_cache",
    "calibration", "objectives", "starting.rows", "starting.next_commands", "suggest", "trial",
)  # fmt: skip
SCORER = ("models", "verifier", "prms")
ACCURACY = ("modules", "monitoring.media")  # a callback of training


@cache
def imports(path):
    """Absolute names of all modules that a file imports anywhere; ``from a import b`` gives ``a.b``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(root, *packages):
    found = {
        path.relative_to(root).as_posix(): imports(path)
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
    }
    assert len(found) > 10
    return found


def within(name, modules):
    return any(name == module or name.startswith(f"{module}.") for module in modules)


# Programs, and what a quick command or a program of a user imports.
QUICK = (
    "stepverify.records", "stepverify.cli", "stepverify.data.encode", "sampling.__main__", "sampling.engines",
    "sampling.scorers", "sampling.selection.rules",
    *(f"sampling.stages.{stage}" for stage in ("generate", "label", "rank", "report", "score", "search")),
)  # fmt: skip


def test_quick_modules_load_nothing_heavy():
    """One after the other in one process: none of them, and what it needs, brings a heavy one."""
    code = f"""
import importlib, sys
for name in {QUICK}:
    importlib.import_module(name)
    print(name, *({HEAVY} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*QUICK]


def test_training_knows_nothing_of_sampling(root):
    for path, names in files(root, "stepverify").items():
        foreign = {name for name in names if within(name, ("sampling", "vllm", "ray"))}
        assert not foreign, f"{path} imports {foreign}"


def test_vllm_is_met_in_one_engine_and_one_scorer(root):
    everywhere = files(root, "stepverify", "sampling")
    assert [path for path, names in everywhere.items() if any(within(name, ("vllm",)) for name in names)] == [
        "sampling/engines/vllm.py",
        "sampling/scorers/pooling.py",
    ]


def test_ray_is_met_in_one_module(root):
    everywhere = files(root, "stepverify", "sampling")
    found = [path for path, names in everywhere.items() if any(within(name, ("ray",)) for name in names)]
    assert found == ["sampling/runtime/replicas.py"]


def test_sampling_knows_little_of_training(root):
    for path, names in files(root, "sampling").items():
        allowed = SHARED + (SCORER if path.startswith("sampling/scorers/") else ())
        allowed += ACCURACY if path == "sampling/sample_accuracy.py" else ()
        foreign = {
            name
            for name in names
            if within(name, ("stepverify",)) and not within(name, [f"stepverify.{module}" for module in allowed])
        }
        assert not foreign, f"{path} imports {foreign}"


# Floors of the sampling side, from bottom to top: a file imports from its own floor and those below.
FLOORS = ("sampling.runtime", "sampling.engines", ("sampling.labelling", "sampling.selection", "sampling.scorers"),
          ("sampling.sample_accuracy", "sampling.search"), ("sampling.stages", "sampling.report"),
          "sampling.pipeline", "sampling.questions", "sampling.__main__")  # fmt: skip


@cache
def typed_only(path):
    """Names that a file imports under ``if TYPE_CHECKING:`` alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for inner in ast.walk(node):
                if isinstance(inner, ast.ImportFrom):
                    found |= {f"{inner.module}.{alias.name}" for alias in inner.names}
    return found


def floor(name):
    return next(
        (i for i, modules in enumerate(FLOORS) if within(name, (modules,) if isinstance(modules, str) else modules)),
        None,
    )


def test_nothing_imports_upwards(root):
    for path, names in files(root, "sampling").items():
        own = floor(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        if own is None:  # the package itself
            assert not names
            continue
        foreign = {
            name for name in names - typed_only(root / path) if within(name, ("sampling",)) and floor(name) > own
        }
        assert not foreign, f"{path} imports {foreign}"


def test_stages_and_kinds_of_engines_do_not_know_each_other(root):
    """Stages import no stage, selection no labelling."""
    for path, names in files(root, "sampling").items():
        if path.startswith("sampling/stages/"):
            assert not {name for name in names if within(name, ("sampling.stages",))}, path
        if path.startswith("sampling/selection/"):
            assert not {name for name in names if within(name, ("sampling.labelling", "sampling.engines"))}, path


def test_modules_of_the_sampling_side_have_no_cycle(root):
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): names - typed_only(root / path)
               for path, names in files(root, "sampling").items()}  # fmt: skip
    uses = {m: {o for o in modules if o not in (m, "sampling") and any(name == o or name.rpartition(".")[0] == o for name in names)}
            for m, names in modules.items()}  # fmt: skip
    while leaves := {m for m, used in uses.items() if not used}:
        uses = {m: used - leaves for m, used in uses.items() if m not in leaves}
    assert not uses, f"cycle among {sorted(uses)}"


def test_records_and_aggregate_need_msgspec_only(root):
    names = (
        "records", "record_checks", "errors", "consistency", "decoding", "foreign", "jsonl", "keys", "aggregate", "atomic",
        "training_problems", "critique", "made_by", "suggest", "trial",
    )  # fmt: skip
    own = ("msgspec", *(f"stepverify.{name}" for name in names))
    for name in names:
        foreign = {
            module
            for module in imports(root / "stepverify" / f"{name}.py") - typed_only(root / "stepverify" / f"{name}.py")
            if module.split(".")[0] not in sys.stdlib_module_names and not within(module, own)
        }
        assert not foreign, f"stepverify/{name}.py imports {foreign}"


def test_the_parts_of_ranking_and_reports_import_downwards_only(root):
    """Rules know nothing of files or stages, statistics nothing of how they are shown, and nothing knows the stages."""
    known = files(root, "sampling")
    pure = (
        "sampling.selection",
        "stepverify.aggregate",
        "stepverify.calibration",
        "stepverify.records",
        "stepverify.statistics",
    )
    shown = ("sampling.report.section", "sampling.report.sections", "sampling.report.render", "sampling.report.figures")
    for path, names in known.items():
        own = {name for name in names if within(name, ("sampling", "stepverify"))}
        if path.startswith("sampling/selection/") and not path.endswith(("pool.py", "aggregation.py", "_files.py")):
            assert not [name for name in own if not within(name, pure)], path
        if path.startswith(("sampling/selection/", "sampling/report/")):
            assert not [name for name in own if within(name, ("sampling.stages",))], path
        if path.startswith("sampling/report/") and path.endswith(
            ("collect.py", "quality.py", "errors.py", "accuracy.py")
        ):
            assert not [name for name in own if within(name, shown)], path


def test_the_checks_above_see_every_kind_of_import(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("import os.path\ndef f():\n    from vllm import LLM\n    import ray as r\n")
    assert imports(path) == {"os.path", "vllm.LLM", "ray"}
