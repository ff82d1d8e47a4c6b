INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('delivery', 'delivery_by_operation', '100000 10000 1000 2 1');
