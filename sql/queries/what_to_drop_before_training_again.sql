-- What to drop before training again, and what each policy is expected to do?
select
    release,
    policy,
    n_dropped,
    n_rows,
    n_clusters_reduced,
    n_clusters_dropped,
    n_extracted,
    expected_extracted,
    expected_low,
    expected_high
from policies
order by release, n_dropped, policy;
