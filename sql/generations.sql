-- Pictures generated from the prompts. One row per release and generation.
create table generations as
select
    release,
    generation_id,
    prompt_id,
    index,
    seed,
    shard,
    position,
    sha256,
    n_evaluations,
    is_fresh,
    status,
    reason
from source.generations
order by release, prompt_id, index, generation_id;

comment on table generations is
'Pictures generated from the prompts; the pictures themselves stay in data/generations. One row per release and generation.';

create table sampling as
select
    release,
    prompt_id,
    n_generations,
    n_evaluations,
    stop_reason,
    clique_size,
    is_exact_clique,
    clique_mean_distance,
    medoid_generation_id
from source.sampling
order by release, prompt_id;

alter table sampling add primary key (release, prompt_id);

comment on table sampling is
'How each prompt was sampled and why it stopped. One row per release and prompt.';
