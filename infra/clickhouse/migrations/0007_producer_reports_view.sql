-- A view keeps the types that its columns had when it was made: this one did not show what 0004 added to `marks`.

CREATE OR REPLACE VIEW producer_reports AS
SELECT *
FROM producer_reports_raw FINAL;
