-- With which prompt and seed does anyone see a finding again, and which picture is it a copy of?
select
    findings.release,
    findings.finding_id,
    protocol.model_digest,
    protocol.stack,
    prompts.caption,
    findings.seed,
    generations.sha256 as generation_sha256,
    images.shard as training_shard,
    images.position as training_position,
    images.sha256 as training_sha256
from findings
inner join protocol on findings.release = protocol.release
inner join prompts on findings.prompt_id = prompts.prompt_id
inner join generations on findings.release = generations.release and findings.generation_id = generations.generation_id
inner join images on findings.image_id = images.image_id
where findings.is_extracted
order by findings.release, findings.finding_id;
