-- p, q and hit rates lie between 0 and 1, p and q above 0 and both or neither there, the hit rate within its interval.
select
    release,
    finding_id,
    p_value,
    q_value,
    hit_rate_low,
    hit_rate,
    hit_rate_high
from findings
where
    p_value <= 0
    or p_value > 1
    or q_value <= 0
    or q_value > 1
    or (p_value is null) != (q_value is null)
    or hit_rate_low < 0
    or hit_rate < hit_rate_low
    or hit_rate > hit_rate_high
    or hit_rate_high > 1
    or n_hits > n_judged
    or n_judged > n_generations;
