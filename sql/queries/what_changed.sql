-- What does each release no longer hand back, and what does it hand back newly?
select
    release,
    against,
    arm,
    change,
    count(*) as n_prompts
from release_comparison
group by release, against, arm, change
order by release, arm, change;
