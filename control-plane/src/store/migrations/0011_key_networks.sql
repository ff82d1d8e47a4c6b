-- From where API keys were used: the first 24 bits of an address of version 4, the first 48 of one of version 6.
CREATE TABLE key_network (
    api_key             TEXT   NOT NULL REFERENCES api_key (id) ON DELETE CASCADE,
    network             TEXT   NOT NULL,
    first_time          BIGINT NOT NULL,
    PRIMARY KEY (api_key, network)
);
