-- The current audit of each release is in the history, finding by finding.
select
    releases.release,
    releases.audit_id,
    findings.finding_id
from releases
inner join findings on releases.release = findings.release
left join all_findings
    on
        releases.audit_id = all_findings.audit_id
        and findings.finding_id = all_findings.finding_id
        and findings.is_extracted = all_findings.is_extracted
where all_findings.finding_id is null;
