//! Limits that all planes keep together: which shard keeps which of them.

use futures::future::join_all;

use super::super::{Given, Ledger, Unavailable, Wanted};
use super::Redis;
use super::ask::{Answer, Ask};

impl Redis {
    pub(in crate::inbox) fn ledger(&self) -> Option<Ledger> {
        self.0.exact_limits.map(|believed| Ledger { redis: self.clone(), believed })
    }

    /// Each limit is kept in one shard.
    pub(in crate::inbox) async fn take(&self, wanted: Vec<Wanted>) -> Result<Vec<Given>, Unavailable> {
        let mut by_shard: Vec<(Vec<usize>, Vec<Wanted>)> = vec![Default::default(); self.0.shards.len()];
        let mut given = vec![None; wanted.len()];
        for (place, wanted) in wanted.into_iter().enumerate() {
            let (places, all) = by_shard.get_mut(self.shard_of_limit(&wanted.name)).ok_or(Unavailable)?;
            places.push(place);
            all.push(wanted);
        }
        let asked = by_shard.into_iter().enumerate().filter(|(_, (places, _))| !places.is_empty());
        let asked = asked.map(async |(shard, (places, wanted))| (places, self.ask(shard, Ask::Limits(wanted)).await));
        for (places, answer) in join_all(asked).await {
            let Answer::Given(all) = answer? else { return Err(Unavailable) };
            for (place, one) in places.into_iter().zip(all) {
                if let Some(place) = given.get_mut(place) {
                    *place = Some(one);
                }
            }
        }
        given.into_iter().collect::<Option<_>>().ok_or(Unavailable)
    }

    /// The same for all planes, and for all releases.
    pub(super) fn shard_of_limit(&self, name: &str) -> usize {
        let sum = name.bytes().fold(0usize, |sum, byte| (sum * 31 + usize::from(byte)) % 65_521);
        sum % self.0.shards.len()
    }
}
