-- Every match names a picture of its split.
select
    matches.release,
    matches.generation_id,
    matches.split,
    matches.rank,
    matches.image_id
from matches
left join images on matches.image_id = images.image_id
where images.image_id is null or images.split != matches.split;
