-- What does a finding cost, in pictures and denoiser evaluations, and how much less than by the published attack?
select
    release,
    arm,
    n_findings,
    n_prompts,
    n_evaluations,
    evaluations_per_finding,
    generations_per_finding,
    savings_factor
from cost_per_finding
order by release, arm;
