-- +goose Up
CREATE TABLE accounts (
    name     TEXT PRIMARY KEY, -- in lower case
    password TEXT NOT NULL,    -- Argon2id, PHC string
    created  INTEGER NOT NULL  -- Unix time in seconds
) STRICT;

-- +goose Down
DROP TABLE accounts;
