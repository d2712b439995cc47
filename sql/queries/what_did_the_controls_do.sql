-- What did the controls do: how many were flagged, returned a training image or repeated themselves, and how close did they come?
select
    release,
    is_calibrating,
    count(*) as n_controls,
    count(*) filter (where n_generations > 0) as n_sampled,
    count(*) filter (where is_flagged) as n_flagged,
    count(*) filter (where is_extracted) as n_returning_a_training_image,
    count(*) filter (where match_type = 'undecided') as n_undecided,
    min(margin) filter (where not is_extracted) as smallest_margin,
    median(margin) filter (where not is_extracted) as median_margin,
    max(clique_size) as largest_clique
from findings
where arm = 'held_out' and caption_rank = 0
group by release, is_calibrating
order by release, is_calibrating;
