-- Keys: a message has a small number, seq. A variant is seq << 16 | variant, a recipient seq << 16 | number: all rows of
-- a message stand together in their tables, and new ones are appended.

CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('epoch', 0);

CREATE TABLE routes (
    route INTEGER PRIMARY KEY,
    transport TEXT NOT NULL,
    name TEXT NOT NULL,
    UNIQUE (transport, name)
);

CREATE TABLE messages (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    received_at INTEGER NOT NULL,      -- ms of the wall clock, as all times here
    body_bytes INTEGER NOT NULL,
    body_file TEXT,                    -- NULL: in bodies
    body_type INTEGER NOT NULL,
    smtp_utf8 INTEGER NOT NULL,
    header_message_id TEXT NOT NULL,
    origin TEXT NOT NULL               -- JSON
);

CREATE TABLE variants (
    vkey INTEGER PRIMARY KEY,
    sender TEXT NOT NULL,              -- empty: null reverse-path
    envid TEXT NOT NULL,
    dsn_return INTEGER NOT NULL,
    header BLOB NOT NULL
);

CREATE TABLE bodies (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);

CREATE TABLE recipients (
    rkey INTEGER PRIMARY KEY,
    variant INTEGER NOT NULL,
    route INTEGER NOT NULL,
    state INTEGER NOT NULL,            -- 0 open, 1 held, 2 delivered, 3 failed, 4 removed
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    bytes INTEGER NOT NULL,            -- header section and inline body, to bound what is read at a time
    warned INTEGER NOT NULL,
    address TEXT NOT NULL,
    original TEXT NOT NULL,
    notify INTEGER NOT NULL,
    delivered_to TEXT NOT NULL,
    last_at INTEGER,
    last_remote TEXT,
    last_reply TEXT,
    last_code TEXT,
    hold_reason TEXT
);
CREATE INDEX recipients_due ON recipients (route, due) WHERE state = 0;
CREATE INDEX recipients_held ON recipients (route) WHERE state = 1;

CREATE TABLE reports (
    number INTEGER PRIMARY KEY,        -- the settle that it comes from
    seq INTEGER NOT NULL,
    variant INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    recipients TEXT NOT NULL           -- JSON
);
CREATE INDEX reports_seq ON reports (seq);
CREATE INDEX reports_due ON reports (due);

-- By message id, which begins with its time: appended, and trimmed from the front.
CREATE TABLE events (
    message_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,                -- JSON
    PRIMARY KEY (message_id, n)
) WITHOUT ROWID;
