-- An extraction has its pixel measures: l2, margin (but for a single cluster), thumbnail, code, and the three eidetic_k in order.
select
    release,
    finding_id,
    match_type,
    l2,
    margin,
    thumbnail_px,
    code_bytes,
    eidetic_k,
    eidetic_k_10,
    eidetic_k_15
from findings
where
    is_extracted
    and (
        l2 is null
        or (margin is null and (select count(distinct duplicates.cluster_id) from duplicates) > 1)
        or (tiled_l2 is null and match_type != 'template')
        or thumbnail_px is null
        or code_bytes is null
        or eidetic_k is null
        or eidetic_k > eidetic_k_10
        or eidetic_k_10 > eidetic_k_15
    );
