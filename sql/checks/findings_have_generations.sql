-- The medoid of a finding is a good generation of its prompt, with its seed.
select
    findings.release,
    findings.finding_id,
    findings.generation_id,
    findings.seed,
    generations.seed as generation_seed,
    generations.status
from findings
left join generations
    on
        findings.release = generations.release
        and findings.generation_id = generations.generation_id
        and findings.prompt_id = generations.prompt_id
where
    findings.generation_id is not null
    and (
        generations.generation_id is null
        or findings.seed != generations.seed
        or (generations.status != 'ok' and findings.is_extracted)
    );
