-- Every prompt has one finding, one row of screening and one of sampling in every release.
with counted as (
    select
        releases.release,
        prompts.prompt_id,
        (select count(*) from findings where findings.release = releases.release and findings.prompt_id = prompts.prompt_id) as n_findings,
        (select count(*) from screening where screening.release = releases.release and screening.prompt_id = prompts.prompt_id) as n_screening,
        (select count(*) from sampling where sampling.release = releases.release and sampling.prompt_id = prompts.prompt_id) as n_sampling
    from releases
    cross join prompts
)

select
    release,
    prompt_id,
    n_findings,
    n_screening,
    n_sampling
from counted
where n_findings != 1 or n_screening != 1 or n_sampling != 1;
