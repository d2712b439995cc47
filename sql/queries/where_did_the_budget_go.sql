-- Where did the budget go: which arms, and why did prompts stop?
select
    sampling.release,
    prompts.arm,
    sampling.stop_reason,
    count(*) as n_prompts,
    cast(sum(sampling.n_generations) as bigint) as n_generations,
    cast(sum(sampling.n_evaluations) as bigint) as n_evaluations,
    count(*) filter (where findings.is_extracted) as n_findings
from sampling
inner join prompts on sampling.prompt_id = prompts.prompt_id
inner join findings on sampling.release = findings.release and sampling.prompt_id = findings.prompt_id
group by sampling.release, prompts.arm, sampling.stop_reason
order by sampling.release, prompts.arm, sampling.stop_reason;
