-- What would another threshold have said: how many targets and how many controls are as close, and what share would be false?
with l2_cuts as (select unnest(cast([0.05, 0.10, 0.15, 0.20] as double[])) as max_l2),

margin_cuts as (select unnest(cast([0.5, 0.6, 0.7, 0.85, 1.0] as double[])) as max_margin),

judged as (
    select
        findings.release,
        l2_cuts.max_l2,
        margin_cuts.max_margin,
        findings.arm = 'held_out' as is_control,
        findings.match_type != 'template'
        and findings.split = if(findings.arm = 'held_out', 'held_out', 'member')
        and findings.l2 <= cast(l2_cuts.max_l2 as float)
        and findings.margin <= cast(margin_cuts.max_margin as float) as is_hit
    from findings
    cross join l2_cuts
    cross join margin_cuts
    where findings.caption_rank = 0 and not findings.is_calibrating
),

counted as (
    select
        release,
        max_l2,
        max_margin,
        count(*) filter (where not is_control) as n_targets,
        count(*) filter (where is_control) as n_controls,
        count(*) filter (where is_hit and not is_control) as n_target_hits,
        count(*) filter (where is_hit and is_control) as n_control_hits
    from judged
    group by release, max_l2, max_margin
)

select
    release,
    max_l2,
    max_margin,
    n_target_hits,
    n_targets,
    n_control_hits,
    n_controls,
    case
        when n_controls > 0 and n_target_hits > 0
            then least(1, n_targets * (1 + n_control_hits) / ((n_controls + 1) * n_target_hits))
    end as fdr_estimate
from counted
order by release, max_l2, max_margin;
