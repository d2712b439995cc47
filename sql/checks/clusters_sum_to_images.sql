-- The sizes of the clusters, over their centres, sum to the images; every image is in the cluster of a centre.
with sizes as (
    select
        count(*) as n_images,
        coalesce(sum(cluster_size) filter (where image_id = cluster_id), 0) as n_in_clusters
    from duplicates
),

strays as (
    select count(*) as n_strays
    from duplicates
    left join duplicates as centres on duplicates.cluster_id = centres.image_id and centres.image_id = centres.cluster_id
    where centres.image_id is null
)

select
    sizes.n_images,
    sizes.n_in_clusters,
    strays.n_strays
from sizes
cross join strays
where sizes.n_images != sizes.n_in_clusters or strays.n_strays > 0;
