//! Laws: what holds of every document, choice, filter, path, name and URL. Cases are generated from a fixed seed, so that a
//! red run is red again; proptest shrinks it to the smallest case that breaks the law.

mod documents;
mod equality;
mod filters;
mod names;
mod reading;

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestRunner};

/// How many cases each law is held against.
const CASES: u32 = 10_000;

/// Holds `law` against [`CASES`] cases.
#[track_caller]
fn holds<S>(cases: S, law: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S: Strategy,
    S::Value: Debug,
{
    let config = Config {
        cases: CASES,
        // Quick also in debug builds; nothing here is a secret.
        rng_algorithm: RngAlgorithm::XorShift,
        rng_seed: RngSeed::Fixed(20_240_610),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    if let Err(broken) = TestRunner::new(config).run(&cases, law) {
        panic!("{broken}");
    }
}
