-- Which training images does any release return, and from how many copies?
with returned as (
    select
        cluster_id,
        count(distinct release) as n_releases,
        list(distinct release order by release) as release_names,
        arg_min(image_id, (l2, finding_id)) as image_id,
        min(l2) as closest_l2,
        max(hit_rate) as highest_hit_rate,
        min(n_copies) as fewest_copies,
        max(n_copies) as most_copies
    from findings
    where is_extracted
    group by cluster_id
)

select
    images.key,
    returned.n_releases,
    returned.release_names,
    returned.closest_l2,
    returned.highest_hit_rate,
    returned.fewest_copies,
    returned.most_copies,
    duplicates.n_copies as n_copies_in_set
from returned
left join images on returned.image_id = images.image_id
left join duplicates on returned.image_id = duplicates.image_id
order by returned.n_releases desc, returned.most_copies desc, returned.closest_l2 asc, returned.cluster_id asc;
