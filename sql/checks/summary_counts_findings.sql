-- The row all of each arm counts its prompts and findings, one per cluster, and all evaluations.
with counted as (
    select
        release,
        arm,
        count(*) filter (where caption_rank = 0) as n_prompts,
        count(*) filter (where caption_rank = 0 and is_extracted) as n_findings,
        count(*) filter (where caption_rank > 0) as n_further_prompts,
        cast(sum(n_evaluations) as bigint) as n_evaluations
    from findings
    group by release, arm
)

select
    counted.release,
    counted.arm,
    counted.n_prompts,
    summary.n_prompts as n_prompts_said,
    counted.n_findings,
    summary.n_findings as n_findings_said,
    counted.n_further_prompts,
    summary.n_further_prompts as n_further_prompts_said,
    counted.n_evaluations,
    summary.n_evaluations as n_evaluations_said
from counted
left join summary on counted.release = summary.release and counted.arm = summary.arm and summary.copies_bin = 'all'
where
    counted.n_prompts is distinct from summary.n_prompts
    or counted.n_findings is distinct from summary.n_findings
    or counted.n_further_prompts is distinct from summary.n_further_prompts
    or counted.n_evaluations is distinct from summary.n_evaluations;
