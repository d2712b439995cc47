-- The verdict on each prompt. One row per release and prompt.
create table findings as
select
    release,
    finding_id,
    prompt_id,
    generation_id,
    image_id,
    cluster_id,
    split,
    arm,
    seed,
    match_type,
    l2_band,
    n_generations,
    n_evaluations,
    n_judged,
    n_hits,
    hit_rate,
    hit_rate_low,
    hit_rate_high,
    clique_size,
    l2,
    tiled_l2,
    adaptive_l2,
    margin,
    similarity,
    closest_l2,
    template_share,
    template_mask,
    eidetic_k,
    eidetic_k_10,
    eidetic_k_15,
    n_copies,
    thumbnail_px,
    code_bytes,
    search_bits,
    p_value,
    q_value,
    caption_rank,
    is_calibrating,
    is_compared,
    is_own_image,
    is_flagged,
    is_extracted
from source.findings
order by release, prompt_id;

alter table findings add primary key (release, prompt_id);

comment on table findings is
'The verdict on each prompt, extracted or not: the current audit of each release. One row per release and prompt.';
