-- What was checked of each table before it was published. One row per table and check.
create table checks as
select
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
from source.checks
order by release, table_name, check_number;

comment on table checks is
'What was checked of each table before it was published. One row per table and check.';
