CREATE FUNCTION audit_anchor_goes_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.number > OLD.number AND NEW.place = OLD.place THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'an audit log never begins earlier again, and its beginning is never deleted';
END
$$;

CREATE TRIGGER audit_anchor_goes_forward BEFORE UPDATE ON audit_anchor
    FOR EACH ROW EXECUTE FUNCTION audit_anchor_goes_forward();
CREATE TRIGGER audit_anchor_is_not_deleted BEFORE DELETE ON audit_anchor
    FOR EACH ROW EXECUTE FUNCTION audit_anchor_goes_forward();
CREATE TRIGGER audit_anchor_is_not_emptied BEFORE TRUNCATE ON audit_anchor
    FOR EACH STATEMENT EXECUTE FUNCTION audit_anchor_goes_forward();

CREATE FUNCTION audit_entry_is_let_go() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM audit_anchor WHERE place = OLD.place AND number >= OLD.number) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit entries are never deleted but from the beginning of their log';
END
$$;

DROP TRIGGER audit_entry_is_not_deleted ON audit_entry;
CREATE TRIGGER audit_entry_is_not_deleted BEFORE DELETE ON audit_entry FOR EACH ROW EXECUTE FUNCTION audit_entry_is_let_go();
