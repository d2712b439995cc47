-- From how many copies on are images extracted?
select
    release,
    copies_bin,
    n_findings,
    n_prompts,
    extraction_rate,
    low,
    high
from extraction_by_copies
where arm in ('duplicated', 'singleton')
order by release, least_copies, arm;
