-- What became of each prompt whose image either release returns, between a release and the one it is compared to?
select
    release,
    against,
    outcome,
    caption,
    arm,
    match_type,
    earlier_match_type,
    n_copies,
    earlier_n_copies,
    margin,
    earlier_margin,
    hit_rate,
    earlier_hit_rate
from release_comparison
where outcome != 'never'
order by release, outcome, margin, prompt_id;
