-- The tables that grow with pictures have unique keys: an index on them would cost more than they do, so that this looks instead.
select
    'generations' as table_name,
    release || ' ' || generation_id as row_key,
    count(*) as n_rows
from generations
group by release, generation_id
having count(*) > 1
union all
select
    'matches' as table_name,
    release || ' ' || generation_id || ' ' || split || ' ' || rank as row_key,
    count(*) as n_rows
from matches
group by release, generation_id, split, rank
having count(*) > 1
union all
select
    'images' as table_name,
    cast(image_id as varchar) as row_key,
    count(*) as n_rows
from images
group by image_id
having count(*) > 1
union all
select
    'duplicates' as table_name,
    cast(image_id as varchar) as row_key,
    count(*) as n_rows
from duplicates
group by image_id
having count(*) > 1
union all
select
    'pairs' as table_name,
    image_id_a || ' ' || image_id_b || ' ' || method as row_key,
    count(*) as n_rows
from pairs
group by image_id_a, image_id_b, method
having count(*) > 1
union all
select
    'checks' as table_name,
    coalesce(release, '') || ' ' || table_name || ' ' || check_number as row_key,
    count(*) as n_rows
from checks
group by release, table_name, check_number
having count(*) > 1
union all
select
    'keep_list' as table_name,
    release || ' ' || image_id as row_key,
    count(*) as n_rows
from keep_list
group by release, image_id
having count(*) > 1;
