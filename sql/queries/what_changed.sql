-- What does each release no longer hand back, and what does it hand back newly?
select
    release,
    against,
    arm,
    outcome,
    count(*) as n_prompts
from release_comparison
group by release, against, arm, outcome
order by release, arm, outcome;
