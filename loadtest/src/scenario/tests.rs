//! Scenarios: the examples parse, and every problem is named with its path.

use std::time::Duration;

use super::*;

fn parse(text: &str) -> anyhow::Result<Scenario> {
    Scenario::parse(text, Path::new("/data"))
}

#[test]
fn every_example_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::read(&path).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!scenario.bounds.is_empty(), "{} asserts nothing", path.display());
        names.push(scenario.name);
    }
    assert!(names.len() >= 3, "{names:?}");
}

#[test]
fn a_scenario_becomes_targets_stages_and_bounds() {
    let scenario = parse(
        r#"
        name = "all"
        model = "m"
        protocol = "grpc"
        rounds = 3
        timeout = "2s"
        [payload]
        rows = 4
        data = "rows.csv"
        expect = []
        length = "8..16"
        inputs = { ids = [3, 4] }
        [keys]
        population = 100
        distribution = "zipf"
        header = "x-user"
        [[targets]]
        name = "a"
        http = "http://127.0.0.1:3"
        grpc = "http://127.0.0.1:1"
        [[targets]]
        http = "http://127.0.0.1:2"
        grpc = "http://127.0.0.1:4"
        [[stages]]
        warm_up = true
        callers = 2
        duration = "1s"
        [[stages]]
        rate = { from = 10, to = 20.5 }
        arrivals = "constant"
        duration = "10s"
        [assert]
        p99 = "20ms"
        error_share = 0.0
        "#,
    )
    .unwrap();
    let job = &scenario.job;
    assert_eq!((job.targets.len(), &job.targets[1].name[..]), (2, "http://127.0.0.1:2"));
    assert_eq!(job.data.as_deref(), Some(Path::new("/data/rows.csv")));
    assert_eq!((job.recipe.rows, job.recipe.lengths), (4, Some((8, 16))));
    assert_eq!(job.recipe.shapes["ids"], [3, 4]);
    assert_eq!(job.expect.as_deref(), Some(&[][..]));
    assert_eq!(job.keys.as_ref().unwrap().header, "x-user");
    assert_eq!((scenario.rounds, job.patience), (3, Duration::from_secs(2)));
    assert_eq!(scenario.stages[0].drive, Drive::callers(2));
    let arrivals = Arrivals::Constant;
    let ramp = Drive::Open { from: 10.0, to: 20.5, arrivals, bound: BOUND };
    assert_eq!(scenario.stages[1].drive, ramp);
    assert_eq!(scenario.bounds.len(), 2);
}

#[test]
fn every_problem_is_named_with_its_path() {
    let error = parse(
        r#"
        protocol = "smtp"
        speed = 3
        [payload]
        rows = 0
        length = "9..3"
        [keys]
        size = 4
        [[targets]]
        name = "a"
        [[stages]]
        rate = { from = 1, until = 2 }
        duration = "1s"
        [[stages]]
        callers = 1
        duration = "soon"
        [[stages]]
        arrivals = "poisson"
        duration = "1s"
        [assert]
        p98 = "1ms"
        p99 = 5
        "#,
    )
    .unwrap_err()
    .to_string();
    for problem in [
        "model: must be named",
        "protocol: 'smtp' is none of http-json, http-binary, grpc, mixed",
        "speed: is no key here",
        "payload.rows: 0 is no whole number from 1 on",
        "payload.length: '9..3' is no range of lengths such as 8..128",
        "keys.population: how many keys there are is wanted",
        "keys.size: is no key here",
        "targets[0].http: there must be an address, here or in grpc",
        "stages[0].rate.to: is wanted for a ramp",
        "stages[0].rate.until: is no key here",
        "stages[1].duration: 'soon' is no time such as \"5s\"",
        "stages[2].callers: either callers or a rate is wanted",
        "assert.p98: 'p98' is none of",
        "assert.p99: '5'",
    ] {
        assert!(error.lines().any(|line| line.starts_with(problem)), "{problem}\nin\n{error}");
    }
}

#[test]
fn a_target_needs_the_address_that_its_protocol_takes() {
    let error = parse(
        "model = \"m\"\nprotocol = \"grpc\"\n[[targets]]\nname = \"a\"\nhttp = \"http://h\"\n\
         [[stages]]\ncallers = 1\nrequests = 5\n",
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "targets: 'a' needs an address for grpc");
}

#[test]
fn warm_up_alone_measures_nothing() {
    let error = parse(
        "model = \"m\"\n[[targets]]\nhttp = \"http://h\"\n\
         [[stages]]\nwarm_up = true\ncallers = 1\nrequests = 5\n",
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "stages: there is nothing but warm-up");
}
