-- Pictures are drawn of exactly the prompts that screening chose.
select
    screening.release,
    screening.prompt_id,
    screening.is_sampled,
    sampling.n_generations,
    sampling.stop_reason
from screening
inner join sampling on screening.release = sampling.release and screening.prompt_id = sampling.prompt_id
where
    screening.is_sampled != (sampling.n_generations > 0)
    or screening.is_sampled = (sampling.stop_reason = 'not_sampled');
