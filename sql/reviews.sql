-- What people said of pairs. One row per label.
create table reviews as
select
    release,
    finding_id,
    reviewer,
    label,
    is_person,
    is_trademark,
    protocol_digest,
    line,
    status,
    reason
from source.reviews
order by line;

alter table reviews add primary key (line);

comment on table reviews is
'What people said of pairs, as report.reviews names it; lines that are no label have a reason. One row per label.';

create view review_agreement as
with labelled as (
    select
        reviews.release,
        reviews.reviewer,
        reviews.label != 'not_a_copy' as is_called_copy,
        findings.arm = 'held_out' and not findings.is_extracted as is_decoy,
        findings.is_extracted or findings.is_flagged as is_match,
        coalesce(reviews.protocol_digest = protocol.protocol_digest and findings.finding_id is not null, false) as is_current
    from reviews
    left join findings on reviews.release = findings.release and reviews.finding_id = findings.finding_id
    left join protocol on reviews.release = protocol.release
    where reviews.status = 'ok'
),

counted as (
    select
        release,
        count(*) as n_labels,
        count(*) filter (where not is_current) as n_stale,
        count(distinct reviewer) filter (where is_current) as n_reviewers,
        count(*) filter (where is_current and is_decoy) as n_decoys,
        count(*) filter (where is_current and is_decoy and is_called_copy) as n_decoys_called_copies,
        count(*) filter (where is_current and is_match and is_called_copy) as n_both,
        count(*) filter (where is_current and is_match and not is_called_copy) as n_verdict_only,
        count(*) filter (where is_current and not is_match and is_called_copy) as n_people_only,
        count(*) filter (where is_current and not is_match and not is_called_copy) as n_neither
    from labelled
    group by release
),

expected as (
    select
        *,
        n_labels - n_stale as n_judged,
        (n_both + n_neither) / nullif(n_labels - n_stale, 0) as agreement,
        (
            (n_both + n_verdict_only) * (n_both + n_people_only) + (n_neither + n_verdict_only) * (n_neither + n_people_only)
        ) / nullif((n_labels - n_stale) * (n_labels - n_stale), 0) as agreement_by_chance
    from counted
)

select
    release,
    n_labels,
    n_stale,
    n_judged,
    n_reviewers,
    n_decoys,
    n_decoys_called_copies,
    n_both,
    n_verdict_only,
    n_people_only,
    n_neither,
    agreement,
    case when agreement_by_chance < 1 then (agreement - agreement_by_chance) / (1 - agreement_by_chance) end as kappa
from expected;

comment on view review_agreement is
'Whether people and verdicts agree on pairs; substantially_similar and template are called copies too. One row per release.';
comment on column review_agreement.release is 'Release whose report was looked at, as the labels name it';
comment on column review_agreement.n_labels is 'Labels of that release; lines with an error are none';
comment on column review_agreement.n_stale is
'Of these, of another protocol, or of a finding that the current audit does not have: seen here, counted nowhere below';
comment on column review_agreement.n_judged is 'The others: labels of pairs of the current audit, each reviewer''s for itself';
comment on column review_agreement.n_reviewers is 'Reviewers who gave these';
comment on column review_agreement.n_decoys is
'Of n_judged, decoys: a control''s generation beside a picture the model never saw';
comment on column review_agreement.n_decoys_called_copies is
'Of the decoys, called a copy: how often people see copies where there is none';
comment on column review_agreement.n_both is
'Called a copy by a person and by the verdict (verbatim, near_copy or template, flagged controls too)';
comment on column review_agreement.n_verdict_only is 'Called a copy by the verdict alone';
comment on column review_agreement.n_people_only is 'Called a copy by a person alone';
comment on column review_agreement.n_neither is 'Called a copy by neither';
comment on column review_agreement.agreement is '(n_both + n_neither) / n_judged; NULL where n_judged is 0';
comment on column review_agreement.kappa is
'Cohen''s kappa of people and verdicts; NULL where all say the same of all, which chance does too, or n_judged is 0';
