-- Without pictures to compare with nothing matches: no finding names an image or a hit rate, and undecided is the most it says.
select
    release,
    finding_id,
    match_type,
    image_id,
    hit_rate,
    p_value
from findings
where
    not is_compared
    and (match_type not in ('undecided', 'none') or image_id is not null or hit_rate is not null or p_value is not null);
