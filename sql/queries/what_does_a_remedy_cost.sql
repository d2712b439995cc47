-- What does each remedy cost, and what does it bring?
select
    release,
    remedy,
    n_rows_dropped,
    n_ordinary_blocked,
    n_ordinary,
    ordinary_blocked_high,
    n_images_stopped,
    stopped_rate,
    expected_extracted_before,
    expected_extracted,
    expected_high
from remedies
order by release, remedy;
