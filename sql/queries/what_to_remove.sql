-- Which training images should be removed, because a copy of them was extracted?
with extracted as (
    select
        cluster_id,
        count(distinct release) as n_releases
    from findings
    where is_extracted
    group by cluster_id
)

select
    extracted.cluster_id,
    duplicates.image_id,
    images.key,
    duplicates.n_copies,
    extracted.n_releases
from extracted
inner join duplicates on extracted.cluster_id = duplicates.cluster_id and duplicates.split = 'member'
left join images on duplicates.image_id = images.image_id
order by duplicates.n_copies desc, extracted.cluster_id asc, duplicates.image_id asc;
