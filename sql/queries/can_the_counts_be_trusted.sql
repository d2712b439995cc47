-- Can the counts of copies be trusted: how many known copies of each kind did the search find?
select
    transform,
    is_promised,
    n_planted,
    n_found,
    recall,
    recall_low,
    recall_high
from canaries
order by is_promised desc, recall asc, transform asc;
