"""The pages for users say what is so: stages, settings, columns, links, messages, costs; their commands run, or say why not."""

import ast
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks import _sources, _tables, _training_sets, report, warehouse
from tasks.measures import stopping
from tests import columns
from tests.conftest import ROOT, copied_project
from tests.tiny_audit import V1, V2, put_project

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "example" / "README.md", ROOT / "bench" / "README.md"]
NOTE = re.compile(r"<!-- (run here|not run: .{10,}|tested: (tests/\S+\.py)::(\w+)) -->")
MEMBERS = ("members", "held_out")  # the two halves of training_set, alike in their keys


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the line before it."""

    page: str
    line: int
    language: str
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page. Raises ValueError for one without a language or an end."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        language = lines[start].removeprefix("```")
        if not language or line != "```":
            raise ValueError(f"{page.name}:{start + 1} has no language, or no end")
        yield Block(page.name, start + 1, language, "\n".join(lines[start + 1:number]) + "\n", lines[start - 1] if start else "")
        start = None
    if start is not None:
        raise ValueError(f"{page.name}:{start + 1} has no end")


def of(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}


def settings_of(params: dict[str, Any]) -> dict[str, Any]:
    """Every setting there is, as block.key, with its value where a page can state it."""
    found: dict[str, Any] = {f"releases.{key}": ... for key in _sources.ENTRY}
    for block, values in params.items():
        if block == "training_set":
            keys = {key for half in values.values() for key in half or {}} | {"format", "path"}
            found |= {f"{block}.{half}.{key}": (values.get(half) or {}).get(key, ...) for half in {*MEMBERS, *values} for key in keys}
        elif block == "releases":
            found |= {f"{block}.{key}": ... for entry in values.values() for key in entry}
        else:
            found |= {f"{block}.{key}": value for key, value in values.items()}
    return found


def documented() -> dict[str, str]:
    """Every setting in docs/settings.md, as block.key, with its cell `default`."""
    found: dict[str, str] = {}
    block = ""
    for line in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines():
        block = line.removeprefix("## `").removesuffix("`") if line.startswith("## `") else block
        row = re.match(r"\| `([\w.]+)` \| ([^|]*) \|", line)
        if row:
            assert f"{block}.{row[1]}" not in found, f"{block}.{row[1]} is there twice"
            found[f"{block}.{row[1]}"] = row[2]
    return found


def test_every_stage_is_described_in_the_order_of_the_map() -> None:
    text = (ROOT / "docs" / "how-an-audit-works.md").read_text(encoding="utf-8")
    described = [name for item in re.findall(r"^- (\*\*`.*?)$", text, re.M) for name in re.findall(r"\*\*`([\w@]+)`\*\*", item)]
    assert described == [f"{name}@r" if "foreach" in stage else name for name, stage in STAGES.items()]


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    assert set(documented()) == set(settings_of(PARAMS))


def test_the_defaults_on_the_page_are_those_of_params_yaml() -> None:
    wrong = [name for name, value in settings_of(PARAMS).items()
             if value is not ... and yaml.safe_load(documented()[name].strip("`")) != value]
    assert not wrong


@pytest.mark.parametrize("place", [("findings", "largest_l2"), ("blocklist", "is_on"), ("releases", "dtype"), ("training_set", "captions")])
def test_a_setting_that_no_page_explains_is_missed(place: tuple[str, str]) -> None:
    block, key = place
    more = copy.deepcopy(PARAMS)
    target = more.setdefault(block, {})
    if block in ("releases", "training_set"):
        target = target[next(iter(target))]
    target[key] = 1
    missed = set(settings_of(more)) - set(documented())
    assert missed and all(name.startswith(f"{block}.") and name.endswith(f".{key}") for name in missed)


def test_the_columns_page_is_what_the_schemas_say() -> None:
    said = (ROOT / "docs" / "columns.md").read_text(encoding="utf-8")
    assert said == columns.page(), "write it anew: python -m tests.columns > docs/columns.md"


def test_every_table_and_view_of_the_database_is_on_the_columns_page() -> None:
    kept = {f"all_{name}" for name in warehouse.HISTORY}
    on_page = set(re.findall(r"^## `(\w+)`$", columns.page(), re.M)) | set(re.findall(r"`(all_\w+)`", columns.page()))
    assert set(columns.comments("table")) | set(columns.comments("view")) <= on_page and kept <= on_page


@pytest.mark.parametrize("page", LINKED, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists() and file.is_relative_to(ROOT), f"{page.name}: {target}"
        assert not anchor or anchor in slugs(file), f"{page.name}: {target}"


def test_every_page_for_users_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS if f"](docs/{page.name})" not in text]


@pytest.mark.parametrize("block", of("sh", "python"), ids=str)
def test_a_block_of_commands_is_run_or_says_why_not(block: Block) -> None:
    note = NOTE.fullmatch(block.before)
    assert note, "put before it: <!-- run here -->, <!-- tested: tests/test_x.py::name --> or <!-- not run: reason -->"
    if note[2]:
        tree = ast.parse((ROOT / note[2]).read_text(encoding="utf-8"))
        assert note[3] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, "there is no such test"
    if block.language == "python":
        ast.parse(block.text)


def test_no_block_is_in_a_language_that_is_not_looked_at() -> None:
    assert {block.language for page in PAGES for block in blocks(page)} <= {"sh", "python", "sql", "yaml", "text"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny audits with their database, one of them with its audit.json."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "sql", folder / "sql")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        put_project()
        warehouse.main()
        for release in (V1, V2):
            put_audit(release)
    return folder


def put_audit(release: str) -> None:
    """audit.json of a tiny audit."""
    place = dict.fromkeys(["image_key", "image_sha256", "image_shard", "image_position", "image_url"])
    found = [row | place | {"caption": "a picture"} for row in _tables.read("findings", release).to_pylist()]
    protocol = _tables.read("screening", release, side="protocol").to_pylist()[0]
    protocol |= {"settings": json.dumps({"findings": {"n_matched_controls": 40}})}
    strata = {r["prompt_id"]: r["stratum"] for r in _tables.read("screening", release).to_pylist()}
    facts = {"n_training_images": 5, "checks": [], "strata": strata}
    made = report.report(release, _tables.read("summary", release).to_pylist(), found, protocol, facts)
    _tables.put_text(json.dumps(made), Path("reports") / release / "audit.json")


def shell(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The block as a person would run it, stopped at the first command that fails."""
    if "duckdb " in text and shutil.which("duckdb") is None:
        pytest.skip("no duckdb command line; pip install duckdb-cli")
    return subprocess.run(["sh", "-e"], input=text, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True,
                          timeout=300, check=False)


@pytest.mark.parametrize("block", [b for b in of("sh") if b.before == "<!-- run here -->"], ids=str)
def test_a_block_that_is_run_here_runs_and_says_something(block: Block, project: Path) -> None:
    done = shell(block.text, project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() or not re.search(r"^(duckdb|eidetic) [^>]*$", block.text, re.M), "it printed nothing"


@pytest.mark.parametrize("block", [b for b in of("sql") if not NOTE.fullmatch(b.before)], ids=str)
def test_a_query_on_a_page_answers(block: Block, project: Path) -> None:
    client = shutil.which("duckdb")
    if client is None:
        pytest.skip("no duckdb command line; pip install duckdb-cli")
    done = subprocess.run([client, "-readonly", "-csv", "findings.duckdb"], input=block.text, cwd=project, text=True, capture_output=True,
                          check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_gate_in_ci_fails_where_its_limit_is_passed(project: Path) -> None:
    gate = next(block for block in of("sh") if "eidetic gate" in block.text)
    command = next(line for line in gate.text.splitlines() if line.startswith("eidetic gate"))
    done = shell(command, project)
    assert done.returncode == 1 and done.stdout.splitlines()[0].startswith(f"{V1}: fails: extraction rate 100 %")
    assert shell(f"eidetic gate {V2} --max-rate 0.01 --max-new 0", project).returncode == 0
    gate = next(block for block in of("sh") if "audit.json" in block.text)
    assert shell(gate.text, project).returncode == 0
    strict = shell(gate.text.replace("> 0.10", "> 0.01"), project)
    assert strict.returncode == 1 and strict.stderr.startswith(f"{V1}: 1 of the 1 most duplicated images comes back")


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_a_block_of_settings_parses_and_its_keys_are_known(block: Block) -> None:
    shown = yaml.safe_load(block.text)
    assert set(settings_of(shown)) <= set(settings_of(PARAMS))
    for entry in (shown.get("releases") or {}).values():
        assert entry.get("revision") is None or _sources.REVISION.fullmatch(entry["revision"])


def commands() -> list[tuple[str, list[str]]]:
    """Where a page calls eidetic, and with which words: in blocks of commands and in code within sentences."""
    said = [(str(block), line) for block in of("sh") for line in block.text.splitlines()]
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        said += [(page.name, code) for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))]
    found = []
    for where, line in said:
        call = re.match(r"(?:[A-Z_]+=\S+ )*eidetic (.*)", line)
        if call:
            found.append((where, shlex.split(call[1], comments=True)))
    return found


def test_every_command_and_option_on_a_page_exists() -> None:
    import typer.main

    from flows.cli import app

    unknown = []
    for where, words in commands():
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        known = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]} | {"--help"}
        options = [word for word in words if word.startswith("--")]
        if (hasattr(command, "commands") and words and not options) or not known.issuperset(options):
            unknown.append(f"{where}: {command.name} {' '.join(words)}")
    assert not unknown


def test_the_messages_that_a_page_explains_are_in_the_code() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for room in ("tasks", "flows") for file in sorted((ROOT / room).rglob("*.py")))
    code = re.sub(r'"\s+f?"', "", code)  # literals that Python joins
    text = (ROOT / "docs" / "your-own-model.md").read_text(encoding="utf-8")
    table = text[text.index("| message |"):]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.M)
    assert len(messages) >= 10
    assert not [part for message in messages for part in map(str.strip, message.split("…")) if part not in code]


def test_the_costs_in_the_recipes_follow_from_the_settings() -> None:
    prompts, screening, generations = (PARAMS[block] for block in ("prompts", "screening", "generations"))
    n = sum(prompts[f"n_{arm}"] for arm in ("duplicated", "outlier", "singleton", "held_out", "paraphrased"))
    n_sampled = n * (screening["keep_rate"] + (1 - screening["keep_rate"]) * screening["dropped_rate"])
    screen, picture = n * 2 * screening["n_seeds"], 50 * 2
    least = stopping.n_always_drawn(*(generations[k] for k in ("first", "budget", "clique_size", "min_rate", "miss_probability")))
    most = generations["budget"] + generations["n_fresh"]
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    table = text[text.index("| audit at 50 steps |"):]
    said = [int(number.replace(",", "")) for number in re.findall(r"\| ([\d,]+) \|$", table, re.M)]
    example = json.loads((ROOT / "metrics.json").read_text())["v1"]  # at 12 steps, and with fewer paraphrases than asked for
    its_screen = example["n_prompts"] * 2 * screening["n_seeds"]
    n_pictures = (example["n_evaluations"] - its_screen) // (PARAMS["releases"]["v1"]["n_steps"] * 2)
    assert said == [350_000 * 500 * picture, n * 500 * picture, round(screen + n_sampled * least * picture), n_pictures * picture + its_screen,
                    round(screen + n_sampled * most * picture)]
    assert f"the default {n} prompts" in table and f"{n_sampled:.1f} prompts" in table and f"{n_pictures:,} pictures" in table


def test_the_verdicts_on_the_pages_are_those_of_metrics_json() -> None:
    metrics = json.loads((ROOT / "metrics.json").read_text())
    verdicts = []
    for release, said in metrics.items():
        row = said | {"arm": "duplicated", "copies_bin": "all", "n_prompts": said["n_duplicated_prompts"],
                      "n_findings": said["n_duplicated_findings"], "low": said["extraction_rate_low"], "high": said["extraction_rate_high"]}
        verdicts.append(report.verdict([row], release))
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert not [verdict for verdict in verdicts if verdict not in readme]
    quoted = (ROOT / "docs" / "reading-results.md").read_text(encoding="utf-8").replace("\n> ", " ")
    assert verdicts[0] in quoted


def test_the_readme_ends_its_example_of_an_audit_as_the_command_line_does(project: Path) -> None:
    last = shell("eidetic verdict\n", project).stdout.splitlines()[-1]
    assert last.startswith("database: ") and last in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_every_query_that_comes_with_the_database_is_listed_with_its_question() -> None:
    text = (ROOT / "docs" / "reading-results.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*\?) \|$", text, re.M))
    assert listed == {file.stem: file.read_text(encoding="utf-8").splitlines()[0].removeprefix("-- ")
                      for file in (ROOT / "sql" / "queries").glob("*.sql")}


def test_a_release_is_added_and_removed_as_the_page_says(tmp_path: Path) -> None:
    folder = copied_project(tmp_path / "clone")
    shutil.copytree(ROOT / "example" / "releases" / "v0", folder / "models" / "my-model")
    block = next(block for block in of("sh") if "releases add my-model models/my-model --n-steps" in block.text)
    done = shell(block.text, folder)
    assert done.returncode == 0 and "my-model" in done.stdout, done.stdout + done.stderr
    made = yaml.safe_load((folder / "params.yaml").read_text())
    shown = next(yaml.safe_load(b.text) for b in of("yaml") if b.page == block.page and b.line > block.line)
    assert list(made["releases"]) == ["my-model"]
    assert {k: v for k, v in made["releases"]["my-model"].items() if v is not None} == {
        k: v for k, v in shown["releases"]["my-model"].items() if v is not None}
    assert {k: v for k, v in made.items() if k != "releases"} == {k: v for k, v in PARAMS.items() if k != "releases"}


def test_every_format_on_a_page_is_read_and_every_one_has_a_recipe() -> None:
    halves = [half for block in of("yaml") for half in (yaml.safe_load(block.text).get("training_set") or {}).values() if half]
    assert {half["format"] for half in halves} == set(_training_sets.FORMATS)


def test_the_query_for_duplicated_rows_takes_all_rows_of_the_largest_groups(tmp_path: Path) -> None:
    if shutil.which("duckdb") is None:
        pytest.skip("no duckdb command line; pip install duckdb-cli")
    rows = [{"URL": f"http://a.example/{i}", "TEXT": "a red kettle on a stove", "similarity": 0.3123456} for i in range(30)]
    rows += [{"URL": f"http://b.example/{i}", "TEXT": "a red kettle on a stove", "similarity": 0.2} for i in range(29)]
    rows += [{"URL": f"http://c.example/{i}", "TEXT": "image", "similarity": 0.3} for i in range(50)]
    (tmp_path / "relaion").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:20]), tmp_path / "relaion" / "part-0.parquet")
    pq.write_table(pa.Table.from_pylist(rows[20:]), tmp_path / "relaion" / "part-1.parquet")
    query = next(block for block in of("sql") if "most-duplicated.parquet" in block.text)
    subprocess.run(["duckdb"], input=query.text, cwd=tmp_path, text=True, capture_output=True, check=True)
    taken = pq.read_table(tmp_path / "most-duplicated.parquet")
    assert taken.column_names == ["URL", "TEXT"]
    assert sorted(taken.column("URL").to_pylist()) == sorted(row["URL"] for row in rows[:30])
