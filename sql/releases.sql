-- The releases under audit and the settings each was audited with. One row per release.
create table releases as
select
    release,
    position,
    compare_to,
    base,
    status,
    reason,
    audit_id
from source.releases
order by position;

alter table releases add primary key (release);

comment on table releases is
'The releases under audit, as params.yaml lists them. One row per release.';

create table settings as
select
    release,
    name,
    value
from source.settings
order by release, name;

alter table settings add primary key (release, name);

comment on table settings is
'The settings of each current audit. One row per release and setting.';
