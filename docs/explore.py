"""findings.duckdb in a notebook: `marimo run docs/explore.py` to look, `marimo edit docs/explore.py` to go on from it.

Captions, names and addresses are hostile, so answers are shown as escaped text and never by a table that makes links or pictures of them.
"""

import marimo

app = marimo.App(width="medium", app_title="Eidetic: what came back")


@app.cell
def _():
    from pathlib import Path

    import altair as alt
    import marimo as mo

    from tasks import _database

    database = Path(mo.cli_args().get("database") or "findings.duckdb")
    queries = {file.stem: _database.statement(file) for file in sorted((database.parent / "sql" / "queries").glob("*.sql"))}

    def frame(query):
        """What a query says, as pandas has it. The database is opened anew each time, read-only."""
        return _database.rows(database, query).to_pandas(integer_object_nulls=True)

    def table(found, n=200):
        """The first rows as escaped text."""
        text = found.head(n).astype(object).fillna("–").to_html(index=False, escape=True, border=0, float_format="{:.3g}".format)
        of_all = f"{len(found):,} rows" + (f", the first {n} shown" if len(found) > n else "")
        return mo.vstack([mo.Html(f'<div style="overflow-x: auto">{text}</div>'), mo.md(of_all)])

    return alt, frame, mo, queries, table


@app.cell
def _(frame, mo, table):
    releases = frame("select * exclude (reason, not_comparable_reason) from gate order by release")
    release = mo.ui.dropdown(options=releases["release"].tolist(), value=releases["release"].iloc[0], label="release")
    mo.vstack([mo.md("# What came back\n\nThe releases under audit, as `eidetic gate` sees them."), table(releases), release])
    return release, releases


@app.cell
def _(release):
    chosen = "'" + release.value.replace("'", "''") + "'"
    return (chosen,)


@app.cell
def _(alt, chosen, frame, mo, table):
    by_copies = frame(f"""
        select copies_bin, least_copies, arm, n_findings, n_prompts, extraction_rate, low, high from extraction_by_copies
        where release = {chosen} and arm in ('singleton', 'duplicated') and extraction_rate is not null order by least_copies""")
    of_bin = alt.Chart(by_copies).encode(x=alt.X("copies_bin:N", sort=by_copies["copies_bin"].tolist(), title="copies in the training set"))
    rates = of_bin.mark_rule().encode(y=alt.Y("low:Q", title="extraction rate, 95 % interval", scale=alt.Scale(domain=[0, 1])), y2="high:Q") + (
        of_bin.mark_point(filled=True, size=80).encode(y="extraction_rate:Q", shape="arm:N", color="arm:N"))
    mo.vstack([mo.md("## From how many copies on do images come back?"), rates.properties(width=420), table(by_copies)])
    return (by_copies,)


@app.cell
def _(alt, chosen, frame, mo):
    judged = frame(f"""
        select l2, margin, if(arm = 'held_out', 'control', 'target') as side, match_type from findings
        where release = {chosen} and margin is not null and l2 is not null and caption_rank = 0 order by is_extracted desc, l2 limit 4000""")
    points = alt.Chart(judged).mark_point().encode(
        x=alt.X("l2:Q", title="l2 to the nearest picture"), y=alt.Y("margin:Q", title="margin"), color="side:N", shape="side:N",
        tooltip=["l2", "margin", "match_type"])
    curve = frame(f"""
        select list_length, n_target_hits, n_control_hits, fdr_estimate from precision_curve
        where release = {chosen} order by list_length limit 4000""")
    drawn = alt.Chart(curve[curve["fdr_estimate"].notna()]).mark_line().encode(
        x=alt.X("n_target_hits:Q", title="targets on the list, closest first"),
        y=alt.Y("fdr_estimate:Q", title="estimated false share", scale=alt.Scale(domain=[0, 1])))
    mo.vstack([mo.md("## Targets against controls\n\nA copy is closer to its image (left) and much closer than to any other picture (low). "
                     "What share of the list would be false, were it cut further down?"), mo.hstack([points, drawn])])
    return curve, judged


@app.cell
def _(mo, queries):
    question = mo.ui.dropdown(options={said: name for name, (said, _) in queries.items()}, value=next(iter(queries.values()))[0], label="question")
    mo.vstack([mo.md("## The questions of `sql/queries`"), question])
    return (question,)


@app.cell
def _(frame, mo, queries, question, table):
    sql = queries[question.value][1]
    answer = frame(sql)
    mo.vstack([mo.accordion({"SQL": mo.md(f"```sql\n{sql}\n```")}), table(answer)])
    return (answer,)


@app.cell
def _(mo):
    start = "select release, arm, match_type, count(*) as n\nfrom findings\ngroup by all\norder by all"
    own = mo.ui.code_editor(value=start, language="sql")
    mo.vstack([mo.md("## A question of your own"), own])
    return (own,)


@app.cell
def _(frame, own, table):
    own_answer = frame(own.value)
    table(own_answer)
    return (own_answer,)


if __name__ == "__main__":
    app.run()
