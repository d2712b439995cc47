-- How many copies of each image the training set holds, and what was compared. One row per training or held-out image.
create table duplicates as
select
    image_id,
    split,
    cluster_id,
    representative_id,
    n_copies,
    cluster_size,
    n_neighbours,
    component_size,
    min_similarity,
    nearest_other_l2,
    is_chained,
    is_leaked,
    template_id,
    template_size
from source.duplicates
order by image_id;

comment on table duplicates is
'How many copies of each image the training set holds. One row per training or held-out image that could be read.';

create table pairs as
select
    image_id_a,
    image_id_b,
    method,
    similarity,
    l2,
    tile_difference,
    is_copy,
    is_template
from source.pairs
order by image_id_a, image_id_b, method;

comment on table pairs is
'Pictures that were compared as possible copies, shared by all releases. One row per pair.';

create table canaries as
select
    transform,
    is_promised,
    n_planted,
    n_proposed,
    n_found,
    recall,
    recall_low,
    recall_high
from source.canaries
order by transform;

alter table canaries add primary key (transform);

comment on table canaries is
'How well known copies were found by the same search. One row per transform.';

create table thresholds as
select
    name,
    value,
    is_calibrated,
    canary_share,
    n_natural,
    natural_rate
from source.thresholds
order by name;

alter table thresholds add primary key (name);

comment on table thresholds is
'Where copies end, set on canaries against natural neighbours of this very training set. One row per threshold.';
