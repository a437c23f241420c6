//! Which reports are figures and which are failures.

use super::*;

fn report(change: impl FnOnce(&mut serde_json::Value)) -> Report {
    let mut report = serde_json::json!({
        "seconds": 3.0, "requests": 100, "answered": 100, "failed": 0, "errors": {},
        "requests_per_second": 33.3, "items_per_second": 33.3,
        "latency_us": { "p50": 100, "p90": 150, "p99": 200, "p99.9": 210, "max": 220, "mean": 1.0 },
        "versions": { "1": 100 }, "accuracy": 0.95, "checked": 0, "mismatches": 0,
        "mismatch": null,
    });
    change(&mut report);
    serde_json::from_value(report).unwrap()
}

fn load() -> Load<'static> {
    Load::new(Protocol::Grpc, "digits", Duration::from_secs(1))
}

fn refused(report: &mut serde_json::Value, kind: &str) {
    report["failed"] = 5.into();
    report["errors"] = serde_json::json!({ kind: { "count": 5, "example": "the queue is full" } });
}

#[test]
fn a_report_of_either_loop_is_read() {
    let closed = report(|_| ());
    assert!(closed.check(&load()).is_ok());
    assert_eq!((closed.offered_rate, closed.refusals()), (None, None));
    let open = report(|report| {
        report["offered_rate"] = 1000.0.into();
        report["achieved_rate"] = 990.0.into();
        report["dropped"] = 3.into();
        report["refused"] = 7.into();
        report["refused_latency_us"] = serde_json::json!({ "p50": 10, "p99": 20 });
    });
    assert_eq!(open.refusals(), Some(Quantiles { p50: 10.0, p99: 20.0 }));
    assert_eq!((open.offered_rate, open.dropped), (Some(1000.0), Some(3.0)));
}

#[test]
fn quantiles_of_no_refusal_are_not_zero_but_none() {
    let none = report(|report| {
        report["refused"] = 0.into();
        report["refused_latency_us"] = serde_json::json!({ "p50": 0, "p99": 0 });
    });
    assert_eq!(none.refusals(), None);
}

#[test]
fn a_failed_call_is_no_figure() {
    let error = report(|report| refused(report, "gRPC Unavailable")).check(&load()).unwrap_err();
    assert!(error.to_string().contains("the queue is full"), "{error}");
    assert!(report(|report| report["failed"] = 1.into()).check(&load()).is_err());
    assert!(report(|report| report["answered"] = 0.into()).check(&load()).is_err());
}

#[test]
fn refusals_alone_are_figures_where_they_are_wanted() {
    let wanted = Load { refusals: true, ..load() };
    for kind in ["gRPC Unavailable", "HTTP 503", "gRPC ResourceExhausted"] {
        assert!(report(|report| refused(report, kind)).check(&wanted).is_ok(), "{kind}");
    }
    for kind in ["connection broke", "gRPC Internal", "HTTP 500", "no answer in time"] {
        assert!(report(|report| refused(report, kind)).check(&wanted).is_err(), "{kind}");
    }
}

#[test]
fn a_wrong_or_unchecked_answer_is_no_figure() {
    let wrong = report(|report| {
        report["mismatches"] = 1.into();
        report["mismatch"] = "row 3".into();
    });
    assert!(wrong.check(&load()).unwrap_err().to_string().contains("row 3"));
    let checked = Load { check: true, ..load() };
    assert!(report(|_| ()).check(&checked).is_err());
    assert!(report(|report| report["checked"] = 100.into()).check(&checked).is_ok());
}

#[test]
fn options_that_an_older_program_lacks_are_not_given() {
    let tool = |help: &str| Loadtest { program: "x".into(), help: help.to_owned() };
    assert!(tool("--callers <NUMBER> --arrivals <A> --rate <R>").open_loop().is_ok());
    assert!(tool("--callers <NUMBER> --rates").open_loop().is_err());
}
