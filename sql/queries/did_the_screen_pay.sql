-- Does the one-step screen rank what is extracted above what is not?
select
    findings.release,
    findings.arm,
    screening.stratum,
    count(*) as n_prompts,
    count(*) filter (where findings.is_extracted) as n_findings,
    median(screening.text_noise_norm) as median_noise_norm
from findings
inner join screening on findings.release = screening.release and findings.prompt_id = screening.prompt_id
group by findings.release, findings.arm, screening.stratum
order by findings.release, findings.arm, screening.stratum;
