-- Which settings differ between audits of the same release?
select
    release,
    name,
    count(distinct value) as n_values,
    list(distinct value order by value) as setting_values
from all_settings
group by release, name
having count(distinct value) > 1
order by release, name;
