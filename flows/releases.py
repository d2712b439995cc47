"""The releases under audit: listed, shown, added, removed. params.yaml is edited by lines, so that comments and layout stay."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from flows import stages
from tasks._settings import TryAgain, UserError

app = typer.Typer(no_args_is_help=True, help="The releases under audit, as params.yaml lists them.")
PARAMS = Path("params.yaml")
NUMERIC = tuple("0123456789.+-")  # first characters of what may be a number
Name = Annotated[str, typer.Argument(help="Name of the release")]


def text_of() -> str:
    """params.yaml as it is. Raises UserError where it is missing or not YAML."""
    from tasks import _settings

    _settings.all_settings()
    return PARAMS.read_text(encoding="utf-8")


def chosen(names: list[str] | None) -> list[str]:
    """The releases named, each once, or all. Raises UserError for one that params.yaml does not list, and where it lists none."""
    there = list(listed(text_of()))
    for name in names or []:
        if name not in there:
            raise UserError(f"no release '{name}' in params.yaml; it lists {', '.join(there) or 'none'}")
    if not there:
        raise UserError("params.yaml lists no release; add one with `eidetic releases add NAME MODEL`")
    return list(dict.fromkeys(names or there))


def listed(text: str) -> dict[str, dict[str, Any]]:
    """The releases of a params.yaml, in its order. Raises UserError where they are not entries with settings under names."""
    read = yaml.safe_load(text) or {}
    there = (read.get("releases") if isinstance(read, dict) else read) or {}
    if not isinstance(there, dict):
        raise UserError("the releases of params.yaml are not entries such as `v1: {model: path/or/hub-id, revision: null}`")
    for name, spec in there.items():
        if not isinstance(name, str):
            raise UserError(f"release {name} in params.yaml: YAML does not read its name as text; write '{name}' in quotes")
        if not isinstance(spec, dict):
            raise UserError(f"release '{name}' in params.yaml is {spec}; write `{name}: {{model: path/or/hub-id, revision: null}}`")
    return there


def with_release(text: str, name: str, spec: dict[str, Any]) -> str:
    """params.yaml with one more release, last; every other line as it was. Raises UserError."""
    key, block = _releases(text)
    lines = _lines(text)
    entry = f"{_flow({name: spec})[1:-1]}\n"
    if isinstance(block, yaml.MappingNode) and block.value and not block.flow_style:
        at = _last_line(block.value[-1][1]) + 1
        lines.insert(at, " " * block.value[0][0].start_mark.column + entry)
    else:  # releases: {}, or nothing at all
        at, end = key.end_mark, block.end_mark
        rest = lines[at.line][end.column:] if end.line == at.line and end.column > at.column else "\n"  # a comment beside it
        lines[at.line:at.line + 1] = [lines[at.line][:at.column] + ":" + rest, "  " + entry]
    return _checked("".join(lines), listed(text) | {name: spec}, name)


def without_release(text: str, name: str) -> str:
    """params.yaml without this release; every other line as it was. Raises UserError."""
    key, block = _releases(text)
    lines = _lines(text)
    left = {k: v for k, v in listed(text).items() if k != name}
    for entry, spec in [] if block.flow_style else block.value:
        if entry.value == name:
            del lines[entry.start_mark.line:_last_line(spec) + 1]
    if not left:
        lines[key.start_mark.line] = lines[key.start_mark.line].replace("releases:", "releases: {}", 1)
    return _checked("".join(lines), left, name)


def _releases(text: str) -> tuple[yaml.Node, yaml.Node]:
    """The key `releases` and its value, with their places in the text."""
    for key, value in yaml.compose(text, yaml.SafeLoader).value:
        if key.value == "releases":
            return key, value
    raise UserError("params.yaml has no block 'releases'; copy it from the project's own params.yaml")


def _lines(text: str) -> list[str]:
    return [line + "\n" for line in text.removesuffix("\n").split("\n")]


def _last_line(node: yaml.Node) -> int:
    """Number of the last line of a value, without the comments below it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.line)


def _flow(spec: dict[str, Any]) -> str:
    """One line of YAML. Text that begins like a number is quoted: for YAML 1.2, which DVC reads, 1e3 and 0o7 are numbers, for PyYAML they are text."""
    quoting: Any = type("Quoting", (yaml.SafeDumper,), {})
    quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if text[:1] in NUMERIC else None))
    return str(yaml.dump(spec, Dumper=quoting, default_flow_style=True, sort_keys=False, width=10_000)).strip()


def _checked(text: str, expected: dict[str, Any], name: str) -> str:
    """The text, if its releases are the ones expected."""
    try:
        if listed(text) == expected:
            return text
    except (yaml.YAMLError, UserError):
        pass
    raise UserError(f"params.yaml is laid out in a way that is not edited by machine; edit the entry '{name}' by hand")


@app.command("list")
def list_releases() -> None:
    """Name and model of each release."""
    for name, spec in listed(text_of()).items():
        typer.echo(f"{name:<24} {spec.get('model')}{'@' + spec['revision'][:8] if spec.get('revision') else ''}")


@app.command("show")
def show_release(name: Name) -> None:
    """A release's entry, what `inputs` last said of it, and its audits."""
    from tasks import _database, _sources

    chosen([name])
    for key, value in listed(text_of())[name].items():
        typer.echo(f"{key}: {value}")
    try:
        accepted = _sources.release(name)
        typer.echo(f"accepted, digest {accepted.digest}")
    except UserError as error:
        typer.echo(str(error))
    if stages.DATABASE.is_file():
        typer.echo(_database.shown(stages.DATABASE, f"select audit_id, audited_at, stack from audits where release = '{name}'", "table"))


@app.command("add")
def add_release(
    name: Name,
    model: Annotated[str, typer.Argument(help="A diffusers folder, or a Hub id with --revision")],
    revision: Annotated[str | None, typer.Option(help="Commit of a Hub id, 40 digits")] = None,
    n_steps: Annotated[int | None, typer.Option(help="Steps people sample it with; the pipeline's own where not given")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Guidance people sample it with")] = None,
    kept: Annotated[Path | None, typer.Option(help="CSV with a column key: the members it was trained on, where not all")] = None,
) -> None:
    """Add a release to params.yaml, if it may be loaded. Comments and layout stay."""
    from tasks import _sources, _tables

    text = text_of()
    there = listed(text)
    _sources.require_name(name)
    if name in there:
        raise UserError(f"release '{name}' is in params.yaml already, as {there[name].get('model')}; choose another name")
    given = {"n_steps": n_steps, "guidance_scale": guidance_scale, "kept": str(kept) if kept else None}
    spec = {"model": model, "revision": revision} | {k: v for k, v in given.items() if v is not None}
    try:
        _sources.accepted(spec)
    except TryAgain:
        raise
    except UserError as error:
        raise UserError(f"release '{name}' is refused: {error}") from None
    _tables.put_text(with_release(text, name, spec), PARAMS)
    typer.echo(f"{name} is in params.yaml; `eidetic audit {name}` audits it")


@app.command("remove")
def remove_release(name: Name) -> None:
    """Take a release out of params.yaml. Its audits stay in the history."""
    from tasks import _tables

    chosen([name])
    beside = next((other for other, spec in listed(text_of()).items() if name in (spec.get("compare_to"), spec.get("base")) and other != name), None)
    if beside:
        raise UserError(f"release '{beside}' is compared to '{name}'; change that in params.yaml first")
    _tables.put_text(without_release(text_of(), name), PARAMS)
    typer.echo(f"{name} is no longer under audit; its audits stay in audits/ and, after `eidetic audit`, in the history tables")
