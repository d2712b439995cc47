-- A comparison counts the clusters that either release hands back, among the prompts of which both drew pictures.
with prompted as (
    select
        prompt_id,
        arm,
        coalesce(cluster_id, -1 - prompt_id) as unit
    from prompts
    where not is_calibrating
),

asked as (
    select
        prompt_id,
        arm,
        unit
    from prompted
    union all
    select
        prompt_id,
        'all' as arm,
        unit
    from prompted
    where arm != 'held_out'
),

units as (
    select
        comparisons.release,
        comparisons.kind,
        comparisons.arm,
        asked.unit,
        bool_or(latest.n_generations > 0 and earlier.n_generations > 0) as is_paired,
        bool_or(latest.is_extracted and earlier.n_generations > 0) as is_extracted,
        bool_or(earlier.is_extracted and latest.n_generations > 0) as was_extracted
    from comparisons
    inner join asked on comparisons.arm = asked.arm
    left join findings as latest on comparisons.release = latest.release and asked.prompt_id = latest.prompt_id
    left join findings as earlier on comparisons.against = earlier.release and asked.prompt_id = earlier.prompt_id
    where comparisons.outcome != 'not_comparable'
    group by comparisons.release, comparisons.kind, comparisons.arm, asked.unit
),

counted as (
    select
        release,
        kind,
        arm,
        count(*) as n_clusters,
        count(*) filter (where not is_paired) as n_unpaired,
        count(*) filter (where is_extracted and was_extracted) as n_both,
        count(*) filter (where is_extracted and not was_extracted) as n_only_later,
        count(*) filter (where was_extracted and not is_extracted) as n_only_earlier
    from units
    group by release, kind, arm
)

select
    comparisons.release,
    comparisons.kind,
    comparisons.arm,
    comparisons.n_clusters,
    counted.n_clusters as n_clusters_counted,
    comparisons.n_only_later,
    counted.n_only_later as n_only_later_counted,
    comparisons.n_only_earlier,
    counted.n_only_earlier as n_only_earlier_counted
from comparisons
left join counted
    on comparisons.release = counted.release and comparisons.kind = counted.kind and comparisons.arm = counted.arm
where
    comparisons.outcome != 'not_comparable'
    and (
        comparisons.n_clusters is distinct from coalesce(counted.n_clusters, 0)
        or comparisons.n_unpaired is distinct from coalesce(counted.n_unpaired, 0)
        or comparisons.n_both is distinct from coalesce(counted.n_both, 0)
        or comparisons.n_only_later is distinct from coalesce(counted.n_only_later, 0)
        or comparisons.n_only_earlier is distinct from coalesce(counted.n_only_earlier, 0)
    );
