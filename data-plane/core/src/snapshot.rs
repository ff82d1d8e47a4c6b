//! One workspace at one revision: what a delta does to it and how two planes know that they hold the same.
//!
//! Both planes use these functions and nothing else, so that a digest means the same on both ends of the wire.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::{DecodeError, Message};
use sha2::{Digest as _, Sha256};
use sluice_proto::sync::v1::{Cursor, Resource, WrappedKey};

/// What a workspace holds: encoded resources by name.
pub type Resources = BTreeMap<String, Bytes>;

/// [`WorkspaceBody`](sluice_proto::sync::v1::WorkspaceBody) with its resources still encoded: passed on, merged and kept as they came, so
/// that a plane of another release changes nothing of them. Of a body that is one piece of memory they are parts, not copies.
#[derive(Clone, PartialEq, Message)]
pub struct EncodedBody {
    /// The number templates see.
    #[prost(int64, tag = "1")]
    pub business_profile_id: i64,
    /// The wrapped data key.
    #[prost(message, optional, tag = "2")]
    pub data_key: Option<WrappedKey>,
    /// New and changed resources, each an encoded [`Resource`].
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub upserts: Vec<Bytes>,
    /// Names of resources that are gone.
    #[prost(string, repeated, tag = "4")]
    pub deletes: Vec<String>,
}

/// What every kind of resource begins with.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

fn name_of(resource: &Bytes) -> Result<String, DecodeError> {
    Ok(Named::decode(resource.clone())?.name)
}

/// SHA-256 of an encoded resource: documents, versions and sealed secrets alike.
pub fn content_hash(resource: &Resource) -> [u8; 32] {
    encoded_hash(&resource.encode_to_vec())
}

/// The same of one that is encoded already.
pub fn encoded_hash(resource: &[u8]) -> [u8; 32] {
    Sha256::digest(resource).into()
}

/// What a cursor carries: SHA-256 over the names and content hashes of all resources, by name. The order they come in does
/// not matter. Names are preceded by their length, so that no two sets read the same.
pub fn digest<'a>(resources: impl Iterator<Item = (&'a str, &'a [u8; 32])>) -> [u8; 32] {
    let mut sorted: Vec<(&str, &[u8; 32])> = resources.collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    let mut hasher = Sha256::new();
    for (name, hash) in sorted {
        hasher.update((name.len() as u64).to_be_bytes());
        hasher.update(name);
        hasher.update(hash);
    }
    hasher.finalize().into()
}

/// What a beat carries: SHA-256 over where all workspaces of a data plane stand, by name.
pub fn holding<'a>(cursors: impl Iterator<Item = &'a Cursor>) -> [u8; 32] {
    let sorted: BTreeMap<&str, &Cursor> = cursors.map(|cursor| (cursor.workspace.as_str(), cursor)).collect();
    let mut hasher = Sha256::new();
    for (name, Cursor { revision, digest, .. }) in sorted {
        hasher.update((name.len() as u64).to_be_bytes());
        hasher.update(name);
        hasher.update(revision.to_be_bytes());
        hasher.update((digest.len() as u64).to_be_bytes());
        hasher.update(digest);
    }
    hasher.finalize().into()
}

/// What is held after `delta`: its deletes are gone, its upserts are there. A snapshot is a delta to nothing.
///
/// # Errors
/// A resource of it is none.
pub fn apply(mut base: Resources, delta: EncodedBody) -> Result<Resources, DecodeError> {
    for name in &delta.deletes {
        base.remove(name);
    }
    for resource in delta.upserts {
        base.insert(name_of(&resource)?, resource);
    }
    Ok(base)
}

/// As many resources may be gone at once in any case.
pub const GONE_MAX: usize = 100;
/// As many percent of what was there may be gone at once in any case.
const GONE_PERCENT_MAX: usize = 30;

/// How many of the resources in `base` are gone in `next`, if that is most of them: what nobody has confirmed is then more likely a
/// mistake than a wish.
pub fn takes_most<'a>(base: impl Iterator<Item = &'a str>, next: &Resources) -> Option<usize> {
    let (mut of, mut gone) = (0, 0);
    for name in base {
        of += 1;
        gone += usize::from(!next.contains_key(name));
    }
    let is_most = gone > GONE_MAX && gone * 100 > of * GONE_PERCENT_MAX;
    (is_most || (next.is_empty() && gone > 1)).then_some(gone)
}

/// One delta that does what `deltas` do one after the other, oldest first. Key and profile are those of the newest.
/// `None` when there are none.
///
/// # Errors
/// A resource of them is none.
pub fn merge(deltas: impl IntoIterator<Item = EncodedBody>) -> Result<Option<EncodedBody>, DecodeError> {
    let mut upserts = Resources::new();
    let mut deletes = BTreeSet::new();
    let mut newest = None;
    for mut delta in deltas {
        for name in std::mem::take(&mut delta.deletes) {
            upserts.remove(&name);
            deletes.insert(name);
        }
        for resource in std::mem::take(&mut delta.upserts) {
            let name = name_of(&resource)?;
            deletes.remove(&name);
            upserts.insert(name, resource);
        }
        newest = Some(delta);
    }
    Ok(newest.map(|newest| EncodedBody {
        upserts: upserts.into_values().collect(),
        deletes: deletes.into_iter().collect(),
        ..newest
    }))
}

#[cfg(test)]
mod tests {
    use sluice_proto::sync::v1::WorkspaceBody;

    use super::*;

    /// A small generator with a fixed seed: the laws below are tried on many histories, and a failure repeats.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }

    fn name(name: u64) -> String {
        format!("workspaces/w/connections/c{name}")
    }

    fn resource(number: u64, version: i64) -> Bytes {
        Resource { name: name(number), version, ..Default::default() }.encode_to_vec().into()
    }

    /// A publish of up to four changes; no name twice, as the control plane makes them.
    fn delta(dice: &mut Dice, version: i64) -> EncodedBody {
        let mut body = EncodedBody { business_profile_id: version, ..Default::default() };
        let names: BTreeSet<u64> = (0..=dice.roll(4)).map(|_| dice.roll(6)).collect();
        for number in names {
            match dice.roll(3) {
                0 => body.deletes.push(name(number)),
                _ => body.upserts.push(resource(number, version)),
            }
        }
        body
    }

    fn hash(resources: &Resources) -> [u8; 32] {
        let hashes: Vec<_> = resources.iter().map(|(name, one)| (name.as_str(), encoded_hash(one))).collect();
        digest(hashes.iter().map(|(name, hash)| (*name, hash)))
    }

    fn snapshot(resources: &Resources) -> EncodedBody {
        EncodedBody { upserts: resources.values().cloned().collect(), ..Default::default() }
    }

    #[test]
    fn deltas_one_by_one_merged_and_a_snapshot_lead_to_the_same() {
        for seed in 0..500 {
            let mut dice = Dice(seed);
            let history: Vec<_> = (1..12).map(|version| delta(&mut dice, version)).collect();
            let held = usize::try_from(dice.roll(11)).unwrap();
            let after = |base, delta| apply(base, delta).unwrap();
            let base = history[..held].iter().cloned().fold(Resources::new(), after);
            let head = history[held..].iter().cloned().fold(base.clone(), after);

            let merged = merge(history[held..].iter().cloned()).unwrap().unwrap();
            assert_eq!(merged.business_profile_id, 11);
            let caught_up = apply(base, merged).unwrap();
            assert_eq!(caught_up, head, "seed {seed}");
            assert_eq!(hash(&caught_up), hash(&head));
            assert_eq!(apply(Resources::new(), snapshot(&head)).unwrap(), head, "seed {seed}");
        }
    }

    #[test]
    fn most_is_more_than_a_hundred_and_more_than_three_in_ten_or_all() {
        let of = |count: u64| -> Resources { (0..count).map(|number| (name(number), resource(number, 1))).collect() };
        for (base, next, most) in [
            (0, 0, None),
            (1, 0, None),
            (2, 0, Some(2)),
            (100, 1, None),
            (101, 1, None),
            (102, 1, Some(101)),
            (340, 240, None),
            (340, 239, None),
            (336, 235, Some(101)),
            (1000, 700, None),
            (1000, 699, Some(301)),
            (5, 500, None),
        ] {
            assert_eq!(takes_most(of(base).keys().map(String::as_str), &of(next)), most, "{base} to {next}");
        }
    }

    #[test]
    fn merging_nothing_gives_nothing() {
        assert_eq!(merge([]).unwrap(), None);
    }

    #[test]
    fn a_digest_sees_names_contents_and_absence_but_not_order() {
        let (one, two) = ([1; 32], [2; 32]);
        let both = digest([("a", &one), ("b", &two)].into_iter());
        assert_eq!(both, digest([("b", &two), ("a", &one)].into_iter()));
        assert_ne!(both, digest([("a", &two), ("b", &one)].into_iter()));
        assert_ne!(both, digest([("a", &one)].into_iter()));
        assert_ne!(digest([("a", &one)].into_iter()), digest([("ab", &one)].into_iter()));
        assert_ne!(digest([].into_iter()), [0; 32]);
    }

    #[test]
    fn what_a_beat_carries_sees_every_workspace_and_all_of_its_cursor_but_not_order() {
        let at = |workspace: &str, revision, digest: u8| Cursor {
            workspace: workspace.to_owned(),
            revision,
            digest: vec![digest; 32].into(),
        };
        let of = |cursors: &[Cursor]| holding(cursors.iter());
        let both = of(&[at("a", 1, 1), at("b", 2, 2)]);
        assert_eq!(both, of(&[at("b", 2, 2), at("a", 1, 1)]));
        let others = [
            vec![],
            vec![at("a", 1, 1)],
            vec![at("a", 2, 1), at("b", 2, 2)],
            vec![at("a", 1, 2), at("b", 2, 2)],
            vec![at("a", 1, 1), at("c", 2, 2)],
        ];
        for other in others {
            assert_ne!(both, of(&other), "{other:?}");
        }
    }

    #[test]
    fn a_content_hash_sees_the_sealed_secret() {
        use sluice_proto::sync::v1::SealedSecret;
        let plain = Resource { name: name(1), version: 1, ..Default::default() };
        let secret = SealedSecret {
            field: "api_key.secret".into(),
            version: 1,
            ciphertext: vec![7].into(),
            ..Default::default()
        };
        let sealed = Resource { secrets: vec![secret], ..plain.clone() };
        assert_ne!(content_hash(&plain), content_hash(&sealed));
    }

    #[test]
    fn a_body_reads_and_writes_what_the_contract_says_and_keeps_what_it_does_not_know() {
        let whole = WorkspaceBody {
            business_profile_id: 7,
            data_key: Some(WrappedKey { key_id: "k".to_owned(), ciphertext: vec![1].into() }),
            upserts: vec![Resource { name: name(1), version: 2, ..Default::default() }],
            deletes: vec![name(2)],
        };
        let bytes = Bytes::from(whole.encode_to_vec());
        let mut body = EncodedBody::decode(bytes.clone()).unwrap();
        assert_eq!(body.encode_to_vec(), bytes);
        assert_eq!(encoded_hash(&body.upserts[0]), content_hash(&whole.upserts[0]));
        // Field 99 of a later release.
        let later = Bytes::from([&body.upserts[0][..], &[0x9a, 6, 1, b'x']].concat());
        body.upserts[0] = later.clone();
        let held = apply(Resources::new(), EncodedBody::decode(body.encode_to_vec().as_slice()).unwrap()).unwrap();
        assert_eq!(held[&name(1)], later);
        assert!(apply(Resources::new(), EncodedBody { upserts: vec![vec![0xff].into()], ..body }).is_err());
    }
}
