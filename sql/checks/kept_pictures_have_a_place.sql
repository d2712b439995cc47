-- A picture that is kept has a place, one that is not has none, and a medoid is always kept.
select
    generations.release,
    generations.generation_id,
    generations.status,
    generations.shard,
    generations.position
from generations
left join sampling on generations.release = sampling.release and generations.prompt_id = sampling.prompt_id
where
    (generations.status = 'not_kept') != (generations.shard is null)
    or (generations.shard is null) != (generations.position is null)
    or (generations.status = 'not_kept' and generations.generation_id = sampling.medoid_generation_id);
