-- A prompt is extracted or flagged exactly where its match type is verbatim, near_copy or template.
select
    release,
    finding_id,
    match_type,
    is_extracted,
    is_flagged
from findings
where (is_extracted or is_flagged) != (match_type in ('verbatim', 'near_copy', 'template'));
