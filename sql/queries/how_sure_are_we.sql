-- How many of the listed findings may be false, as far as the controls say?
select
    release,
    arm,
    n_prompts,
    n_findings,
    n_controls,
    n_controls_flagged,
    fdr_estimate,
    fdr_upper,
    n_controls_needed
from summary
where copies_bin = 'all' and arm != 'held_out'
order by release, arm;
