-- What failed for good, or waits to be retried. A row is deleted when its message is delivered.
--
-- Times are text in UTC, as the Go driver writes them: 2026-11-21 20:13:00.12+00:00.
CREATE TABLE IF NOT EXISTS failed_message (
    id              text     NOT NULL PRIMARY KEY,
    created_at      datetime NOT NULL,
    updated_at      datetime NOT NULL,
    sender          text     NOT NULL,
    method          text     NOT NULL,
    url             text     NOT NULL,
    host            text     NOT NULL,
    host_override   text     NOT NULL,
    header          blob     NOT NULL,
    body            blob     NOT NULL,
    metadata        text     NOT NULL,
    idempotency_key text     NOT NULL,
    status_code     integer  NOT NULL,
    attempts        integer  NOT NULL,
    retries         integer  NOT NULL,
    failure_kind    text     NOT NULL,
    last_error      text     NOT NULL,
    retryable       numeric  NOT NULL,
    next_attempt_at datetime,
    schedule        text     NOT NULL,
    not_after       datetime,
    claims          integer  NOT NULL,
    claim_token     text     NOT NULL,
    claimed_until   datetime,
    claimed_by      text     NOT NULL,
    attempt_log     text     NOT NULL
);

-- What gathering reads, in its order. Invalid and exhausted rows have no next_attempt_at and so fall out of it.
CREATE INDEX IF NOT EXISTS failed_message_due ON failed_message (sender, next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL;

-- What lists are paged by.
CREATE INDEX IF NOT EXISTS failed_message_created ON failed_message (created_at, id);
