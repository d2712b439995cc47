-- An extraction has its pixel measures: l2, margin (but for a single cluster), thumbnail, code, and eidetic_k of at least 1.
select
    release,
    finding_id,
    match_type,
    l2,
    margin,
    thumbnail_px,
    code_bytes,
    eidetic_k
from findings
where
    is_extracted
    and (
        l2 is null
        or (margin is null and (select count(distinct duplicates.cluster_id) from duplicates) > 1)
        or (tiled_l2 is null and match_type != 'template')
        or thumbnail_px is null
        or code_bytes is null
        or coalesce(eidetic_k, 0) < 1
    );
