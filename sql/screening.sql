-- Which prompts deserve the full budget, by a one-step screen. One row per release and prompt.
create table screening as
select
    release,
    prompt_id,
    text_noise_norm,
    n_evaluations,
    stratum,
    inclusion_probability,
    is_sampled
from source.screening
order by release, prompt_id;

alter table screening add primary key (release, prompt_id);

comment on table screening is
'Which prompts deserve the full budget, by a one-step screen. One row per release and prompt.';

create table protocol as
select
    release,
    protocol_digest,
    model_digest,
    stack,
    settings
from source.protocol
order by release;

alter table protocol add primary key (release);

comment on table protocol is
'What each audit was bound to before a picture was generated. One row per release.';
