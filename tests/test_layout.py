"""The house's rules that no linter knows: one noun, one stage, one file, one table, one test. Imports are import-linter's."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
STAGE_FILES = {p.stem: p for p in sorted((ROOT / "tasks").glob("[!_]*.py"))}
ADAPTERS = {p.stem: p for p in sorted((ROOT / "tasks").glob("_[!_]*.py"))}
MEASURES = {p.stem: p for p in sorted((ROOT / "tasks" / "measures").glob("[!_]*.py"))}
FLOWS = {p.stem: p for p in sorted((ROOT / "flows").glob("[!_]*.py"))}
SOURCES = [*STAGE_FILES.values(), *ADAPTERS.values(), *MEASURES.values(), *FLOWS.values()]
WITHOUT_SQL = {"inputs", "image_embeddings", "generation_embeddings", "report", "warehouse"}
DEAR = {"images", "image_embeddings", "screening", "generations", "generation_embeddings"}  # their code is no dep: <stage>.version is
MAX_LINES, MAX_FUNCTION = 300, 50
MAY_IMPORT = {  # room: what is neither Python's own nor, by import-linter's leave, Eidetic's
    "measures": {"numpy", "scipy", "statsmodels", "torch", "faiss", "networkx"},
    "tasks": {"numpy", "pyarrow", "torch", "jinja2"},
    "flows": {"prefect", "typer", "yaml", "torch"},
}
OUTSIDE = {  # what a pure function does not call: modules and functions, with all that is in them
    "open", "print", "input", "exec", "os", "sys", "shutil", "subprocess", "socket", "tempfile", "urllib", "http", "requests", "pyarrow.parquet",
    "pyarrow.csv", "pyarrow.json", "pyarrow.feather", "pyarrow.dataset", "numpy.load", "numpy.save", "numpy.savez", "numpy.memmap", "numpy.fromfile",
    "torch.load", "torch.save", "json.load", "json.dump",
    ".open", ".read_text", ".read_bytes", ".write_text", ".write_bytes", ".unlink", ".mkdir", ".rmdir", ".touch", ".rename", ".exists", ".is_file",
    ".is_dir", ".stat", ".glob", ".rglob", ".iterdir", ".tofile",
}
PURE = {  # of tasks/_*.py, what a pure function may call all the same
    "tasks._figures.by_copies", "tasks._figures.plots", "tasks._pages.at_most", "tasks._pages.percent", "tasks._pairs.asked", "tasks._pairs.pairs",
    "tasks._pairs.rows", "tasks._schemas.column", "tasks._schemas.schema", "tasks._schemas.keys_of", "tasks._settings.UserError",
    "tasks._settings.TryAgain", "tasks._tables.table", "tasks._shards.fingerprint",
    *(f"tasks._pictures.{name}" for name in ("canonical", "resized", "enlarged", "png", "jpeg_size", "scan_size", "pixel_digest", "pdq", "measured",
                                            "altered")),
}
by_name = lambda paths: pytest.mark.parametrize("path", paths, ids=lambda p: p.relative_to(ROOT).as_posix())


def stage(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, at top level and inside functions; `from a import b` gives a.b."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def third_party(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


def origins(path: Path) -> dict[str, str]:
    """What each imported name stands for: pyarrow.parquet for `pq`, tasks._tables.write for `write`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def called(function: ast.AST, origin: dict[str, str]) -> set[str]:
    """What a function calls, by its full name; `.method` where it is a value's."""
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            root, parts = node.func, []
            while isinstance(root, ast.Attribute):
                root, parts = root.value, [root.attr, *parts]
            is_known = isinstance(root, ast.Name) and (not parts or root.id in origin)
            found.add(".".join([origin.get(root.id, root.id), *parts]) if is_known else f".{parts[-1]}" if parts else "")
    return found


def outside(function: ast.AST, origin: dict[str, str]) -> str:
    """What of the outside a function calls, in words."""
    names = called(function, origin) - PURE
    return ", ".join(sorted(n for n in names if n.startswith("tasks._") or any(n == o or n.startswith(f"{o}.") for o in OUTSIDE)))


def test_every_stage_is_a_file_and_every_file_a_stage() -> None:
    assert set(STAGES) == set(STAGE_FILES), f"dvc.yaml or tasks/ alone has {set(STAGES) ^ set(STAGE_FILES)}"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_has_its_sql(name: str) -> None:
    assert (ROOT / "sql" / f"{name}.sql").is_file() is (name not in WITHOUT_SQL), f"sql/{name}.sql"


@by_name(SOURCES)
def test_a_file_has_its_test(path: Path) -> None:
    test = ROOT / "tests" / f"test_{path.stem.removeprefix('_')}.py"
    assert test.is_file(), f"{path.relative_to(ROOT)} has no {test.relative_to(ROOT)}"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_the_description_is_the_files_first_sentence_and_says_what_a_row_is(name: str) -> None:
    first = (ast.get_docstring(tree(STAGE_FILES[name])) or "").splitlines()[0]
    assert stage(name)["desc"] == first and (" One row per " in first or name == "warehouse"), f"tasks/{name}.py: {first}"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_is_one_simple_command_and_settings_are_its_own_block(name: str) -> None:
    per_release = "foreach" in STAGES[name]
    assert stage(name)["cmd"] == f"python -m tasks.{name}" + (" ${key}" if per_release else "")
    for block in stage(name).get("params", []):
        assert block.split(".")[0] in PARAMS, f"{name}: params.yaml has no block {block}"
        assert block != "compute" and (block != "releases" or name == "warehouse"), f"{name} must not depend on {block}"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_stages_read_only_what_earlier_stages_write(name: str) -> None:
    order = list(STAGES)
    for dep in stage(name).get("deps", []):
        if dep.startswith("data/"):
            assert order.index(dep.split("/")[1]) < order.index(name), f"{name} reads {dep} of a later stage"
        else:
            assert dep.startswith(("tasks/", "sql")), f"{name} reads {dep}"


@pytest.mark.parametrize("name", sorted(set(STAGES) - DEAR - {"inputs"}))
def test_a_stages_own_file_and_its_measures_are_among_its_deps(name: str) -> None:
    deps = stage(name)["deps"]
    assert f"tasks/{name}.py" in deps
    used = {n.split(".")[2] for n in imported(STAGE_FILES[name]) if n.startswith("tasks.measures.")}
    if name not in ("images", "prompts", "report"):
        missing = {f"tasks/measures/{m}.py" for m in used} - set(deps)
        assert missing <= {f"tasks/measures/{m}.py" for m in ("identity", "distances", "rates", "templates")}, f"{name} lacks the deps {missing}"


@by_name([*MEASURES.values(), *STAGE_FILES.values(), *FLOWS.values()])
def test_a_room_imports_what_it_may(path: Path) -> None:
    """Which of Eidetic's own files, and which file each heavy library, is import-linter's to say."""
    more = third_party(path) - MAY_IMPORT[path.parent.name] - {"tasks", "flows"}
    assert not more, f"{path.relative_to(ROOT)} imports {', '.join(sorted(more))}"


def test_the_contracts_of_import_linter_name_every_stage_and_every_adapter() -> None:
    stages, adapters = ({f"tasks.{name}" for name in names} for names in (STAGE_FILES, ADAPTERS))
    listed = [set(contract.get(key, [])) for contract in CONTRACTS for key in ("modules", "source_modules", "forbidden_modules")]
    assert sum(stages <= names for names in listed) == 4, f"a contract lacks one of {stages}"
    assert sum(adapters <= names for names in listed) == 2, f"a contract lacks one of {adapters}"


@by_name(list(STAGE_FILES.values()))
def test_a_stages_file_reads_from_docstring_to_main(path: Path) -> None:
    """SCHEMA, CHECKS, functions, main; what comes after main are its hands: private functions and classes that touch the outside."""
    body = tree(path).body
    names = [n.name for n in body if isinstance(n, ast.FunctionDef)]
    assert "main" in names, f"{path.name} has no main"
    main = next(n.lineno for n in body if isinstance(n, ast.FunctionDef) and n.name == "main")
    assigned = {t.id: n.lineno for n in body if isinstance(n, ast.Assign | ast.AnnAssign)
                for t in (n.targets if isinstance(n, ast.Assign) else [n.target]) if isinstance(t, ast.Name)}
    places = [assigned[n] for n in ("SCHEMA", "CHECKS") if n in assigned] + [main]
    assert places == sorted(places), f"{path.name}: SCHEMA, CHECKS, main is the order"
    after = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.lineno > main]
    assert all(name.startswith("_") for name in after), f"{path.name}: {after} after main"


@by_name(list(STAGE_FILES.values()))
def test_only_main_and_its_hands_touch_the_outside(path: Path) -> None:
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            return
        touched = outside(node, origins(path))
        assert not touched, f"tasks/{path.name}:{node.lineno}: {getattr(node, 'name', 'the file itself')} calls {touched}; that is for main"


@by_name(list(MEASURES.values()))
def test_a_measure_touches_nothing_outside(path: Path) -> None:
    touched = outside(tree(path), origins(path))
    assert not touched, f"tasks/measures/{path.name} calls {touched}"


@by_name([*STAGE_FILES.values(), *ADAPTERS.values()])
def test_every_column_has_a_comment_that_says_something(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "column":
            comment = node.args[2] if len(node.args) > 2 else next((k.value for k in node.keywords if k.arg == "comment"), None)
            said = comment.value if isinstance(comment, ast.Constant) else ""
            assert len(str(said).split()) >= 2, f"{path.name}:{node.lineno}: column {ast.unparse(node.args[0])} has the comment '{said}'"


@by_name(SOURCES)
def test_files_and_functions_keep_their_budget(path: Path) -> None:
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_LINES, f"{path.name} has {n_lines} lines, at most {MAX_LINES}"
    for node in functions(path):
        length = node.end_lineno - node.lineno + 1
        assert length <= MAX_FUNCTION, f"{path.name}: {node.name} has {length} lines, at most {MAX_FUNCTION}"


@by_name(SOURCES)
def test_public_functions_have_types_and_a_docstring(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module), f"{path.name} has no docstring"
    for owner in [module, *(n for n in module.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))]:
        for node in owner.body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") or any("overload" in ast.dump(d) for d in node.decorator_list):
                continue
            arguments = [a for a in [*node.args.args, *node.args.kwonlyargs] if a.arg != "self"]
            is_typed = node.returns is not None and all(a.annotation is not None for a in arguments)
            assert is_typed and ast.get_docstring(node), f"{path.name}: {node.name} wants types and a docstring"


def test_the_command_line_answers_without_heavy_libraries() -> None:
    import subprocess

    code = "import sys, flows.cli; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'great_expectations', 'prefect', 'duckdb', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_readme_lists_the_stages_as_the_map_has_them() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in STAGES:
        assert f"| `{name}{'@r' if 'foreach' in STAGES[name] else ''}` | {stage(name)['desc']} |" in readme
