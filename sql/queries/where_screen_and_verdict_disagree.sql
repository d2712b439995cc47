-- Where do the screen and the verdict disagree: what did it drop that comes back, and what did it suspect most that does not?
with ranked as (
    select
        findings.release,
        findings.prompt_id,
        findings.arm,
        findings.match_type,
        findings.is_extracted,
        screening.stratum,
        screening.text_noise_norm,
        percent_rank() over (partition by findings.release order by screening.text_noise_norm) as share_below
    from findings
    inner join screening on findings.release = screening.release and findings.prompt_id = screening.prompt_id
    where screening.stratum != 'unscreened'
)

select
    ranked.release,
    case when ranked.is_extracted then 'dropped, and comes back' else 'in the top tenth, and does not' end as disagreement,
    prompts.caption,
    ranked.arm,
    ranked.match_type,
    ranked.text_noise_norm,
    ranked.share_below
from ranked
inner join prompts on ranked.prompt_id = prompts.prompt_id
where
    (ranked.stratum = 'dropped' and ranked.is_extracted)
    or (ranked.share_below >= 0.9 and ranked.arm != 'held_out' and not ranked.is_extracted)
order by ranked.release, disagreement, ranked.text_noise_norm, ranked.prompt_id;
