-- tiled_l2 is at least l2: the worst tile is no better than the whole.
select
    release,
    generation_id,
    image_id,
    l2,
    tiled_l2
from matches
where tiled_l2 < l2 - 1e-4;
