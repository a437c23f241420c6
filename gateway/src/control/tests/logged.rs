//! Which rows calls leave in the prediction log, however they end.

use std::path::Path;

use super::*;
use crate::pipeline::Keys;
use crate::predictions::reading;
use crate::types::IdempotencyKey;

/// What tests compare of a row.
type Told = (i32, String, String, String);

const ANSWERED: i32 = 1;
const REPLAYED: i32 = 2;
const REFUSED: i32 = 3;
const FAILED: i32 = 4;
const CANCELLED: i32 = 5;

impl Rig {
    fn log(&mut self, path: &Path, lines: &str) {
        self.pipeline.log = Some(reading::start(path, lines));
    }

    /// Status, error, version and arm of every row.
    fn told(&self) -> Vec<Told> {
        let log = self.pipeline.log.as_ref().unwrap();
        let tell = |row: reading::Row| (row.status, row.error, row.version, row.arm);
        reading::ended(log).into_iter().map(tell).collect()
    }
}

fn row(status: i32, error: &str, version: &str, arm: &str) -> Told {
    (status, error.to_owned(), version.to_owned(), arm.to_owned())
}

#[tokio::test]
async fn every_call_leaves_one_row_however_it_ends() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1], "policy = 'all'").await;
    rig.log(folder.path(), "");
    rig.infer(rig.call(None)).await.unwrap().encoded();
    // The door could not encode it; the caller left before it could.
    let reply = rig.infer(rig.call(None)).await.unwrap();
    drop(reply.refuse(Rejection::invalid("no such form")));
    drop(rig.infer(rig.call(None)).await.unwrap());
    assert!(rig.infer(Call { model: "nobody".into(), ..rig.call(None) }).await.is_err());
    let outputs = vec!["z".into()];
    assert!(rig.infer(Call { outputs, ..rig.call(None) }).await.is_err());
    rig.stub.push(StubStep::Panic);
    assert!(rig.infer(rig.call(None)).await.is_err());
    assert_eq!(
        rig.told(),
        [
            row(ANSWERED, "", "1", ""),
            row(REFUSED, "invalid_input", "1", ""),
            row(CANCELLED, "cancelled", "1", ""),
            row(REFUSED, "not_found", "", ""),
            row(REFUSED, "invalid_input", "1", ""),
            row(FAILED, "engine_failed", "1", ""),
        ]
    );
}

#[tokio::test]
async fn a_row_has_what_was_asked_and_answered_and_by_what() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[3], "policy = 'all'").await;
    rig.log(folder.path(), "");
    let reply = rig.infer(rig.call(None)).await.unwrap();
    let id = *reply.answer.prediction.as_bytes();
    let sent = reply.answer.outputs[0].1.data().to_vec();
    reply.encoded();
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!(row.prediction[..], id);
    assert_eq!((&*row.called, &*row.model, &*row.version, &*row.draw), ("m", "m", "3", "direct"));
    assert_eq!((row.items, row.file_hash.len(), &*row.protocol), (1, 64, "http"));
    let (input, output) = (&row.inputs[0], &row.outputs[0]);
    assert_eq!((&*input.name, &input.data[..], &input.shape[..]), ("x", &[7][..], &[1, 1][..]));
    assert_eq!((&*output.name, &output.data[..]), ("y", &sent[..]));
    assert!(row.total_us >= row.engine_us && row.schema != 0 && !row.amends);
    assert_eq!(row.batch_size, 1);
}

#[tokio::test]
async fn a_durable_row_is_there_before_its_answer_and_amended_by_what_follows() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1], "policy = 'all'").await;
    rig.log(folder.path(), "guarantee = 'durable'");
    let reply = rig.infer(rig.call(None)).await.unwrap();
    let open: Vec<_> = fs::read_dir(folder.path().join("segments")).unwrap().collect();
    let written = fs::read(open[0].as_ref().unwrap().path()).unwrap();
    let id = *reply.answer.prediction.as_bytes();
    assert!(written.windows(16).any(|bytes| bytes == id), "it is not written yet");
    reply.encoded();
    drop(rig.infer(rig.call(None)).await.unwrap());
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    let told: Vec<_> = rows.iter().map(|row| (row.status, row.amends, row.inputs.len())).collect();
    assert_eq!(told, [(ANSWERED, false, 1), (ANSWERED, false, 1), (CANCELLED, true, 0)]);
    assert_eq!(rows[1].prediction, rows[2].prediction);
    // The log has ended: nobody is answered whose row cannot be there.
    let refused = rig.infer(rig.call(None)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NotReady);
}

#[tokio::test]
async fn a_route_says_how_surely_its_calls_are_kept() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1, 2], "policy = 'all'").await;
    rig.log(folder.path(), "guarantee = 'off'");
    let of = |name: &str, log| config::Route {
        name: name.parse().unwrap(),
        log,
        ..routes::route("100%")
    };
    rig.route(1, vec![of("kept", Some(config::Guarantee::Durable)), of("not", None)]);
    for name in ["kept", "not", "m"] {
        let reply = rig.infer(Call { model: name.into(), ..rig.call(None) }).await.unwrap();
        reply.encoded();
    }
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!((&*row.route, &*row.arm, &*row.assigned_arm), ("kept", "canary", "canary"));
    assert_eq!((row.revision, row.propensity, row.bucket.is_some()), (1, Some(1.0), true));
}

#[tokio::test]
async fn a_repeat_leaves_a_row_of_its_own_with_the_same_prediction() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1], "policy = 'all'").await;
    rig.pipeline.keys = Some(Keys::new(Config::for_repository(folder.path()).idempotency));
    rig.log(&folder.path().join("log"), "guarantee = 'durable'");
    for _ in 0..2 {
        let key = IdempotencyKey::read(b"once", 100).ok();
        rig.infer(Call { key, ..rig.call(None) }).await.unwrap().encoded();
    }
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    let told: Vec<_> =
        rows.iter().map(|row| (row.status, &*row.idempotency_key, row.outputs.len())).collect();
    assert_eq!(told, [(ANSWERED, "once", 1), (REPLAYED, "once", 0)]);
    assert_eq!(rows[0].prediction, rows[1].prediction);
}

#[tokio::test]
async fn a_repeat_of_a_durable_call_is_answered_when_its_row_is_written() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1], "policy = 'all'").await;
    rig.pipeline.keys = Some(Keys::new(Config::for_repository(folder.path()).idempotency));
    rig.log(&folder.path().join("log"), "guarantee = 'durable'");
    let call = || Call { key: IdempotencyKey::read(b"once", 100).ok(), ..rig.call(None) };
    rig.infer(call()).await.unwrap().encoded();
    // This one leaves before its answer can be encoded.
    drop(rig.infer(call()).await.unwrap());
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    let told: Vec<_> = rows.iter().map(|row| (row.status, row.amends)).collect();
    assert_eq!(told, [(ANSWERED, false), (REPLAYED, false), (CANCELLED, true)]);
    // The log has ended: no row can be written any more.
    let refused = rig.infer(call()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NotReady);
}

#[tokio::test]
async fn a_shadow_leaves_a_row_beside_the_live_one() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1, 2], "policy = 'all'").await;
    rig.log(folder.path(), "");
    let shadow = config::Shadow {
        name: "next".parse().unwrap(),
        target: config::Target::Local {
            model: "m".parse().unwrap(),
            version: config::VersionChoice::Number(Version(1)),
        },
        sample: crate::types::Share::ALL,
        max_in_flight: 4,
        max_bytes: 1 << 20,
        timeout: Duration::from_secs(5),
    };
    rig.route(1, vec![config::Route { shadows: vec![shadow], ..routes::route("100%") }]);
    let called = routes::route("100%").name.to_string();
    let reply = rig.infer(Call { model: called.clone(), ..rig.call(None) }).await.unwrap();
    reply.encoded();
    let compared = || {
        let snapshot = rig.pipeline.snapshots.load();
        let lane = snapshot.route(&called).unwrap().shadows[0].watch.lane.counts();
        lane.submitted == 1 && lane.in_flight == 0
    };
    while !compared() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    rows.sort_by(|a, b| a.shadow.cmp(&b.shadow));
    let told: Vec<_> = rows
        .iter()
        .map(|row| (&*row.shadow, row.status, &*row.version, row.inputs.len(), row.outputs.len()))
        .collect();
    assert_eq!(told, [("", ANSWERED, "2", 1, 1), ("next", ANSWERED, "1", 0, 1)]);
    assert_eq!(rows[0].prediction, rows[1].prediction);
}

#[tokio::test]
async fn what_a_route_says_holds_for_all_calls_of_its_name() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1, 2], "policy = 'all'").await;
    rig.log(folder.path(), "");
    let log = Some(config::Guarantee::Off);
    rig.route(1, vec![config::Route { log, ..routes::route("100%") }]);
    // By its number a version is called past the route.
    rig.infer(rig.call(Some("1"))).await.unwrap().encoded();
    rig.infer(rig.call(None)).await.unwrap().encoded();
    assert!(rig.infer(rig.call(Some("nobody"))).await.is_err());
    assert_eq!(rig.told(), []);
}

fn static_answer() -> config::Fallback {
    let output = config::StaticOutput {
        name: "y".into(),
        datatype: "UINT8".into(),
        shape: vec![1],
        data: vec![9.0],
    };
    config::Fallback::Static(vec![output])
}

#[tokio::test]
async fn a_declared_answer_has_the_inputs_that_its_arm_would_have_taken() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1, 2], "policy = 'all'").await;
    rig.log(folder.path(), "");
    let fallback = static_answer();
    rig.route(1, vec![config::Route { fallback, ..routes::route("100%") }]);
    rig.stub.push(StubStep::Panic);
    rig.infer(rig.call(None)).await.unwrap().encoded();
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!((&*row.version, &*row.arm, &*row.fallback), ("static", "static", "engine_failed"));
    assert_eq!((&*row.inputs[0].name, &row.inputs[0].data[..]), ("x", &[7][..]));
    assert_eq!((&*row.outputs[0].name, &row.outputs[0].data[..]), ("y", &[9][..]));
}

#[tokio::test]
async fn rules_of_a_model_hold_for_what_it_would_have_taken_whoever_answers() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1, 2], "policy = 'all'").await;
    let rule = "redact = [{ field = 'in.x', how = 'drop', model = 'm' }]";
    rig.log(folder.path(), rule);
    let fallback = static_answer();
    rig.route(1, vec![config::Route { fallback, ..routes::route("100%") }]);
    rig.stub.push(StubStep::Panic);
    rig.infer(rig.call(None)).await.unwrap().encoded();
    rig.infer(rig.call(None)).await.unwrap().encoded();
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    let told: Vec<_> = rows.iter().map(|row| (&*row.version, &row.inputs[0].data[..])).collect();
    assert_eq!(told, [("static", &[][..]), ("2", &[][..])]);
}

#[tokio::test]
async fn a_refused_call_of_many_items_has_all_of_them() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1], "policy = 'all'").await;
    rig.log(folder.path(), "");
    let data = vec![1, 2, 3].into();
    let tensor = engine::Tensor::new(engine::DataType::Uint8, vec![3, 1], data).unwrap();
    let inputs = Inputs::Named(vec![NamedTensor { name: "x".into(), tensor }]);
    let outputs = vec!["nowhere".into()];
    assert!(rig.infer(Call { inputs, outputs, ..rig.call(None) }).await.is_err());
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    assert_eq!((rows[0].items, &rows[0].inputs[0].data[..]), (3, &[1, 2, 3][..]));
}

#[tokio::test]
async fn calls_that_are_told_something_without_a_run_leave_rows_too() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1], "policy = 'all'").await;
    rig.pipeline.keys = Some(Keys::new(Config::for_repository(folder.path()).idempotency));
    rig.log(&folder.path().join("log"), "");
    let keyed = |call: Call| Call { key: IdempotencyKey::read(b"once", 100).ok(), ..call };
    rig.stub.push(StubStep::Panic);
    // It fails, its repeat is told so, and another body may not have its key.
    assert!(rig.infer(keyed(rig.call(None))).await.is_err());
    assert!(rig.infer(keyed(rig.call(None))).await.is_err());
    let other = Call { outputs: vec!["y".into()], ..rig.call(None) };
    assert!(rig.infer(keyed(other)).await.is_err());
    assert_eq!(
        rig.told(),
        [
            row(FAILED, "engine_failed", "1", ""),
            row(REPLAYED, "engine_failed", "", ""),
            row(REFUSED, "idempotency_mismatch", "", ""),
        ]
    );
}

#[tokio::test]
async fn an_arm_that_its_caller_names_has_no_propensity() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(&[1, 2], "policy = 'all'").await;
    rig.log(folder.path(), "");
    rig.route(1, vec![routes::route("1%")]);
    rig.infer(rig.call(Some("canary"))).await.unwrap().encoded();
    let rows = reading::ended(rig.pipeline.log.as_ref().unwrap());
    assert_eq!((&*rows[0].draw, &*rows[0].arm, rows[0].propensity), ("forced", "canary", None));
}
