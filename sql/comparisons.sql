-- Each release against the one above it and against its base. One row per release, kind of comparison and arm.
create table comparisons as
select
    release,
    kind,
    arm,
    against,
    outcome,
    reason,
    n_clusters,
    n_unpaired,
    n_both,
    n_only_later,
    n_only_earlier,
    difference,
    low,
    high,
    bootstrap_low,
    bootstrap_high,
    p_value
from source.comparisons
order by release, kind, arm;

alter table comparisons add primary key (release, kind, arm);

comment on table comparisons is
'Each release against the one above it and against its base, on the same prompts and seeds. One row per release, kind and arm.';

create view regressions as
with pairs as (
    select
        release,
        kind,
        against
    from comparisons
    where arm = 'all' and outcome != 'not_comparable'
)

select
    pairs.release,
    pairs.kind,
    pairs.against,
    latest.prompt_id,
    prompts.caption,
    latest.arm,
    latest.image_id,
    images.key,
    latest.cluster_id,
    latest.match_type,
    latest.l2,
    earlier.l2 as earlier_l2,
    latest.margin,
    earlier.margin as earlier_margin,
    latest.n_copies,
    case when earlier.cluster_id = latest.cluster_id then earlier.n_copies end as earlier_n_copies,
    duplicates.n_copies as n_copies_in_set,
    earlier.n_generations > 0 as was_drawn,
    not exists (
        select 1
        from findings as returned
        where returned.release = pairs.against and returned.is_extracted and returned.cluster_id = latest.cluster_id
    ) as is_new_image
from pairs
inner join findings as latest on pairs.release = latest.release
inner join findings as earlier on pairs.against = earlier.release and latest.prompt_id = earlier.prompt_id
inner join prompts on latest.prompt_id = prompts.prompt_id
left join images on latest.image_id = images.image_id
left join duplicates on latest.image_id = duplicates.image_id
where latest.is_extracted and not earlier.is_extracted;

comment on view regressions is
'What a release hands back on a prompt that gave no training image in the other one. One row per release, kind and prompt.';
comment on column regressions.release is 'Release under audit';
comment on column regressions.kind is 'previous (against releases.compare_to) or base (against releases.base)';
comment on column regressions.against is 'The other release';
comment on column regressions.prompt_id is 'The prompt';
comment on column regressions.caption is 'Text given to both models';
comment on column regressions.arm is 'Arm of the prompt';
comment on column regressions.image_id is 'Training image that comes back';
comment on column regressions.key is 'Its name in the training set; NULL where images no longer has it';
comment on column regressions.cluster_id is 'Its cluster';
comment on column regressions.match_type is 'Match type in this release';
comment on column regressions.l2 is 'l2 of the medoid to that image';
comment on column regressions.earlier_l2 is
'l2 of the other release''s medoid to the picture nearest to it, whichever that was; NULL where it was not compared';
comment on column regressions.margin is
'Margin of the medoid in this release; NULL where there is no other picture';
comment on column regressions.earlier_margin is 'Margin of the other release''s medoid; NULL where it was not compared';
comment on column regressions.n_copies is 'Copies of the image this release was trained on';
comment on column regressions.earlier_n_copies is
'Copies the other one was trained on; NULL where its medoid was nearest to a picture of another cluster, or to none';
comment on column regressions.n_copies_in_set is
'Copies in the whole training set, whatever either release kept of it; NULL where duplicates no longer has it';
comment on column regressions.was_drawn is
'Whether the other release drew pictures of the prompt: without, it is no evidence of a change, and comparisons leave it out';
comment on column regressions.is_new_image is 'Whether the other release hands the image back on no prompt at all';
