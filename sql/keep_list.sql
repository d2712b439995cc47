-- Which rows to keep before training again, by policy. One row per release and image of a cluster that a policy reduces.
create table keep_list as
select
    release,
    image_id,
    key,
    cluster_id,
    n_in_cluster,
    weight,
    is_extracted,
    is_kept_one_per_cluster,
    is_kept_drop_extracted,
    is_kept_cap_k
from source.keep_list
where n_in_cluster > 1 or is_extracted
order by release, image_id;

comment on table keep_list is
'Which rows to keep before training again, of clusters that a policy reduces: all others are kept. One row per release, image.';

create table policies as
select
    release,
    policy,
    n_rows,
    n_dropped,
    n_clusters_reduced,
    n_clusters_dropped,
    n_extracted,
    expected_extracted,
    expected_low,
    expected_high
from source.policies
order by release, policy;

alter table policies add primary key (release, policy);

comment on table policies is
'What each policy removes from the training set, and what it is expected to do. One row per release and policy.';

create view remedies as
with ordinary as (
    select
        release,
        n_pictures,
        n_blocked,
        high
    from filter_rates
    where kind = 'ordinary' and transform = 'none'
),

returned as (
    select
        release,
        n_pictures,
        n_blocked
    from filter_rates
    where kind = 'returned' and transform = 'none'
),

before as (
    select
        release,
        expected_extracted
    from policies
    where policy = 'all'
),

listed as (
    select
        release,
        count(distinct cluster_id) as n_images
    from blocklist
    group by release
)

select
    ordinary.release,
    'filter' as remedy,
    0 as n_rows_dropped,
    ordinary.n_blocked as n_ordinary_blocked,
    ordinary.n_pictures as n_ordinary,
    ordinary.high as ordinary_blocked_high,
    1 as n_descriptors_per_picture,
    coalesce(listed.n_images, 0) as n_images_stopped,
    returned.n_blocked / nullif(returned.n_pictures, 0) as stopped_rate,
    null as expected_extracted_before,
    null as expected_extracted,
    null as expected_low,
    null as expected_high
from ordinary
inner join returned on ordinary.release = returned.release
left join listed on ordinary.release = listed.release
union all
select
    policies.release,
    policies.policy as remedy,
    policies.n_dropped as n_rows_dropped,
    0 as n_ordinary_blocked,
    null as n_ordinary,
    null as ordinary_blocked_high,
    0 as n_descriptors_per_picture,
    null as n_images_stopped,
    null as stopped_rate,
    before.expected_extracted as expected_extracted_before,
    policies.expected_extracted,
    policies.expected_low,
    policies.expected_high
from policies
inner join before on policies.release = before.release
where policies.policy != 'all';

comment on view remedies is
'What each remedy costs beside what it brings. One row per release and remedy.';
comment on column remedies.release is 'Release under audit';
comment on column remedies.remedy is 'filter (the blocklist in front of the model), or a policy of training again';
comment on column remedies.n_rows_dropped is 'Cost: training pictures dropped';
comment on column remedies.n_ordinary_blocked is 'Cost: ordinary pictures that the filter blocked';
comment on column remedies.n_ordinary is 'Of so many; NULL for a policy, which blocks nothing';
comment on column remedies.ordinary_blocked_high is 'Upper end of the 95 % interval of their share; NULL for a policy';
comment on column remedies.n_descriptors_per_picture is
'Cost in time: descriptors computed for every picture a host makes; training again costs a training, which is not counted here';
comment on column remedies.n_images_stopped is
'Training images that the blocklist stops: those that were found, and no other; NULL for a policy';
comment on column remedies.stopped_rate is
'Share of the audit''s copies of them that it blocks, by entries of other copies; NULL for a policy, and without a copy';
comment on column remedies.expected_extracted_before is
'Clusters expected to come back from a model trained on all rows, by extraction_by_copies; NULL for the filter';
comment on column remedies.expected_extracted is
'Clusters expected to come back after training on what is kept: an extrapolation; NULL for the filter';
comment on column remedies.expected_low is 'Its lower end; NULL for the filter';
comment on column remedies.expected_high is 'Its upper end; NULL for the filter';
