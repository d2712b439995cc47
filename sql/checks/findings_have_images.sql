-- The picture of a finding is known, with its split, and in the cluster that duplicates gives it.
select
    findings.release,
    findings.finding_id,
    findings.image_id,
    findings.cluster_id,
    duplicates.cluster_id as cluster_id_now
from findings
left join images on findings.image_id = images.image_id
left join duplicates on findings.image_id = duplicates.image_id
where
    findings.image_id is not null
    and (images.image_id is null or images.split != findings.split or findings.cluster_id is distinct from duplicates.cluster_id);
