-- Events are listed and watched by their action, and audit entries found by their time, without looking at all the others.
CREATE INDEX event_by_action ON event (workspace, action, sequence);
CREATE INDEX audit_entry_by_time ON audit_entry (place, time);
