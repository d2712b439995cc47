-- Which clusters are chained, so that their count of copies is doubtful, and does any release return one of them?
with returned as (
    select
        cluster_id,
        count(distinct release) as n_releases
    from findings
    where is_extracted
    group by cluster_id
)

select
    duplicates.cluster_id,
    images.key,
    count(*) as n_images,
    max(duplicates.component_size) as component_size,
    max(duplicates.n_copies) as n_copies,
    min(duplicates.min_similarity) as min_similarity,
    coalesce(any_value(returned.n_releases), 0) as n_releases
from duplicates
left join images on duplicates.cluster_id = images.image_id
left join returned on duplicates.cluster_id = returned.cluster_id
where duplicates.is_chained
group by duplicates.cluster_id, images.key
order by n_releases desc, component_size desc, duplicates.cluster_id asc;
