-- Every match belongs to a good generation of its prompt.
select
    matches.release,
    matches.generation_id,
    matches.split,
    matches.rank
from matches
left join generations
    on
        matches.release = generations.release
        and matches.generation_id = generations.generation_id
        and matches.prompt_id = generations.prompt_id
where generations.generation_id is null or generations.status != 'ok';
