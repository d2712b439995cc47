-- sampling counts the generations that are there, and what they cost.
with counted as (
    select
        release,
        prompt_id,
        count(*) as n_generations,
        cast(sum(n_evaluations) as bigint) as n_evaluations
    from generations
    group by release, prompt_id
)

select
    sampling.release,
    sampling.prompt_id,
    counted.release as release_counted,
    counted.prompt_id as prompt_id_counted,
    sampling.n_generations,
    counted.n_generations as n_generations_counted,
    sampling.n_evaluations,
    counted.n_evaluations as n_evaluations_counted
from sampling
full outer join counted on sampling.release = counted.release and sampling.prompt_id = counted.prompt_id
where
    sampling.n_generations is distinct from coalesce(counted.n_generations, 0)
    or sampling.n_evaluations is distinct from coalesce(counted.n_evaluations, 0);
