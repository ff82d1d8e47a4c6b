//! Many values in one blob, so that a step of the committer costs the file one row however much it does.

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use super::claims::{Key, Known};

/// A job's number and the epoch of a lease of it.
pub(super) type Lease = (i64, i64);

/// Leases, 16 bytes each.
pub(super) fn leases(leases: &[Lease]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(leases.len() * 16);
    for (seq, epoch) in leases {
        packed.put_i64(*seq);
        packed.put_i64(*epoch);
    }
    packed
}

/// What [`leases`] has packed; nothing if it was something else.
pub(super) fn read_leases(mut packed: Bytes) -> Option<Vec<Lease>> {
    let mut leases = Vec::with_capacity(packed.len() / 16);
    while packed.has_remaining() {
        leases.push((packed.try_get_i64().ok()?, packed.try_get_i64().ok()?));
    }
    Some(leases)
}

/// Attempts that begin.
pub(super) fn attempts(attempts: &[(Lease, Bytes)]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(attempts.iter().map(|(_, bytes)| bytes.len() + 20).sum());
    for ((seq, epoch), bytes) in attempts {
        packed.put_i64(*seq);
        packed.put_i64(*epoch);
        put(&mut packed, bytes);
    }
    packed
}

/// What [`attempts`] has packed; nothing if it was something else.
pub(super) fn read_attempts(mut packed: Bytes) -> Option<Vec<(Lease, Bytes)>> {
    let mut attempts = Vec::new();
    while packed.has_remaining() {
        let lease = (packed.try_get_i64().ok()?, packed.try_get_i64().ok()?);
        attempts.push((lease, take(&mut packed)?));
    }
    Some(attempts)
}

/// Keys as they are known, 56 bytes each.
pub(super) fn claims(keys: &[(Key, Known)]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(keys.len() * 56);
    for (key, known) in keys {
        packed.put_slice(key);
        packed.put_slice(known.request.as_bytes());
        packed.put_i64(known.exp);
    }
    packed
}

/// What [`claims`] has packed; nothing if it was something else.
pub(super) fn read_claims(mut packed: Bytes) -> Option<Vec<(Key, Known)>> {
    let mut keys = Vec::with_capacity(packed.len() / 56);
    while packed.has_remaining() {
        let (mut key, mut request) = (Key::default(), uuid::Bytes::default());
        packed.try_copy_to_slice(&mut key).ok()?;
        packed.try_copy_to_slice(&mut request).ok()?;
        keys.push((key, Known { request: Uuid::from_bytes(request), exp: packed.try_get_i64().ok()? }));
    }
    Some(keys)
}

/// Reports in their order; one alone is itself.
pub(super) fn reports(reports: &[&Bytes]) -> Vec<u8> {
    if let [one] = reports {
        return one.to_vec();
    }
    let mut packed = Vec::with_capacity(reports.iter().map(|report| report.len() + 4).sum());
    reports.iter().for_each(|report| put(&mut packed, report));
    packed
}

/// What [`reports`] has packed of so many; nothing if it was something else.
pub(super) fn read_reports(mut packed: Bytes, number: usize) -> Option<Vec<Bytes>> {
    if number == 1 {
        return Some(vec![packed]);
    }
    let reports: Option<Vec<Bytes>> = (0..number).map(|_| take(&mut packed)).collect();
    reports.filter(|_| packed.is_empty())
}

fn put(packed: &mut Vec<u8>, bytes: &Bytes) {
    // A step takes 8 MiB, and one value may exceed that alone; SQLite takes no blob of a gigabyte.
    packed.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    packed.extend_from_slice(bytes);
}

fn take(packed: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(packed.try_get_u32().ok()?).ok()?;
    (packed.len() >= length).then(|| packed.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_read_and_nothing_else() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let some = vec![(1, 2), (i64::MAX, -1)];
        assert_eq!(read_leases(leases(&some).into()), Some(some.clone()));
        assert_eq!(read_leases(leases(&some)[1..].to_vec().into()), None);
        let keys = vec![
            ([7; 32], Known { request: Uuid::from_u128(5), exp: -3 }),
            ([8; 32], Known { request: Uuid::nil(), exp: i64::MAX }),
        ];
        assert_eq!(read_claims(claims(&keys).into()), Some(keys.clone()));
        assert_eq!(read_claims(claims(&keys)[1..].to_vec().into()), None);
        let begun = vec![((1, 2), bytes("one")), ((3, 4), Bytes::new())];
        assert_eq!(read_attempts(attempts(&begun).into()), Some(begun.clone()));
        assert_eq!(read_attempts(attempts(&begun)[..20].to_vec().into()), None);
        for told in [vec![bytes("alone")], vec![bytes("one"), Bytes::new(), bytes("three")]] {
            let packed = Bytes::from(reports(&told.iter().collect::<Vec<_>>()));
            assert_eq!(read_reports(packed.clone(), told.len()), Some(told.clone()));
            assert_eq!(read_reports(packed, told.len() + 1), None);
        }
    }
}
