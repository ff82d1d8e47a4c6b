//! What a call carries on from its trigger (D01, S59).

use serde_json::Value;
use sluice_core::lineage::{HOPS_HEADER, Trace, hops, is_trace_header};

use crate::golden::{cases, envelope};

/// `0192f0c4-7a10-7b55-8a2b-3c4d5e6f7081`.
const DELIVERY: [u8; 16] = 0x0192_f0c4_7a10_7b55_8a2b_3c4d_5e6f_7081_u128.to_be_bytes();

#[test]
fn hops_and_traces_are_read_and_passed_on() {
    for case in cases("lineage/headers.jsonl") {
        let headers = envelope(Value::Null, &case["headers"]).headers;
        assert_eq!(u64::from(hops(&headers)), case["hops"].as_u64().unwrap(), "{}", case["case"]);
        let trace = Trace::received(&headers);
        let sent: Vec<Value> =
            trace.iter().flat_map(|trace| trace.headers(&DELIVERY)).map(|pair| [pair.0, pair.1].into()).collect();
        assert_eq!(Some(&sent), case["sent"].as_array(), "{}", case["case"]);
        // What is passed on is a trace itself, with another parent.
        let again = sent.iter().map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
        assert_eq!(Trace::received(&again), trace, "{}", case["case"]);
    }
}

#[test]
fn the_headers_of_a_lineage() {
    assert!(is_trace_header("TraceParent") && is_trace_header("tracestate"));
    assert!(!is_trace_header("trace") && !is_trace_header(HOPS_HEADER));
}
