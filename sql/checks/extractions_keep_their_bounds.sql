-- Verbatim and template findings keep the l2 and margin of the settings, near copies their margin.
with bounds as (
    select
        release,
        max(cast(value as double)) filter (where name = 'findings.verbatim_l2') + 1e-6 as verbatim_l2,
        max(cast(value as double)) filter (where name = 'findings.verbatim_margin') + 1e-6 as verbatim_margin,
        max(cast(value as double)) filter (where name = 'findings.near_copy_margin') + 1e-6 as near_copy_margin
    from settings
    where name in ('findings.verbatim_l2', 'findings.verbatim_margin', 'findings.near_copy_margin')
    group by release
)

select
    findings.release,
    findings.finding_id,
    findings.match_type,
    findings.l2,
    findings.margin
from findings
inner join bounds on findings.release = bounds.release
where
    (findings.match_type in ('verbatim', 'template') and findings.l2 > bounds.verbatim_l2)
    or (findings.match_type in ('verbatim', 'template') and findings.margin > bounds.verbatim_margin)
    or (findings.match_type = 'near_copy' and findings.margin > bounds.near_copy_margin);
