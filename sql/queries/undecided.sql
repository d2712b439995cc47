-- Which prompts make the model repeat itself without a training image that confirms it?
select
    findings.release,
    prompts.caption,
    findings.clique_size,
    findings.n_generations,
    findings.l2,
    findings.margin,
    images.key as nearest_key,
    findings.split as nearest_split,
    prompted.key as key_of_the_caption,
    prompts.n_copies,
    findings.is_compared
from findings
inner join prompts on findings.prompt_id = prompts.prompt_id
left join images on findings.image_id = images.image_id
left join images as prompted on prompts.image_id = prompted.image_id
where findings.match_type = 'undecided'
order by findings.release asc, findings.clique_size desc, findings.finding_id asc;
