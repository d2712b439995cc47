"""findings.duckdb of two large audits: what building it takes, and what every question of sql/queries does; ten minutes on two cores.

    python -m bench.warehouse [--generations 1000000] [--findings 100000] [--images 1000000] [--folder FOLDER]

The tables are made up by DuckDB, whole and consistent, so that `warehouse` builds them as it builds any and every rule of sql/checks holds.
Each question is asked as `eidetic sql` asks it, on a connection of its own, five times after a first that warms the system's file cache.
"""

import argparse
import math
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _database, _tables, duplicates, findings, generations, images, matches, prompts, reviews, screening, summary, warehouse
from tests import tiny_audit

ROOT = Path(__file__).resolve().parents[1]
RELEASES = ("v1", "v2")
N_RANKS = 5  # matches.k of params.yaml, of each split
N_TIMES = 5
OF_PROMPT = """
    prompt_id,
    case when prompt_id % 10 < 6 then 'duplicated' when prompt_id % 10 = 6 then 'singleton' when prompt_id % 10 = 7 then 'outlier' else 'held_out' end as arm,
    prompt_id % 10 >= 8 as is_control,
    prompt_id % 5 != 4 as is_sampled,
"""
PROMPTS = """
    select {of_prompt} 'picture number ' || prompt_id as caption, prompt_id as image_id, prompt_id as cluster_id, prompt_id as seed_id,
        case when is_control then null when prompt_id % 10 < 6 then '4-9' else '1' end as copies_bin, if(is_control, 0, size) as n_copies
    from (select range as prompt_id from range(1, {n_prompts} + 1)) left join sizes on prompt_id = sizes.cluster_id
"""
DUPLICATES = """
    select image_id, split, cluster_id, size as cluster_size, if(split = 'member', size, 0) as n_copies, size - 1 as n_neighbours,
        if(cluster_id % 97 = 0, 5 * size, size) as component_size, cluster_id % 97 = 0 as is_chained, 0.9 as min_similarity, 0.2 as nearest_other_l2
    from library inner join sizes using (cluster_id)
"""
IMAGES = "select image_id, image_id || '.png' as key, split, 'caption ' || image_id as caption, 'ok' as status, 64 as width_px, 64 as height_px from library"
SCREENING = """
    select '{release}' as release, prompt_id, hash(prompt_id, '{release}') % 1000 / 50 as text_noise_norm, 8 as n_evaluations,
        if(prompt_id % 20 = 0 or not is_sampled, 'dropped', 'kept') as stratum, 1.0 as inclusion_probability, is_sampled from asked
"""
GENERATIONS = """
    select '{release}' as release, prompt_id * 1000 + index as generation_id, prompt_id, index, hash(prompt_id, index) % 1000000 as seed,
        'pictures_' || lpad((prompt_id // 1000)::varchar, 5, '0') || '.parquet' as shard, index as position,
        sha256((prompt_id * 1000 + index)::varchar) as sha256, 24 as n_evaluations, 'ok' as status
    from asked, unnest(range(0, {n_each})) as of_prompt(index) where is_sampled
"""
SAMPLING = """
    select '{release}' as release, prompt_id, if(is_sampled, {n_each}, 0) as n_generations, if(is_sampled, 24 * {n_each}, 0) as n_evaluations,
        if(is_sampled, 'futile', 'not_sampled') as stop_reason, if(is_sampled, prompt_id * 1000, null) as medoid_generation_id from asked
"""
MATCHES = """
    select '{release}' as release, prompt_id * 1000 + index as generation_id, prompt_id, split, rank, 0.1 + 0.05 * rank as l2, 0.2 + 0.05 * rank as tiled_l2,
        0.3 + 0.1 * rank as margin, 0.9 - 0.1 * rank as similarity,
        10 * (hash(prompt_id, index, rank) % ({n_prompts} // 10))::bigint + if(split = 'member', 1 + rank, 8) as image_id, image_id as cluster_id
    from asked, unnest(range(0, {n_each})) as of_prompt(index), unnest(['member', 'held_out']) as splits(split), unnest(range(0, {n_ranks})) as ranks(rank)
    where is_sampled
"""
FINDINGS = """
    with judged as (
        select *, is_sampled and not is_control and hash(prompt_id, '{release}') % 5 = 0 as is_extracted from asked
    )
    select '{release}' as release, prompt_id, hash('{release}', prompt_id) // 4 as finding_id, arm, true as is_compared, is_extracted,
        case when is_extracted then 'verbatim' when is_sampled and prompt_id % 50 = 3 then 'undecided' else 'none' end as match_type,
        if(is_sampled, {n_each}, 0) as n_generations, if(is_sampled, 24 * {n_each}, 0) + 8 as n_evaluations,
        if(is_sampled, {n_each}, 0) as n_judged, if(is_extracted, {n_each}, 0) as n_hits, if(is_extracted, 16, 100) as code_bytes, 16 as thumbnail_px,
        3 as eidetic_k, 3 as eidetic_k_10, 3 as eidetic_k_15, hash(prompt_id) % 1000 / 1000.0 as draw,
        if(is_sampled, prompt_id * 1000, null) as generation_id, if(is_sampled, prompt_id, null) as image_id, if(is_sampled, prompt_id, null) as cluster_id,
        case when not is_sampled then null when is_control then 'held_out' else 'member' end as split,
        if(is_sampled, hash(prompt_id, 0::bigint) % 1000000, null) as seed, if(is_sampled, if(is_extracted, 0.03 + 0.1 * draw, 0.2 + draw), null) as l2,
        l2 + 0.05 as tiled_l2, if(is_sampled, if(is_extracted, 0.2 + 0.4 * draw, 0.85 + draw), null) as margin, if(is_sampled, 0.8, null) as similarity,
        if(is_sampled, if(is_extracted, 1.0, 0.0), null) as hit_rate, if(is_extracted, if(draw < 0.1, 0.4, 0.7), if(is_sampled, 0.0, null)) as hit_rate_low,
        if(is_extracted, 1.0, if(is_sampled, 0.3, null)) as hit_rate_high, if(is_sampled, 1 + prompt_id % 12, null) as clique_size, n_copies,
        if(is_sampled, is_extracted, null) as is_own_image from judged
"""


def put(found: pa.Table, schema: pa.Schema, *place: str | None) -> None:
    """Write a table of this schema: what it lacks is null, or empty where it must not be."""
    empty = tiny_audit.row(schema)
    columns = [found[f.name].cast(f.type) if f.name in found.column_names else pa.repeat(pa.scalar(empty[f.name], f.type), found.num_rows) for f in schema]
    _tables.put(pa.Table.from_arrays(columns, schema=schema), _tables.path(*place))


def make(n_prompts: int, n_each: int, n_images: int) -> None:
    """Two audits of n_prompts prompts, four in five of which have n_each pictures, in the working directory."""
    tiny_audit.put_project()
    tiny_audit.put_params({release: {"model": release, "base": None if release == RELEASES[0] else RELEASES[0]} for release in RELEASES})
    for release in RELEASES:
        tiny_audit.put_model(release)
        for noun in warehouse.RELEASE_STAGES:
            tiny_audit.put_checks(noun, release, [noun])
    shutil.copytree(ROOT / "sql", "sql")
    with duckdb.connect() as connection:
        connection.execute(f"""
            create table library as select range as image_id, if(range <= {n_prompts} and range % 10 >= 8, 'held_out', 'member') as split,
                if(range <= {n_prompts}, range, 10 * (range % ({n_prompts} // 10)) + range % 6) as cluster_id from range(1, {n_images} + 1);
            update library set cluster_id = 1 where cluster_id = 0;
            create table sizes as select cluster_id, count(*) as size from library group by cluster_id""")
        texts = {"n_prompts": n_prompts, "n_each": n_each, "n_ranks": N_RANKS, "of_prompt": OF_PROMPT}
        connection.execute("create table asked as " + PROMPTS.format(**texts))
        shared = ((IMAGES, images.SCHEMA, "images"), (DUPLICATES, duplicates.SCHEMA, "duplicates"), ("from asked", prompts.SCHEMA, "prompts"))
        for query, schema, noun in shared:
            put(connection.sql(query).to_arrow_table(), schema, noun)
        nothing = pa.table({"image_id_a": pa.array([], pa.int64())})
        put(nothing, duplicates.PAIRS, "duplicates", None, "pairs")
        for release in RELEASES:
            tiny_audit.put_protocol(release, tiny_audit.SETTINGS)
            for query, schema, noun, side in (
                    (SCREENING, screening.SCHEMA, "screening", None), (GENERATIONS, generations.SCHEMA, "generations", None),
                    (SAMPLING, generations.SAMPLING, "generations", "sampling"), (MATCHES, matches.SCHEMA, "matches", None),
                    (FINDINGS, findings.SCHEMA, "findings", None)):
                put(connection.sql(query.format(release=release, **texts)).to_arrow_table(), schema, noun, release, side)
            summarise(release)
            members = connection.sql("select image_id, image_id || '.png' as key, cluster_id from library where split = 'member'").to_arrow_table()
            tiny_audit.put_remedies(release, _tables.read("findings", release).to_pylist(), members)
    label()


def label() -> None:
    """A label of every eighth finding of the first release, by the protocol it was found with."""
    found = _tables.read("findings", RELEASES[0]).filter(pc.equal(pc.bit_wise_and(pc.field("prompt_id"), 7), 0))
    bound = _tables.read("screening", RELEASES[0], side="protocol")
    lines = [{"release": RELEASES[0], "finding_id": n, "reviewer": "ada", "label": "copy", "protocol_digest": bound["protocol_digest"][0].as_py(), "line": line,
              "status": "ok"} for line, n in enumerate(found["finding_id"].to_pylist(), 2)]
    put(pa.Table.from_pylist(lines), reviews.SCHEMA, "reviews")


def summarise(release: str) -> None:
    """The summary of the findings, as the stage makes it."""
    asked = {r["prompt_id"]: r for r in _tables.read("prompts").to_pylist()}
    told = _tables.read("findings", release).to_pylist()
    rows = [r | {"copies_bin": asked[r["prompt_id"]]["copies_bin"] or "unseen", "own_cluster": r["prompt_id"], "stratum": "kept"} for r in told]
    bound = {k: _tables.read("screening", release, side="protocol").column(k)[0].as_py() for k in ("release", "protocol_digest")}
    _tables.put(summary.summary(rows, {}, {"member": 0, "held_out": 0}, bound, 0.95), _tables.path("summary", release))


def seconds(query: str) -> tuple[float, float, int]:
    """Median and longest of N_TIMES answers, and their rows."""
    taken, n = [], _database.rows(warehouse.DATABASE, query).num_rows
    for _ in range(N_TIMES):
        start = time.perf_counter()
        _database.rows(warehouse.DATABASE, query)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), max(taken), n


def main() -> None:
    """Print what the build took and a row per question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("generations", 1_000_000), ("findings", 100_000), ("images", 1_000_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="eidetic-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    if not (folder / "sql").exists():
        n_prompts = asked.findings // len(RELEASES)
        make(n_prompts, math.ceil(asked.generations / len(RELEASES) / (0.8 * n_prompts)), asked.images)
    start = time.perf_counter()
    warehouse.main()
    built, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    counts = _database.rows(warehouse.DATABASE, "select table_name, estimated_size from duckdb_tables() order by estimated_size desc limit 4").to_pylist()
    print(f"built in {built:.0f} s, {warehouse.DATABASE.stat().st_size / 1e6:,.0f} MB, peak memory {peak:.1f} GB: "
          + ", ".join(f"{r['estimated_size']:,} {r['table_name']}" for r in counts) + "\n\n| query | rows | seconds | longest |\n|---|---|---|---|")
    for file in sorted((ROOT / "sql" / "queries").glob("*.sql")):
        median, longest, n = seconds(_database.statement(file)[1])
        print(f"| `{file.stem}` | {n:,} | {median:.2f} | {longest:.2f} |", flush=True)
    if asked.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
