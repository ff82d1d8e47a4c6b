//! Which incoming requests the control plane is being told of already. A request that starts twenty deliveries would otherwise
//! travel with the first report of each.
//!
//! Whoever is first tells, and tells again if its report has to be made again. Forgetting costs a repetition, which the control
//! plane stores once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// Requests that are remembered (I8): those whose deliveries are under way.
const REQUESTS_MAX: usize = 4_096;

/// Who tells of which request.
#[derive(Debug, Default)]
pub struct RequestsTold(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    by: HashMap<Uuid, Uuid>,
    order: VecDeque<Uuid>,
}

impl RequestsTold {
    /// Whether this delivery is to tell of the request: nobody else does.
    pub fn tells(&self, request: &str, delivery: Uuid) -> bool {
        // Requests have UUIDs; of something else each delivery tells.
        let Ok(request) = Uuid::try_parse(request) else { return true };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(by) = told.by.get(&request) {
            return *by == delivery;
        }
        if told.order.len() >= REQUESTS_MAX
            && let Some(oldest) = told.order.pop_front()
        {
            told.by.remove(&oldest);
        }
        told.by.insert(request, delivery);
        told.order.push_back(request);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_delivery_tells_of_a_request_as_often_as_it_must() {
        let told = RequestsTold::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let [a, b] = ["a", "b"].map(|_| Uuid::new_v4().to_string());
        assert!(told.tells(&a, one) && !told.tells(&a, other) && told.tells(&a, one));
        assert!(told.tells(&b, other));
        for _ in 0..REQUESTS_MAX {
            assert!(told.tells(&Uuid::new_v4().to_string(), one));
        }
        assert!(told.tells(&a, other), "the oldest are forgotten, and told again");
        let state = told.0.lock().unwrap();
        assert_eq!((state.by.len(), state.order.len()), (REQUESTS_MAX, REQUESTS_MAX));
    }
}
