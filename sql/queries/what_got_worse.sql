-- Which images does a release hand back that the one it is compared to did not?
select
    release,
    against,
    key,
    caption,
    arm,
    l2,
    earlier_l2,
    n_copies,
    earlier_n_copies,
    n_copies_in_set,
    was_drawn,
    is_new_image
from regressions
where kind = 'previous'
order by release asc, is_new_image desc, l2 asc, prompt_id asc;
