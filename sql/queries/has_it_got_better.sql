-- How has the extraction rate moved over all audits ever made?
select
    audits.audited_at,
    audits.audit_id,
    all_summary.arm,
    all_summary.n_findings,
    all_summary.n_prompts,
    all_summary.extraction_rate,
    all_summary.low,
    all_summary.high
from audits
inner join all_summary on audits.audit_id = all_summary.audit_id
where all_summary.copies_bin = 'all'
order by audits.audited_at, audits.audit_id, all_summary.arm;
