-- Which images does a fine-tune hand back that its base does not?
select
    release,
    against as base,
    key,
    caption,
    arm,
    l2,
    earlier_l2 as base_l2,
    n_copies,
    was_drawn,
    is_new_image
from regressions
where kind = 'base'
order by release asc, is_new_image desc, l2 asc, prompt_id asc;
