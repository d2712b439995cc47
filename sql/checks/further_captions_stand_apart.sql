-- A further caption belongs to a cluster whose most frequent one is asked in the same arm, and has no p-value.
select
    findings.release,
    findings.finding_id,
    findings.prompt_id,
    findings.caption_rank,
    findings.p_value
from findings
inner join prompts on findings.prompt_id = prompts.prompt_id
left join prompts as first_captions
    on prompts.cluster_id = first_captions.cluster_id and prompts.arm = first_captions.arm and first_captions.caption_rank = 0
where
    findings.caption_rank != prompts.caption_rank
    or (findings.caption_rank > 0 and (first_captions.prompt_id is null or findings.p_value is not null));
