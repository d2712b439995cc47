-- Which findings rest on few pictures: the interval of the hit rate is wide, or the medoid stands nearly alone?
select
    findings.release,
    prompts.caption,
    findings.match_type,
    findings.n_hits,
    findings.n_judged,
    findings.hit_rate,
    findings.hit_rate_low,
    findings.hit_rate_high,
    findings.clique_size,
    findings.n_generations,
    findings.l2,
    findings.margin
from findings
inner join prompts on findings.prompt_id = prompts.prompt_id
where findings.is_extracted and (findings.hit_rate_high - findings.hit_rate_low > 0.5 or findings.n_hits < 2)
order by findings.release asc, findings.hit_rate_high - findings.hit_rate_low desc, findings.finding_id asc;
