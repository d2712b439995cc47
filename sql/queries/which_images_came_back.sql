-- Which training images does each release hand back, how closely, how often and from how many copies?
select
    findings.release,
    images.key,
    prompts.caption,
    findings.match_type,
    findings.l2,
    findings.margin,
    findings.hit_rate,
    findings.hit_rate_low,
    findings.hit_rate_high,
    findings.n_copies,
    findings.eidetic_k
from findings
inner join prompts on findings.prompt_id = prompts.prompt_id
inner join images on findings.image_id = images.image_id
where findings.is_extracted
order by findings.release, findings.margin, findings.finding_id;
