-- What would a filter block: copies that come back, ordinary pictures, and both after they are altered?
select
    release,
    kind,
    transform,
    n_blocked,
    n_pictures,
    blocked_rate,
    low,
    high,
    n_prompts_blocked,
    n_prompts
from filter_rates
where kind in ('returned', 'ordinary', 'bordering') and is_promised
order by release asc, kind desc, transform asc;
