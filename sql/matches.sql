-- What each generation looks like among all pictures, seen and unseen. One row per release, generation, split and rank.
create table matches as
select
    release,
    generation_id,
    prompt_id,
    split,
    rank,
    image_id,
    cluster_id,
    similarity,
    l2,
    tiled_l2,
    adaptive_l2,
    margin,
    is_own_cluster
from source.matches
order by release, generation_id, split, rank, image_id;

comment on table matches is
'What each generation looks like among all pictures, seen and unseen. One row per release, generation, split and rank.';
