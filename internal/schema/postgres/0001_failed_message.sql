-- What failed for good, or waits to be retried. A row is deleted when its message is delivered.
--
-- A claim writes claim_token, claimed_until, claimed_by and claims only. None of them is in an index, and pages are
-- filled by half, so that PostgreSQL can update a row within its page and leave the indexes alone.
CREATE TABLE IF NOT EXISTS failed_message (
    id              text COLLATE "C" NOT NULL PRIMARY KEY,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    sender          text        NOT NULL,
    method          text        NOT NULL,
    url             text        NOT NULL,
    host            text        NOT NULL,
    host_override   text        NOT NULL,
    header          bytea       NOT NULL,
    body            bytea       NOT NULL,
    metadata        text        NOT NULL,
    idempotency_key text        NOT NULL,
    status_code     integer     NOT NULL,
    attempts        integer     NOT NULL,
    retries         integer     NOT NULL,
    failure_kind    text        NOT NULL,
    last_error      text        NOT NULL,
    retryable       boolean     NOT NULL,
    next_attempt_at timestamptz,
    schedule        text        NOT NULL,
    not_after       timestamptz,
    claims          integer     NOT NULL,
    claim_token     text        NOT NULL,
    claimed_until   timestamptz,
    claimed_by      text        NOT NULL,
    attempt_log     text        NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- What gathering reads, in its order. Invalid and exhausted rows have no next_attempt_at and so fall out of it.
CREATE INDEX IF NOT EXISTS failed_message_due ON failed_message (sender, next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL;

-- What lists are paged by.
CREATE INDEX IF NOT EXISTS failed_message_created ON failed_message (created_at, id);
