-- What a large table is like: the planner is to choose the same index from the first row on.
ANALYZE delivery;
DELETE FROM sqlite_stat1 WHERE tbl = 'delivery';
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('delivery', 'sqlite_autoindex_delivery_1', '1000000 1'),
    ('delivery', 'delivery_by_time', '1000000 2'),
    ('delivery', 'delivery_by_accept', '1000000 100000 2 1'),
    ('delivery', 'delivery_by_change', '1000000 100000 1'),
    ('delivery', 'delivery_by_workflow', '1000000 100000 10000 2 1'),
    ('delivery', 'delivery_by_incoming', '1000000 100000 10000 2 1'),
    ('delivery', 'delivery_by_trigger', '1000000 100000 2 2 1'),
    ('delivery', 'delivery_by_state', '50000 5000 2000 2 1'),
    ('delivery', 'delivery_by_reason', '50000 5000 500 2 1');
