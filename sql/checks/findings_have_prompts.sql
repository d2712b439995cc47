-- Every finding belongs to a prompt, of the same arm.
select
    findings.release,
    findings.finding_id,
    findings.prompt_id,
    findings.arm,
    prompts.arm as prompt_arm
from findings
left join prompts on findings.prompt_id = prompts.prompt_id
where prompts.prompt_id is null or findings.arm != prompts.arm;
