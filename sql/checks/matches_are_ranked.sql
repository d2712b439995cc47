-- Rank 0 of each split is the nearest, and no rank is left out.
with ranked as (
    select
        release,
        generation_id,
        split,
        rank,
        l2,
        row_number() over of_split - 1 as expected_rank,
        lag(l2) over of_split as nearer_l2
    from matches
    window of_split as (partition by release, generation_id, split order by rank)
)

select
    release,
    generation_id,
    split,
    rank,
    l2,
    nearer_l2
from ranked
where rank != expected_rank or l2 < nearer_l2;
