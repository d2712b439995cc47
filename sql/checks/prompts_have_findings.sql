-- Every prompt has one finding, one row of screening and one of sampling in every release that is current.
with listed as (
    select
        releases.release,
        prompts.prompt_id,
        'prompts' as part
    from releases
    cross join prompts
    where releases.status = 'current'
    union all
    select
        release,
        prompt_id,
        'findings' as part
    from findings
    union all
    select
        release,
        prompt_id,
        'screening' as part
    from screening
    union all
    select
        release,
        prompt_id,
        'sampling' as part
    from sampling
),

counted as (
    select
        release,
        prompt_id,
        count(*) filter (where part = 'prompts') as n_prompts,
        count(*) filter (where part = 'findings') as n_findings,
        count(*) filter (where part = 'screening') as n_screening,
        count(*) filter (where part = 'sampling') as n_sampling
    from listed
    group by release, prompt_id
)

select
    release,
    prompt_id,
    n_prompts,
    n_findings,
    n_screening,
    n_sampling
from counted
where n_prompts != 1 or n_findings != 1 or n_screening != 1 or n_sampling != 1;
