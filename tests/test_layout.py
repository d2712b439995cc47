"""The house's rules that no linter knows: one noun, one stage, one file, one table, one test."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGE_FILES = {p.stem: p for p in (ROOT / "tasks").glob("[!_]*.py")}
MEASURES = sorted(p for p in (ROOT / "tasks" / "measures").glob("[!_]*.py"))
SOURCES = sorted([*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
WITHOUT_SQL = {"inputs", "image_embeddings", "generation_embeddings", "report", "warehouse"}
ALLOWED = {  # room: top-level imports beyond the standard library
    "measures": {"numpy", "scipy", "statsmodels", "torch", "faiss", "networkx", "tasks"},
    "stage": {"tasks", "numpy", "pyarrow", "torch", "jinja2"},
    "flows": {"prefect", "typer", "yaml", "tasks", "flows"},
}
ADAPTERS = {"_embedders", "_checks", "_pipelines", "_pictures", "_shards", "_settings", "_sources", "_tables", "_database"}


def stage(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, at top level and inside functions; `from a import b` gives a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def third_party(path: Path) -> set[str]:
    import sys

    return {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)


def test_every_stage_is_a_file_and_every_file_a_stage() -> None:
    assert set(STAGES) == set(STAGE_FILES)


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_has_its_test_and_its_sql(name: str) -> None:
    assert (ROOT / "tests" / f"test_{name}.py").is_file()
    assert (ROOT / "sql" / f"{name}.sql").is_file() is (name not in WITHOUT_SQL)


@pytest.mark.parametrize("path", MEASURES, ids=lambda p: p.stem)
def test_a_measure_has_its_test(path: Path) -> None:
    assert (ROOT / "tests" / f"test_{path.stem}.py").is_file()


@pytest.mark.parametrize("name", sorted(STAGES))
def test_the_description_is_the_files_first_sentence_and_says_what_a_row_is(name: str) -> None:
    first = (ast.get_docstring(ast.parse(STAGE_FILES[name].read_text())) or "").splitlines()[0]
    assert stage(name)["desc"] == first and (" One row per " in first or name == "warehouse")


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_is_one_simple_command_and_settings_are_its_own_block(name: str) -> None:
    per_release = "foreach" in STAGES[name]
    assert stage(name)["cmd"] == f"python -m tasks.{name}" + (" ${key}" if per_release else "")
    for block in stage(name).get("params", []):
        assert block.split(".")[0] in PARAMS
        assert block != "compute" and (block != "releases" or name == "warehouse")


@pytest.mark.parametrize("name", sorted(STAGES))
def test_stages_read_only_what_earlier_stages_write(name: str) -> None:
    order = list(STAGES)
    for dep in stage(name).get("deps", []):
        if dep.startswith("data/"):
            assert order.index(dep.split("/")[1]) < order.index(name)
        else:
            assert dep.startswith(("tasks/", "sql"))


@pytest.mark.parametrize("name", sorted(set(STAGES) - {"inputs", "image_embeddings", "screening", "generations", "generation_embeddings"}))
def test_a_stages_own_file_and_its_measures_are_among_its_deps(name: str) -> None:
    deps = stage(name)["deps"]
    assert f"tasks/{name}.py" in deps
    used = {n.split(".")[2] for n in imported(STAGE_FILES[name]) if n.startswith("tasks.measures.")}
    if name not in ("images", "prompts", "report"):
        assert {f"tasks/measures/{m}.py" for m in used} - set(deps) <= {f"tasks/measures/{m}.py" for m in ("identity", "distances", "rates", "templates")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_rooms_import_only_what_they_may(path: Path) -> None:
    names = imported(path)
    if path.parent.name == "measures":
        assert third_party(path) <= ALLOWED["measures"]
        assert all(n.startswith("tasks.measures") for n in names if n.startswith("tasks"))
    elif path.parent.name == "flows":
        assert third_party(path) <= ALLOWED["flows"]
    elif path.stem in STAGE_FILES:
        assert third_party(path) <= ALLOWED["stage"]
        others = {f"tasks.{stem}" for stem in STAGE_FILES if stem != path.stem}
        assert not {n for n in names if any(n == o or n.startswith(f"{o}.") for o in others)}
    elif path.stem.startswith("_") and path.stem != "__init__":
        assert path.stem in ADAPTERS and not {n for n in names if n.split(".")[:2] in [["tasks", stem] for stem in STAGE_FILES]}


@pytest.mark.parametrize("library", ["diffusers", "great_expectations", "duckdb", "onnxruntime", "PIL"])
def test_a_heavy_library_is_imported_in_one_file(library: str) -> None:
    users = {p.stem for p in SOURCES if library in third_party(p)}
    assert len(users) <= 1 and users <= ADAPTERS


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_functions_keep_their_budget(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    tree = ast.parse(text)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.FunctionDef) or node.end_lineno - node.lineno + 1 <= 50, node.name
    public = [node for owner in [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))] for node in owner.body
              if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not any("overload" in ast.dump(d) for d in node.decorator_list)]
    assert all(node.returns is not None and ast.get_docstring(node) for node in public), "public functions want types and a docstring"


def test_the_command_line_answers_without_heavy_libraries() -> None:
    import subprocess
    import sys

    code = "import sys, flows.cli; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'great_expectations', 'prefect', 'duckdb')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_readme_lists_the_stages_as_the_map_has_them() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in STAGES:
        assert f"| `{name}{'@r' if 'foreach' in STAGES[name] else ''}` | {stage(name)['desc']} |" in readme
