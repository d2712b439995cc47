-- Both images of a pair are known, and the smaller id stands first.
select
    pairs.image_id_a,
    pairs.image_id_b,
    pairs.method
from pairs
left join duplicates as one on pairs.image_id_a = one.image_id
left join duplicates as other on pairs.image_id_b = other.image_id
where one.image_id is null or other.image_id is null or pairs.image_id_a >= pairs.image_id_b;
