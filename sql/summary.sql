-- What the audit says of each arm, in rates with intervals. One row per release, arm and bin of copies.
create table summary as
select
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
from source.summary
order by release, arm, copies_bin;

alter table summary add primary key (release, arm, copies_bin);

comment on table summary is
'What the audit says of each arm, with intervals; bin all is the whole arm. One row per release, arm and bin of copies.';
