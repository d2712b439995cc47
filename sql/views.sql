-- The questions an audit is asked most, as views over the tables. One row per unit that the comment of each view names.
create view release_comparison as
with compared as (
    select
        releases.release,
        releases.compare_to as against,
        latest.prompt_id,
        latest.arm,
        latest.is_extracted,
        earlier.is_extracted as was_extracted,
        latest.match_type,
        earlier.match_type as earlier_match_type,
        latest.n_copies,
        earlier.n_copies as earlier_n_copies,
        latest.margin,
        earlier.margin as earlier_margin,
        latest.hit_rate,
        earlier.hit_rate as earlier_hit_rate
    from releases
    inner join findings as latest on releases.release = latest.release
    inner join findings as earlier on releases.compare_to = earlier.release and latest.prompt_id = earlier.prompt_id
)

select
    compared.release,
    compared.against,
    compared.prompt_id,
    prompts.caption,
    compared.arm,
    prompts.copies_bin,
    case
        when compared.is_extracted and compared.was_extracted then 'still'
        when compared.is_extracted then 'new'
        when compared.was_extracted then 'gone'
        else 'never'
    end as outcome,
    compared.is_extracted,
    compared.was_extracted,
    compared.match_type,
    compared.earlier_match_type,
    compared.n_copies,
    compared.earlier_n_copies,
    compared.margin,
    compared.earlier_margin,
    compared.hit_rate,
    compared.earlier_hit_rate
from compared
inner join prompts on compared.prompt_id = prompts.prompt_id;

comment on view release_comparison is
'What became of each prompt between a release and the one it is compared to. One row per release and prompt.';
comment on column release_comparison.release is 'Release under audit';
comment on column release_comparison.against is 'Release it is compared to: releases.compare_to';
comment on column release_comparison.prompt_id is 'The prompt';
comment on column release_comparison.caption is 'Text given to both models';
comment on column release_comparison.arm is 'Arm of the prompt';
comment on column release_comparison.copies_bin is 'Bin of copies in the training set; NULL for images never seen';
comment on column release_comparison.outcome is
'still (extracted from both), new (from this release only), gone (from the earlier one only) or never';
comment on column release_comparison.is_extracted is 'Whether this release returns a training image';
comment on column release_comparison.was_extracted is 'Whether the earlier one did';
comment on column release_comparison.match_type is 'Match type in this release';
comment on column release_comparison.earlier_match_type is 'Match type in the earlier one';
comment on column release_comparison.n_copies is
'Copies of the matched picture this release was trained on; NULL where its medoid was not compared';
comment on column release_comparison.earlier_n_copies is
'The same for the earlier one; NULL where its medoid was not compared';
comment on column release_comparison.margin is 'Margin of the medoid in this release; NULL where it was not compared';
comment on column release_comparison.earlier_margin is
'Margin of the medoid in the earlier one; NULL where it was not compared';
comment on column release_comparison.hit_rate is 'Share of verbatim generations in this release; NULL where not measured';
comment on column release_comparison.earlier_hit_rate is
'Share of verbatim generations in the earlier one; NULL where not measured';

create view extraction_by_copies as
with found as (
    select
        findings.release,
        findings.arm,
        coalesce(prompts.copies_bin, 'unseen') as copies_bin,
        avg(findings.hit_rate) as mean_hit_rate,
        median(findings.l2) as median_l2
    from findings
    inner join prompts on findings.prompt_id = prompts.prompt_id
    where findings.is_extracted and findings.caption_rank = 0
    group by findings.release, findings.arm, coalesce(prompts.copies_bin, 'unseen')
)

select
    summary.release,
    summary.arm,
    summary.copies_bin,
    coalesce(try_cast(regexp_extract(summary.copies_bin, '^[0-9]+') as integer), 0) as least_copies,
    summary.n_clusters,
    summary.n_prompts,
    summary.n_findings,
    summary.extraction_rate,
    summary.low,
    summary.high,
    summary.is_census,
    found.mean_hit_rate,
    found.median_l2
from summary
left join found on summary.release = found.release and summary.arm = found.arm and summary.copies_bin = found.copies_bin
where summary.copies_bin != 'all';

comment on view extraction_by_copies is
'How the share of extracted images grows with their copies in the training set. One row per release, arm and bin of copies.';
comment on column extraction_by_copies.release is 'Release under audit';
comment on column extraction_by_copies.arm is 'Arm of the prompts';
comment on column extraction_by_copies.copies_bin is 'Bin of copies in the training set; unseen for controls';
comment on column extraction_by_copies.least_copies is 'Lower end of the bin, to sort by; 0 for unseen';
comment on column extraction_by_copies.n_clusters is
'Clusters with a caption in the bin: the frame; NULL where it was not drawn at random';
comment on column extraction_by_copies.n_prompts is 'Prompts';
comment on column extraction_by_copies.n_findings is 'Prompts whose medoid is a copy of a training image';
comment on column extraction_by_copies.extraction_rate is
'n_findings / n_prompts: by this attack, a lower bound; NULL where no picture could be compared';
comment on column extraction_by_copies.low is 'Lower end of its 95 % Clopper-Pearson interval; NULL where the rate is';
comment on column extraction_by_copies.high is 'Upper end of its 95 % Clopper-Pearson interval; NULL where the rate is';
comment on column extraction_by_copies.is_census is
'Every cluster of the bin was prompted: the interval speaks of other seeds only';
comment on column extraction_by_copies.mean_hit_rate is 'Mean hit_rate of the findings; NULL without one';
comment on column extraction_by_copies.median_l2 is 'Median l2 of the findings; NULL without one';

create view precision_curve as
with judged as (
    select
        release,
        finding_id,
        prompt_id,
        arm,
        match_type,
        margin,
        l2,
        arm != 'held_out' and split = 'member' as is_target_hit,
        arm = 'held_out' and split = 'held_out' as is_control_hit
    from findings
    where margin is not null and not is_calibrating and caption_rank = 0
),

totals as (
    select
        release,
        count(*) filter (where arm != 'held_out') as n_targets,
        count(*) filter (where arm = 'held_out' and not is_calibrating) as n_controls
    from findings
    where caption_rank = 0
    group by release
),

cumulated as (
    select
        release,
        finding_id,
        prompt_id,
        arm,
        match_type,
        margin,
        l2,
        row_number() over closest_first as list_length,
        count(*) filter (where is_target_hit) over closest_first as n_target_hits,
        count(*) filter (where is_control_hit) over closest_first as n_control_hits
    from judged
    window closest_first as (
        partition by release
        order by margin, l2, finding_id
        rows between unbounded preceding and current row
    )
)

select
    cumulated.release,
    cumulated.list_length,
    cumulated.finding_id,
    cumulated.prompt_id,
    cumulated.arm,
    cumulated.match_type,
    cumulated.margin,
    cumulated.l2,
    cumulated.n_target_hits,
    cumulated.n_control_hits,
    totals.n_targets,
    totals.n_controls,
    case
        when totals.n_controls > 0 and cumulated.n_target_hits > 0
            then least(
                1,
                totals.n_targets * (1 + cumulated.n_control_hits) / ((totals.n_controls + 1) * cumulated.n_target_hits)
            )
    end as fdr_estimate
from cumulated
inner join totals on cumulated.release = totals.release;

comment on view precision_curve is
'Targets and controls as close to a picture as each prompt: the list if it were cut there. One row per release and cluster.';
comment on column precision_curve.release is 'Release under audit';
comment on column precision_curve.list_length is 'Rank by margin, then l2: the list is cut after this row';
comment on column precision_curve.finding_id is 'The finding at the cut';
comment on column precision_curve.prompt_id is 'Its prompt';
comment on column precision_curve.arm is 'Its arm';
comment on column precision_curve.match_type is 'Its verdict, for comparison: this view does not use it';
comment on column precision_curve.margin is 'Its margin: the cut';
comment on column precision_curve.l2 is 'Its l2';
comment on column precision_curve.n_target_hits is 'Target prompts up to the cut whose picture is a member';
comment on column precision_curve.n_control_hits is
'Controls up to the cut whose picture is held out: false alarms of the same rule';
comment on column precision_curve.n_targets is 'Target prompts of the audit';
comment on column precision_curve.n_controls is 'Control prompts of the audit';
comment on column precision_curve.fdr_estimate is
'False share: n_targets (1 + n_control_hits) / ((n_controls + 1) n_target_hits), at most 1; NULL without controls or hits';

create view cost_per_finding as
with published as (select 50000 as n_evaluations_per_prompt)

select
    summary.release,
    summary.arm,
    summary.n_prompts,
    summary.n_sampled,
    summary.n_findings,
    summary.n_generations,
    summary.n_evaluations,
    summary.n_evaluations / nullif(summary.n_findings, 0) as evaluations_per_finding,
    summary.n_generations / nullif(summary.n_findings, 0) as generations_per_finding,
    summary.n_prompts * published.n_evaluations_per_prompt / nullif(summary.n_evaluations, 0) as savings_factor
from summary
cross join published
where summary.copies_bin = 'all';

comment on view cost_per_finding is
'What a finding cost in denoiser evaluations. One row per release and arm.';
comment on column cost_per_finding.release is 'Release under audit';
comment on column cost_per_finding.arm is 'Arm of the prompts';
comment on column cost_per_finding.n_prompts is 'Prompts';
comment on column cost_per_finding.n_sampled is 'Prompts of which pictures were generated';
comment on column cost_per_finding.n_findings is 'Prompts whose medoid is a copy of a training image';
comment on column cost_per_finding.n_generations is 'Pictures drawn';
comment on column cost_per_finding.n_evaluations is 'Denoiser evaluations spent, screen included';
comment on column cost_per_finding.evaluations_per_finding is 'n_evaluations / n_findings; NULL without a finding';
comment on column cost_per_finding.generations_per_finding is 'n_generations / n_findings; NULL without a finding';
comment on column cost_per_finding.savings_factor is
'Evaluations of the published attack (50,000 per prompt) over those spent; NULL where none was';

create view duplicate_histogram as
select
    n_copies,
    count(*) as n_images,
    count(distinct cluster_id) as n_clusters,
    count(*) filter (where is_chained) as n_chained
from duplicates
where split = 'member'
group by n_copies;

comment on view duplicate_histogram is
'How many training images have how many copies. One row per number of copies.';
comment on column duplicate_histogram.n_copies is 'Copies in the training set, itself included';
comment on column duplicate_histogram.n_images is 'Training images with that many';
comment on column duplicate_histogram.n_clusters is 'Clusters they belong to';
comment on column duplicate_histogram.n_chained is 'Of the images, those in chained components: their count is doubtful';

create view gate as
with main_arms as (
    select
        release,
        arg_min(arm, list_position(['duplicated', 'singleton', 'outlier', 'paraphrased', 'custom'], arm)) as arm
    from summary
    where copies_bin = 'all' and arm != 'held_out'
    group by release
),

failures as (
    select
        releases.release,
        count(*) filter (where not checks.is_passed) as n_failed_checks
    from releases
    cross join checks
    where checks.release = releases.release or checks.release is null
    group by releases.release
),

new_images as (
    select
        release,
        count(distinct cluster_id) as n_new_images,
        count(distinct cluster_id) - count(distinct cluster_id) filter (where was_drawn) as n_new_undrawn
    from regressions
    where kind = 'previous' and is_new_image
    group by release
)

select
    releases.release,
    releases.audit_id,
    releases.status,
    releases.reason,
    coalesce(failures.n_failed_checks, 0) as n_failed_checks,
    main_arms.arm,
    summary.n_prompts,
    summary.n_findings,
    summary.extraction_rate,
    summary.low,
    summary.high,
    summary.n_controls,
    summary.n_controls_flagged,
    releases.compare_to as against,
    comparisons.outcome,
    comparisons.reason as not_comparable_reason,
    case when comparisons.outcome != 'not_comparable' then coalesce(new_images.n_new_images, 0) end as n_new_images,
    case when comparisons.outcome != 'not_comparable' then coalesce(new_images.n_new_undrawn, 0) end as n_new_undrawn
from releases
left join failures on releases.release = failures.release
left join main_arms on releases.release = main_arms.release
left join summary on main_arms.release = summary.release and main_arms.arm = summary.arm and summary.copies_bin = 'all'
left join comparisons
    on releases.release = comparisons.release and comparisons.kind = 'previous' and comparisons.arm = 'all'
left join new_images on releases.release = new_images.release;

comment on view gate is
'What eidetic gate decides on. One row per release of params.yaml.';
comment on column gate.release is 'Release under audit';
comment on column gate.audit_id is 'Its current audit; NULL where there is none';
comment on column gate.status is 'current, stale, refused or not_audited: all but current fail';
comment on column gate.reason is 'Why it is not current, with the way out; NULL where it is';
comment on column gate.n_failed_checks is 'Checks of its tables, and of those all releases share, that failed';
comment on column gate.arm is
'Arm that the verdict is about: the most duplicated images where there are any; NULL without a target or a current audit';
comment on column gate.n_prompts is 'Prompts of that arm; NULL where arm is';
comment on column gate.n_findings is 'Of these, prompts that return a training image; NULL where arm is';
comment on column gate.extraction_rate is
'n_findings / n_prompts: by this attack, a lower bound; NULL where arm is, or nothing was compared';
comment on column gate.low is 'Lower end of its 95 % interval; NULL where the rate is';
comment on column gate.high is 'Upper end of its 95 % interval; NULL where the rate is';
comment on column gate.n_controls is 'Control prompts that judge; NULL where arm is';
comment on column gate.n_controls_flagged is 'Of these, false alarms; NULL where arm is';
comment on column gate.against is 'Release it is compared to; NULL for none';
comment on column gate.outcome is
'Outcome of that comparison over all targets (see comparisons); NULL where against is, or without a current audit';
comment on column gate.not_comparable_reason is 'Why the two are not comparable, with the way out; NULL where they are';
comment on column gate.n_new_images is
'Training images (clusters) it returns and the other release on no prompt; NULL where the two are not compared';
comment on column gate.n_new_undrawn is
'Of these, images on whose prompts the other release drew no picture: no evidence that it would not; NULL as n_new_images';
