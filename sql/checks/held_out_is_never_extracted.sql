-- A flagged control matches a held-out image and is no extraction; an extraction matches a member.
select
    release,
    finding_id,
    arm,
    split,
    match_type,
    is_flagged,
    is_extracted
from findings
where
    (is_flagged and is_extracted)
    or (is_flagged and split is distinct from 'held_out')
    or (is_extracted and split is distinct from 'member');
