-- Every audit that was ever made, releases no longer listed included. One row per audit.
create table audits as
select
    audit_id,
    release,
    audited_at,
    protocol_digest,
    model_digest,
    training_set_digest,
    stack
from source.audits
order by audited_at, audit_id;

alter table audits add primary key (audit_id);

comment on table audits is
'Every audit that was ever made; releases.audit_id names the current ones. One row per audit.';

create table all_findings as
select
    audit_id,
    release,
    finding_id,
    prompt_id,
    generation_id,
    image_id,
    cluster_id,
    split,
    arm,
    seed,
    match_type,
    l2_band,
    n_generations,
    n_evaluations,
    n_judged,
    n_hits,
    hit_rate,
    hit_rate_low,
    hit_rate_high,
    clique_size,
    l2,
    tiled_l2,
    adaptive_l2,
    margin,
    similarity,
    closest_l2,
    template_share,
    template_mask,
    eidetic_k,
    eidetic_k_10,
    eidetic_k_15,
    n_copies,
    thumbnail_px,
    code_bytes,
    search_bits,
    p_value,
    q_value,
    caption_rank,
    is_calibrating,
    is_compared,
    is_own_image,
    is_flagged,
    is_extracted
from source.all_findings
order by audit_id, prompt_id;

alter table all_findings add primary key (audit_id, prompt_id);

comment on table all_findings is
'The verdict on each prompt in every audit ever made. One row per audit and prompt.';

create table all_summary as
select
    audit_id,
    release,
    protocol_digest,
    arm,
    copies_bin,
    n_clusters,
    n_prompts,
    n_sampled,
    n_findings,
    n_undecided,
    n_images,
    n_verbatim,
    n_near_copy,
    n_template,
    extraction_rate,
    low,
    high,
    is_census,
    n_controls,
    n_controls_flagged,
    fdr_estimate,
    fdr_upper,
    n_controls_needed,
    n_decoy_hits,
    n_hits_equal_size,
    n_hits_equal_size_low,
    n_hits_equal_size_high,
    expected_distinct_500,
    estimated_total,
    estimated_total_low,
    estimated_total_high,
    n_further_prompts,
    n_further_findings,
    n_further_flagged,
    n_generations,
    n_evaluations
from source.all_summary
order by audit_id, arm, copies_bin;

alter table all_summary add primary key (audit_id, arm, copies_bin);

comment on table all_summary is
'What every audit said of each arm. One row per audit, arm and bin of copies.';

create table all_sampling as
select
    audit_id,
    release,
    prompt_id,
    n_generations,
    n_evaluations,
    stop_reason,
    clique_size,
    is_exact_clique,
    clique_mean_distance,
    medoid_generation_id
from source.all_sampling
order by audit_id, prompt_id;

alter table all_sampling add primary key (audit_id, prompt_id);

comment on table all_sampling is
'How each prompt was sampled in every audit. One row per audit and prompt.';

create table all_checks as
select
    audit_id,
    release,
    table_name,
    check_number,
    expectation,
    column_name,
    arguments,
    n_rows,
    n_unexpected,
    observed,
    is_passed,
    message
from source.all_checks
order by audit_id, table_name, check_number;

alter table all_checks add primary key (audit_id, table_name, check_number);

comment on table all_checks is
'What was checked in every audit. One row per audit, table and check.';

create table all_settings as
select
    audit_id,
    release,
    name,
    value
from source.all_settings
order by audit_id, name;

alter table all_settings add primary key (audit_id, name);

comment on table all_settings is
'The settings of every audit. One row per audit and setting.';
