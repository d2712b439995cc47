-- A comparison is better or worse exactly where p is at most 0.05 and its interval, around the difference, is on that side of 0.
select
    release,
    kind,
    arm,
    outcome,
    p_value,
    difference,
    low,
    high,
    reason
from comparisons
where
    (outcome = 'not_comparable') != (reason is not null)
    or (outcome = 'not_comparable') != (p_value is null)
    or (outcome = 'better') != coalesce(p_value <= 0.05 and high < 0, false)
    or (outcome = 'worse') != coalesce(p_value <= 0.05 and low > 0, false)
    or difference < low
    or difference > high
    or low < -1
    or high > 1;
