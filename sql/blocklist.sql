-- What a filter must know to stop what was extracted. One row per release and blocked entry.
create table blocklist as
select
    release,
    entry_id,
    cluster_id,
    kind,
    generation_id,
    image_id,
    pixel_digest,
    pdq,
    pdq_quality,
    layout,
    nearest_ordinary,
    threshold
from source.blocklist
order by release, entry_id;

alter table blocklist add primary key (release, entry_id);

comment on table blocklist is
'What a filter must know to stop what was extracted. One row per release and blocked entry.';

create table filter_rates as
select
    release,
    kind,
    transform,
    is_promised,
    n_prompts,
    n_pictures,
    n_blocked,
    blocked_rate,
    low,
    high,
    n_prompts_blocked,
    prompts_high
from source.filter_rates
order by release, kind, transform;

alter table filter_rates add primary key (release, kind, transform);

comment on table filter_rates is
'How often the filter blocks what it should and what it should not. One row per release, kind of pictures and alteration.';

create view blocklist_coverage as
with listed as (
    select distinct
        release,
        cluster_id
    from blocklist
),

arms as (
    select
        findings.release,
        findings.arm,
        count(distinct listed.cluster_id) as n_listed
    from findings
    left join listed on findings.release = listed.release and findings.cluster_id = listed.cluster_id
    where findings.is_extracted and findings.caption_rank = 0
    group by findings.release, findings.arm
)

select
    summary.release,
    summary.arm,
    coalesce(arms.n_listed, 0) as n_listed,
    summary.estimated_total,
    summary.estimated_total_low,
    summary.estimated_total_high,
    case
        when summary.estimated_total > 0 then least(1, coalesce(arms.n_listed, 0) / summary.estimated_total)
    end as covered_rate,
    case
        when summary.estimated_total_high > 0 then least(1, coalesce(arms.n_listed, 0) / summary.estimated_total_high)
    end as covered_rate_low,
    case
        when summary.estimated_total_low > 0 then least(1, coalesce(arms.n_listed, 0) / summary.estimated_total_low)
    end as covered_rate_high
from summary
left join arms on summary.release = arms.release and summary.arm = arms.arm
where summary.copies_bin = 'all' and summary.estimated_total is not null;

comment on view blocklist_coverage is
'Share of what is estimated to be extractable that the blocklist stops: it stops what was found. One row per release and arm.';
comment on column blocklist_coverage.release is 'Release under audit';
comment on column blocklist_coverage.arm is 'Arm of the prompts';
comment on column blocklist_coverage.n_listed is 'Clusters that came back from prompts of the arm and are on the blocklist';
comment on column blocklist_coverage.estimated_total is
'Extractable clusters in the arm''s frame, estimated: summary.estimated_total';
comment on column blocklist_coverage.estimated_total_low is 'Lower end of its interval';
comment on column blocklist_coverage.estimated_total_high is 'Upper end of its interval';
comment on column blocklist_coverage.covered_rate is
'n_listed / estimated_total, at most 1; NULL where nothing is estimated to be extractable';
comment on column blocklist_coverage.covered_rate_low is 'n_listed / estimated_total_high; NULL for an upper end of 0';
comment on column blocklist_coverage.covered_rate_high is
'n_listed / estimated_total_low, at most 1; NULL for a lower end of 0';
