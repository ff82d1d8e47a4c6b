CREATE TRIGGER audit_anchor_goes_forward BEFORE UPDATE ON audit_anchor WHEN NEW.number <= OLD.number OR NEW.place <> OLD.place
BEGIN
    SELECT RAISE(ABORT, 'an audit log never begins earlier again');
END;

CREATE TRIGGER audit_anchor_is_not_deleted BEFORE DELETE ON audit_anchor
BEGIN
    SELECT RAISE(ABORT, 'the beginning of an audit log is never deleted');
END;

DROP TRIGGER audit_entry_is_not_deleted;
CREATE TRIGGER audit_entry_is_not_deleted BEFORE DELETE ON audit_entry
WHEN NOT EXISTS (SELECT 1 FROM audit_anchor WHERE place = OLD.place AND number >= OLD.number)
BEGIN
    SELECT RAISE(ABORT, 'audit entries are never deleted but from the beginning of their log');
END;
