-- A control is a held-out image that shares no cluster or template with a member.
select
    prompts.prompt_id,
    prompts.image_id,
    duplicates.split,
    duplicates.is_leaked
from prompts
left join duplicates on prompts.image_id = duplicates.image_id
where prompts.arm = 'held_out' and (duplicates.image_id is null or duplicates.split != 'held_out' or duplicates.is_leaked);
