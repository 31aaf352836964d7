-- What mxgate keeps in PostgreSQL, version 1: what the store is, the connections, who may change one, and what is used once.
--
-- mxgate runs this itself when its role may make tables. Whoever would rather do that by another role runs it with
-- psql, in one transaction and in the schema that mxgate is to use, and grants rights: docs/oauth.md.

CREATE TABLE mxgate_version (
    version integer PRIMARY KEY,
    made    timestamptz NOT NULL DEFAULT now()
);

-- One row: the store's id, which every seal is bound to, and the key that sealed when a replica last started.
CREATE TABLE mxgate_store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id  bytea   NOT NULL CHECK (octet_length(id) = 16),
    key text    NOT NULL
);

-- The header is in the clear; the seal covers it. `key` repeats what the header says, so that it can be asked for.
-- A lease is a row's last five columns: `fence` rises with each, and `left_by` did not give the last one back.
CREATE TABLE mxgate_connections (
    id          bytea  PRIMARY KEY CHECK (octet_length(id) = 16),
    header      text   NOT NULL,
    sealed      bytea  NOT NULL,
    key         text   NOT NULL,
    fence       bigint NOT NULL DEFAULT 0,
    lease_owner text,
    lease_until timestamptz,
    left_by     text,
    left_until  timestamptz,
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
    CHECK ((left_by IS NULL) = (left_until IS NULL))
);

-- What is good once and for minutes, under a digest of what its bearer shows. `ends` is what its maker said and the seal
-- covers; `until` is the same by the clock of this database, and what counts.
CREATE TABLE mxgate_pending (
    name   bytea  PRIMARY KEY CHECK (octet_length(name) = 32),
    ends   bigint NOT NULL,
    until  timestamptz NOT NULL,
    key    text   NOT NULL,
    sealed bytea  NOT NULL
);

-- What is sealed does not get smaller.
ALTER TABLE mxgate_connections ALTER COLUMN sealed SET STORAGE EXTERNAL;
ALTER TABLE mxgate_pending ALTER COLUMN sealed SET STORAGE EXTERNAL;

INSERT INTO mxgate_version (version) VALUES (1);
