-- Where does a person disagree with the verdict on a pair, and what else was seen in it?
select
    reviews.release,
    images.key,
    prompts.caption,
    reviews.reviewer,
    reviews.label,
    findings.match_type,
    findings.arm,
    findings.l2,
    findings.margin,
    reviews.is_person,
    reviews.is_trademark
from reviews
inner join findings on reviews.release = findings.release and reviews.finding_id = findings.finding_id
inner join protocol on reviews.release = protocol.release and reviews.protocol_digest = protocol.protocol_digest
inner join prompts on findings.prompt_id = prompts.prompt_id
left join images on findings.image_id = images.image_id
where reviews.status = 'ok' and (reviews.label != 'not_a_copy') != (findings.is_extracted or findings.is_flagged)
order by reviews.release, reviews.finding_id, reviews.reviewer;
