//! Routes as files write them, and every way in which they do not fit.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::parse;
use crate::types::BUCKETS;

fn routes(text: &str) -> Result<Vec<Route>, Vec<String>> {
    parse(&format!("version = 1\n{text}"), Path::new("/etc"))
        .map(|config| config.routes)
        .map_err(|found| found.iter().map(ToString::to_string).collect())
}

fn problems(text: &str) -> Vec<String> {
    routes(text).unwrap_err()
}

/// A route `a` with these arms, each its own lines.
fn with_arms(arms: &[&str]) -> String {
    let arms: String = arms.iter().map(|arm| format!("[[route.arm]]\n{arm}\n")).collect();
    format!("[[route]]\nname = 'a'\n{arms}")
}

fn local(model: &str, version: VersionChoice) -> Target {
    Target::Local { model: model.parse().unwrap(), version }
}

#[test]
fn a_short_route_has_the_documented_defaults() {
    let found = routes("[[route]]\nname = 'digits'\n[[route.arm]]\nname = 'only'").unwrap();
    let arm = Arm {
        name: "only".parse().unwrap(),
        target: local("digits", VersionChoice::Latest),
        share: Share::ALL,
        buckets: None,
    };
    let expected = Route {
        name: "digits".parse().unwrap(),
        sticky: Sticky::Off,
        salt: "digits".into(),
        fallback: Fallback::Refuse,
        testers: vec![],
        arms: vec![arm],
        shadows: vec![],
        log: None,
    };
    assert_eq!(found, [expected]);
}

const LONG: &str = "
[[upstream]]
name = 'fleet'
endpoints = ['10.0.0.1:8001']
[[route]]
name = 'digits'
sticky = 'header:X-User-Id'
salt = 'digits-1'
fallback = 'static'
testers = ['qa-*']
[[route.arm]]
name = 'stable'
version = '1'
[[route.arm]]
name = 'canary'
model = 'digits-next'
version = 'newest'
share = '4.5%'
[[route.arm]]
name = 'far'
upstream = 'fleet'
version = '2024-01'
share = '0.5%'
[[route.static]]
output = 'logits'
dtype = 'FP32'
shape = [2]
data = [0, 1.5]
[[route.shadow]]
name = 'candidate'
upstream = 'fleet'
model = 'other'
sample = '10%'
max_in_flight = 8
max_bytes = '1MiB'
timeout = '2s'
";

#[test]
fn a_long_route_is_read_as_it_is_written() {
    let [route] = routes(LONG).unwrap().try_into().unwrap();
    assert_eq!(route.sticky.text(), "header:x-user-id");
    assert_eq!((route.salt.as_str(), route.testers.as_slice()), ("digits-1", &["qa-*".into()][..]));
    let arms: Vec<_> =
        route.arms.iter().map(|arm| format!("{} {} {}", arm.name, arm.target, arm.share)).collect();
    assert_eq!(
        arms,
        ["stable digits/1 95%", "canary digits-next/newest 4.5%", "far fleet:digits/2024-01 0.5%"]
    );
    assert_eq!(route.arms[1].target, local("digits-next", VersionChoice::Label("newest".into())));
    let shadow = &route.shadows[0];
    assert_eq!(shadow.target.to_string(), "fleet:other/latest");
    assert_eq!((shadow.sample.buckets(), shadow.max_in_flight), (1000, 8));
    assert_eq!((shadow.max_bytes, shadow.timeout), (1 << 20, Duration::from_secs(2)));
    let Fallback::Static(outputs) = &route.fallback else { panic!("{:?}", route.fallback) };
    let tensor = outputs[0].tensor(2).unwrap();
    assert_eq!(tensor.shape(), [2, 2]);
    assert_eq!(crate::codec::numbers::to_f64(&tensor), [0.0, 1.5, 0.0, 1.5]);
    assert_eq!(outputs[0].tensor(0).unwrap().shape(), [2]);
    // Revisions keep routes as JSON.
    let stored = serde_json::to_string(&route).unwrap();
    assert_eq!(serde_json::from_str::<Route>(&stored).unwrap(), route);
}

#[test]
fn shares_that_do_not_make_a_whole_are_added_up() {
    let arms = |shares: &[&str]| {
        let arms: Vec<_> = shares
            .iter()
            .enumerate()
            .map(|(index, share)| match *share {
                "" => format!("name = 'x{index}'"),
                share => format!("name = 'x{index}'\nshare = '{share}'"),
            })
            .collect();
        problems(&with_arms(&arms.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let sum = |text| vec![format!("route[0].arm: shares add up to {text}, must be 100%")];
    assert_eq!(arms(&["95%", "4.5%"]), sum("99.5%"));
    assert_eq!(arms(&["95%", "5.01%"]), sum("100.01%"));
    assert_eq!(arms(&["95%", "10%", ""]), sum("105%"));
    assert_eq!(arms(&["50%"]), sum("50%"));
    assert_eq!(
        arms(&["", "50%", ""]),
        ["route[0].arm[2].share: is missing: only one arm may leave it out"]
    );
    assert_eq!(
        arms(&["5", "1%"]),
        ["route[0].arm[0].share: is \"5\", must be a share such as \"5%\" or \"0.01%\""]
    );
    assert_eq!(
        problems("[[route]]\nname = 'a'"),
        ["route[0].arm: is missing: a route needs at least one [[route.arm]]"]
    );
}

#[test]
fn pinned_buckets_fit_the_shares_of_all_arms() {
    let pins = |one: &str, two: &str| {
        let one = format!("name = 'x'\nshare = '90%'\n{one}");
        with_arms(&[&one, &format!("name = 'y'\nshare = '10%'\n{two}")])
    };
    let found = routes(&pins("buckets = [[9000, 10000], [0, 8000]]", "buckets = [[8000, 9000]]"));
    assert_eq!(found.unwrap()[0].arms[0].buckets, Some(vec![(0, 8000), (9000, 10_000)]));
    assert_eq!(
        problems(&pins("buckets = [[0, 9000]]", "")),
        [
            "route[0].arm[1].buckets: is missing: buckets are pinned for all arms of a route or for none"
        ]
    );
    assert_eq!(
        problems(&pins("buckets = [[0, 8000]]", "buckets = [[7500, 8500]]")),
        [
            "route[0].arm[0].buckets: holds 8000 buckets, a share of 90% is 9000",
            "route[0].arm[1].buckets: holds bucket 7500, as arm[0] does",
        ]
    );
    for wrong in ["[[5, 5]]", "[[0, 10001]]", "[[1]]", "[[0, 5], [9, 3]]"] {
        let found = problems(&pins(&format!("buckets = {wrong}"), "buckets = [[9000, 10000]]"));
        let [problem] = found.as_slice() else { panic!("{found:?}") };
        assert!(problem.contains("must be [FROM, TO]"), "{problem}");
    }
    assert_eq!(
        problems(&pins("buckets = [[0, 5], [4, 8999]]", "buckets = [[9000, 10000]]")),
        ["route[0].arm[0].buckets: has bucket 4 in two ranges"]
    );
}

#[test]
fn every_wrong_name_is_named_with_its_place() {
    let text = "[[route]]\nname = 'a'\nsticky = 'cookie'\nsalt = ''\nfallback = 'y'\n\
                testers = ['q*a']\ntypo = 1\n\
                [[route.arm]]\nname = 'x'\nshare = '50%'\nversion = '01'\n\
                [[route.arm]]\nname = 'x'\nshare = '50%'\nupstream = 'f'\nversion = 'a b'\n\
                [[route.shadow]]\nname = 'x'\nsample = '101%'\nmax_in_flight = 0\n\
                max_bytes = '0B'\ntimeout = '0s'\n\
                [[route]]\nname = 'a'\nsticky = 'header:'\n\
                [[route.arm]]\nname = 'static'\nmodel = '../x'\nversion = 3\n\
                [[route.arm]]\nname = '7'\nshare = '1%'\nversion = 'A'\n";
    assert_eq!(
        problems(text),
        [
            "route[0].sticky: is \"cookie\", must be \"header:NAME\", \"parameter:NAME\", \
             \"identity\" or \"off\"",
            "route[0].salt: must have 1 to 255 bytes",
            "route[0].testers: holds \"q*a\": a name, with * at its end at most",
            "route[0].arm[0].version: is \"01\": versions are numbers from 1",
            "route[0].arm[1].name: \"x\" is the name of another arm or shadow of the route",
            "route[0].arm[1].version: is \"a b\", must be 1 to 64 letters, digits, '-', '_' or \
             '.', or \"latest\"",
            "route[0].arm[1].upstream: is \"f\", no [[upstream]] has that name",
            "route[0].fallback: is \"y\", must be an arm, \"refuse\" or \"static\"",
            "route[0].shadow[0].name: \"x\" is the name of another arm or shadow of the route",
            "route[0].shadow[0].sample: is \"101%\", must be a share such as \"5%\" or \"0.01%\"",
            "route[0].shadow[0].max_in_flight: must be 1 to 65536",
            "route[0].shadow[0].max_bytes: must be at least 1B",
            "route[0].shadow[0].timeout: must be above zero and at most 1h",
            "route[0].typo: is not a known key",
            "route[1].name: \"a\" is the name of another route",
            "route[1].sticky: is \"header:\", which names no header",
            "route[1].arm[0].name: \"static\" is a word of fallback",
            "route[1].arm[0].model: '../x' is not a model name: use 1 to 128 letters, digits, \
             '_', '-', '.' or '+', not starting with a dot",
            "route[1].arm[0].version: must be text such as \"1\", is integer",
            "route[1].arm[1].name: '7' is not a name for an arm: use 1 to 64 small letters, \
             digits, '_' or '-', not a number alone and not 'direct'",
            "route[1].arm[1].version: is \"A\", must be a number, a label of [labels] or \
             \"latest\"",
        ]
    );
}

#[test]
fn static_answers_fit_their_shape_and_type() {
    let answer = |lines: &str| {
        let arm = "[[route.arm]]\nname = 'x'\n";
        problems(&format!("[[route]]\nname = 'a'\nfallback = 'static'\n{arm}{lines}"))
    };
    let output = |rest: &str| answer(&format!("[[route.static]]\noutput = 'y'\n{rest}"));
    assert_eq!(
        answer(""),
        ["route[0].static: is missing: a static answer needs its [[route.static]]"]
    );
    assert_eq!(
        output("dtype = 'FP32'\nshape = [2, 2]\ndata = [1, 2, 3]"),
        ["route[0].static[0].data: has 3 elements, shape [2, 2] needs 4"]
    );
    assert_eq!(
        output("dtype = 'FP32'\nshape = [1000, 1000]\ndata = []"),
        ["route[0].static[0].shape: has more than 65536 elements"]
    );
    assert_eq!(
        output("dtype = 'BYTES'\nshape = [1]\ndata = [1]"),
        ["route[0].static[0].dtype: is BYTES, static answers are numbers"]
    );
    for (datatype, wrong) in [("UINT8", "256"), ("INT64", "1.5"), ("BOOL", "2"), ("FP16", "1e9")] {
        let found = output(&format!("dtype = '{datatype}'\nshape = [1]\ndata = [{wrong}]"));
        let [problem] = found.as_slice() else { panic!("{datatype}: {found:?}") };
        assert!(problem.starts_with("route[0].static[0].data: "), "{problem}");
    }
    let twice = "[[route.static]]\noutput = 'y'\ndtype = 'BOOL'\nshape = [2]\ndata = [0, 1]\n";
    assert_eq!(answer(&twice.repeat(2)), ["route[0].static[1].output: \"y\" is given twice"]);
    let arm = with_arms(&["name = 'x'"]);
    assert_eq!(
        problems(&format!("{arm}{twice}")),
        ["route[0].static: has no effect without fallback = \"static\""]
    );
}

#[test]
fn lists_are_bounded() {
    let arms: String =
        (0..65).map(|index| format!("[[route.arm]]\nname = 'x{index}'\nshare = '0%'\n")).collect();
    let found = problems(&format!("[[route]]\nname = 'a'\n{arms}"));
    assert_eq!(found[0], "route[0].arm: has 65 entries, the most are 64");
    let shadows: String = (0..9).map(|i| format!("[[route.shadow]]\nname = 's{i}'\n")).collect();
    let found = problems(&format!("{}{shadows}", with_arms(&["name = 'x'"])));
    assert_eq!(found, ["route[0].shadow: has 9 entries, the most are 8"]);
    let found = problems(&format!("route = [{}]", "{ name = 'x' },".repeat(10_001)));
    assert_eq!(found[0], "route: has 10001 entries, the most are 10000");
}

#[test]
fn a_route_that_comes_back_to_itself_is_found() {
    let file = |endpoint: &str, listen: &str, routes: &str| {
        let upstream = format!("[[upstream]]\nname = 'self'\nendpoints = ['{endpoint}']\n");
        super::tests::routes(&format!("[listen]\n{listen}\n{upstream}{routes}"))
    };
    let call = |route: &str, model: &str, version: &str| {
        let arm = format!("[[route.arm]]\nname = 'x'\nupstream = 'self'\nmodel = '{model}'");
        format!("[[route]]\nname = '{route}'\n{arm}\nversion = '{version}'\n")
    };
    let looped = |index| {
        format!(
            "route[{index}].arm[0].upstream: is this gateway itself, and its model leads back to this \
         route"
        )
    };
    let direct = call("a", "a", "latest");
    for (endpoint, listen) in [
        ("localhost:8001", ""),
        ("127.0.0.1:8000", ""),
        ("[::1]:8001", ""),
        ("10.0.0.1:9", "grpc = '10.0.0.1:9'"),
        ("0.0.0.0:9", "grpc = '127.0.0.1:9'"),
    ] {
        assert_eq!(file(endpoint, listen, &direct).unwrap_err(), [looped(0)], "{endpoint}");
    }
    for (endpoint, listen) in [
        ("localhost:8002", ""),
        ("10.0.0.1:8001", ""),
        ("127.0.0.2:9", "grpc = '127.0.0.1:9'"),
        ("localhost:8001", "grpc = 'off'"),
    ] {
        assert!(file(endpoint, listen, &direct).is_ok(), "{endpoint} {listen}");
    }
    // Numbers and labels of versions go past routes; names of arms do not.
    assert!(file("localhost:8001", "", &call("a", "a", "1")).is_ok());
    assert!(file("localhost:8001", "", &call("a", "a", "label")).is_ok());
    assert_eq!(file("localhost:8001", "", &call("a", "a", "x")).unwrap_err(), [looped(0)]);
    let around = [call("a", "b", "latest"), call("b", "c", "latest"), call("c", "b", "latest")];
    assert_eq!(file("localhost:8001", "", &around.concat()).unwrap_err(), [looped(1), looped(2)]);
    let shadow = "[[route.shadow]]\nname = 's'\nupstream = 'self'";
    let shadowed = format!("{}{shadow}", with_arms(&["name = 'x'"]));
    assert_eq!(
        file("localhost:8001", "", &shadowed).unwrap_err(),
        [
            "route[0].shadow[0].upstream: is this gateway itself, and its model leads back to this route"
        ]
    );
}

proptest! {
    #[test]
    fn any_whole_division_is_read_and_any_other_is_refused(
        parts in prop::collection::vec(0..=BUCKETS, 1..6), off in -3_i32..=3,
    ) {
        let mut cuts: Vec<u16> = parts[1..].to_vec();
        cuts.extend([0, BUCKETS]);
        cuts.sort_unstable();
        let mut shares: Vec<i32> =
            cuts.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
        shares[0] = (shares[0] + off).clamp(0, i32::from(BUCKETS));
        let whole = shares.iter().sum::<i32>() == i32::from(BUCKETS);
        let written: Vec<Share> =
            shares.iter().map(|n| Share::of_buckets(u16::try_from(*n).unwrap()).unwrap()).collect();
        let arms: Vec<String> = written
            .iter()
            .enumerate()
            .map(|(index, share)| format!("name = 'x{index}'\nshare = '{share}'"))
            .collect();
        let text = with_arms(&arms.iter().map(String::as_str).collect::<Vec<_>>());
        match routes(&text) {
            Ok(found) => {
                prop_assert!(whole);
                let read: Vec<Share> = found[0].arms.iter().map(|arm| arm.share).collect();
                prop_assert_eq!(read, written);
            }
            Err(_) => prop_assert!(!whole),
        }
    }
}
