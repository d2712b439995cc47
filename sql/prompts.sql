-- Which captions are probed, by arm. One row per prompt.
create table prompts as
select
    prompt_id,
    caption,
    image_id,
    cluster_id,
    arm,
    copies_bin,
    inclusion_probability,
    n_copies,
    seed_id,
    caption_rank,
    is_calibrating
from source.prompts
order by prompt_id;

alter table prompts add primary key (prompt_id);

comment on table prompts is
'Which captions are probed, by arm; the same for all releases. One row per prompt.';
