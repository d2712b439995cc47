-- The pictures that something in this database refers to. One row per training or held-out image.
create table images as
with referred as (
    select image_id from source.prompts
    union distinct
    select image_id from source.findings
    union distinct
    select image_id from source.matches
    union distinct
    select image_id_a as image_id from source.pairs
    union distinct
    select image_id_b as image_id from source.pairs
)

select
    images.image_id,
    images.key,
    images.split,
    images.caption,
    images.url,
    images.shard,
    images.position,
    images.sha256,
    images.pixel_digest,
    images.pdq,
    images.pdq_quality,
    images.width_px,
    images.height_px,
    images.complexity_bytes,
    images.is_degenerate,
    images.status,
    images.reason
from source.images as images
semi join referred on images.image_id = referred.image_id
order by images.image_id;

comment on table images is
'The pictures that a prompt, finding, match or pair refers to, not the whole set. One row per training or held-out image.';
